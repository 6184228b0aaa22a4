"""Contractive residual blocks z = x + g(x) with Lip(g) < 1: the layers of i-ResNet and Residual Flow.

`forward` is analytic. Its log-det is the power series sum_k (-1)^(k+1) tr(J^k) / k with J = dg/dx: exact, cut off, or
estimated. `inverse` iterates x <- z - g(x) to the fixed point, which Banach's theorem promises.

References:
    Invertible residual networks, Behrmann et al., 2019, equations 2 to 4 and algorithm 1.
    Residual flows for invertible generative modeling, Chen et al., 2019, equations 6 and 8, section 3.3.
"""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.transforms.base import (
    Transform,
    check_context,
    dense_jacobian,
    expect,
    random_signs,
    sum_event,
    tracked,
)


def spectral_bound(matrices, rounds=2):
    """Upper bound on the largest singular value of all `matrices` `(n, rows, columns)`; differentiable, a scalar.

    Power iteration from every unit vector at once: powers of the Gram matrix G by repeated squaring, so that no
    starting vector can miss the largest direction. With m = 16^rounds, sigma <= tr(G^(m+1))^(1/(2m+2)) always, and
    the bound is too large by a factor of at most min(rows, columns)^(1/(2m+2)): 1 percent for 128 and m = 256.

    References:
        Efficient bound of Lipschitz constant for convolutional layers by Gram iteration, Delattre et al., 2023,
        theorem 2 (there with another norm in place of the trace).
    """
    if matrices.shape[-1] > matrices.shape[-2]:
        matrices = matrices.mH
    tiny = torch.finfo(matrices.dtype).tiny
    with torch.no_grad():
        size = matrices.abs().amax().clamp(min=tiny)
        gram = (matrices / size).mH @ (matrices / size)
        power, log_scale = gram, 0.0  # G^m = exp(log_scale) power: nothing over- or underflows
        for _ in range(rounds):
            norm = torch.linalg.matrix_norm(power, keepdim=True).clamp(min=tiny)
            power, log_scale = torch.linalg.matrix_power(power / norm, 16), 16 * (log_scale + norm.flatten().log())
        log_trace = log_scale + (power * gram.mT).sum((1, 2)).real.clamp(min=tiny).log()
        best = log_trace.argmax()
        bound = size * torch.exp(log_trace[best] / (2 * 16**rounds + 2))
    # d log tr(G^(m+1)) / (m+1) = tr(G^m dG) / tr(G^(m+1)): the power counts as a constant, and the gradient is exact.
    worst = matrices[best] / size
    square = (worst @ power[best] * worst.conj()).sum().real.clamp(min=tiny)
    return bound * (square / square.detach()).sqrt()


class SpectralLinear(nn.Linear):
    """Linear layer, used with its weight shrunk to a largest singular value of at most `coeff`.

    The bound is computed anew from the weight in each call, so it holds after any step at once. Smaller weights are
    left alone.
    """

    def __init__(self, n_in, n_out, coeff):
        super().__init__(n_in, n_out)
        self.coeff = coeff

    def normalized(self, size=()):
        return self.weight * (self.coeff / spectral_bound(self.weight[None]).clamp(min=self.coeff))

    def apply_with(self, weight, bias, x):
        return F.linear(x, weight, bias)


class SpectralConv2d(nn.Conv2d):
    """Convolution that keeps height and width (stride 1, zeros outside), of Lipschitz constant at most `coeff`.

    Padded by zeros it is a part of the circular convolution on a torus that is larger by kernel - 1, and so has no
    larger norm. That one's singular values are those of one small matrix for each frequency.

    References:
        The singular values of convolutional layers, Sedghi, Gupta, Long, 2019, theorem 6.
    """

    def __init__(self, c_in, c_out, kernel, coeff):
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd to keep height and width, got {kernel}")
        super().__init__(c_in, c_out, kernel, padding=kernel // 2)
        self.coeff = coeff

    def normalized(self, size):
        kernel = self.kernel_size[0]
        torus = [n + kernel - 1 if kernel > 1 else 1 for n in size]
        frequencies = torch.fft.rfft2(self.weight, s=torus).flatten(2).movedim(2, 0)
        return self.weight * (self.coeff / spectral_bound(frequencies).clamp(min=self.coeff))

    def apply_with(self, weight, bias, x):
        return F.conv2d(x, weight, bias, padding=self.padding)


class LipSwish(nn.Module):
    """x sigmoid(softplus(beta) x) / 1.1: smooth, not monotone, of Lipschitz constant below 1 for any beta."""

    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([0.5]))

    def slope(self):
        return F.softplus(self.beta).clamp(min=1e-6)

    def forward(self, x):
        return x * torch.sigmoid(self.slope() * x) / 1.1


class Contractive(nn.Module):
    """Network g of Lipschitz constant at most coeff^(number of layers): spectral layers with LipSwish between them.

    The context shifts the first layer's output, which leaves the Lipschitz constant in x alone.

    Args:
        layers: spectral layers.
        shape: shape of one x, as `expect` takes it.
        width: channels after the first layer.
        context_dim: entries of `context`; 0 for none.
    """

    def __init__(self, layers, shape, width, context_dim=0):
        super().__init__()
        if not all(0 < layer.coeff < 1 for layer in layers):
            raise ValueError(f"coeff must lie between 0 and 1, got {layers[0].coeff}")
        self.layers, self.shape, self.context_dim = nn.ModuleList(layers), shape, context_dim
        self.acts = nn.ModuleList(LipSwish() for _ in layers[1:])
        self.shift = nn.Linear(context_dim, width) if context_dim else None

    def fixed(self, x, context=None, name="x"):
        """g(., context) as a function for many x of one shape, with weights normalized once.

        `g(x)` is y, `g(x, v)` is y and the forward derivative J v, with J = dy/dx.
        """
        expect(x, self.shape, name)
        check_context(context, self.context_dim, len(x))
        weights = [layer.normalized(x.shape[2:]) for layer in self.layers]
        biases = [layer.bias for layer in self.layers]
        shift = 0 if context is None else self.shift(context)[(..., *[None] * (x.dim() - 2))]
        # LipSwish(h) = silu(s h) / (1.1 s): both scalings go into the weights, once, and not into each pass.
        for i, act in enumerate(self.acts):
            s = act.slope()
            weights[i], biases[i], weights[i + 1] = s * weights[i], s * biases[i], weights[i + 1] / (1.1 * s)
            shift = s * shift if i == 0 else shift

        def g(x, v=None):
            h = self.layers[0].apply_with(weights[0], biases[0], x)
            h = h if context is None else h + shift
            v = None if v is None else self.layers[0].apply_with(weights[0], None, v)
            for layer, weight, bias in zip(self.layers[1:], weights[1:], biases[1:], strict=True):
                if v is not None:
                    gate = torch.sigmoid(h)
                    v = layer.apply_with(weight, None, gate * (1 + h * (1 - gate)) * v)
                h = layer.apply_with(weight, bias, F.silu(h))
            return h if v is None else (h, v)

        return g

    def forward(self, x, context=None):
        return self.fixed(x, context)(x)


class ContractiveMLP(Contractive):
    """Contractive network on vectors `(batch, dim)` with hidden layers of the given widths."""

    def __init__(self, dim, hidden=(64, 64), coeff=0.97, context_dim=0):
        widths = [dim, *hidden, dim]
        layers = [SpectralLinear(a, b, coeff) for a, b in pairwise(widths)]
        super().__init__(layers, (dim,), widths[1], context_dim)


class ContractiveConvNet(Contractive):
    """Contractive network on images `(batch, channels, h, w)`: 3x3, 1x1 and 3x3 convolution, as in i-ResNet."""

    def __init__(self, channels, hidden=32, coeff=0.97, context_dim=0):
        widths = [channels, hidden, hidden, channels]
        layers = [SpectralConv2d(a, b, k, coeff) for (a, b), k in zip(pairwise(widths), (3, 1, 3), strict=True)]
        super().__init__(layers, (channels, None, None), hidden, context_dim)


class Residual(Transform):
    """Residual block z = x + g(x). Its log-det, of `forward` and of `inverse` alike, is set by `log_det`:

    - `exact`: from the dense Jacobian, dim backward passes; for small dim.
    - `series`: the first `terms` of the power series with exact traces. Biased, by at most
      dim L^(terms+1) / (terms+1) / (1-L) with L = Lip(g).
    - `hutchinson`: the same terms, each trace tr(J^k) estimated by v.J^k v with random signs v. An unbiased estimate
      of `series`, biased as that one.
    - `roulette`: the first `terms`, then each further one is reached with probability 1 - stop and divided by its
      chance of being reached, with Hutchinson's traces. An unbiased estimate of `exact`; its variance is finite if
      L^2 < 1 - stop.

    Attribute `log_det` may be set at any time: say `roulette` to train, `exact` to evaluate. The gradient of an
    estimate is an unbiased estimate of the gradient of what it estimates (Neumann series, Chen et al., equation 8).

    Args:
        net: the contractive network g, e.g. `ContractiveMLP(dim)`.
        log_det: see above.
        terms: see above.
        stop: see `roulette`.
        max_iter: steps of the fixed-point iteration before `inverse` gives up.
        generator: source of random signs and lengths.
    """

    def __init__(self, net, log_det="exact", terms=10, stop=0.5, max_iter=2000, generator=None):
        super().__init__()
        if terms < 1 or not 0 < stop < 1:
            raise ValueError(f"terms must be at least 1 and stop lie between 0 and 1, got {terms} and {stop}")
        self.net, self.log_det, self.terms, self.stop = net, log_det, terms, stop
        self.max_iter, self.generator = max_iter, generator

    def forward(self, x, context=None):
        return self._with_log_det(self.net.fixed(x, context), x)

    def inverse(self, z, context=None):
        """As `Transform.inverse`. The gradient is that of the solution (implicit function theorem), once.

        Raises:
            ValueError: the iteration did not converge: g is no contraction, or z is not finite.
        """
        g = self.net.fixed(z, context, "z")
        with torch.no_grad():
            x = solution = fixed_point(lambda x: z - g(x), z, self.max_iter)
        if torch.is_grad_enabled():
            x = z - g(x)
            if x.requires_grad:
                x.register_hook(lambda grad: self._solve_transposed(g, solution, grad))
                x = x.clone()  # derivatives by this x, inside the log-det, are to pass by the hook
        return x, -self._with_log_det(g, x)[1]

    def _solve_transposed(self, g, x, grad):
        """grad (I + J)^-1: the fixed point of u <- grad - u J."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = g(x)
        return fixed_point(lambda u: grad - torch.autograd.grad(y, x, u, retain_graph=True)[0], grad, self.max_iter)

    def _with_log_det(self, g, x):
        """z and the log-det, as `log_det` says."""
        with tracked(x) as (x, keep):
            if self.log_det in ("exact", "series"):
                y, terms = g(x), self.terms if self.log_det == "series" else None
                value = exact_log_det(dense_jacobian(y, x, keep), terms)
            elif self.log_det in ("hutchinson", "roulette"):
                y, value = self.estimate(g, x, random_signs(x, self.generator), self.length(x.device))
            else:
                raise ValueError(f"log_det must be exact, series, hutchinson or roulette, got {self.log_det!r}")
            z = x + y
        return (z, value) if keep else (z.detach(), value.detach())

    def length(self, device=None):
        """Number of terms of an estimate: `terms`, and for roulette a geometric number more."""
        if self.log_det != "roulette":
            return self.terms
        u = 1 - float(torch.rand((), generator=self.generator, device=device, dtype=torch.float64))
        return self.terms + math.floor(math.log(u) / math.log1p(-self.stop))

    def estimate(self, g, x, v, n):
        """y = g(x) and the estimate `(batch,)`, given signs v and the number n of terms.

        One forward derivative J v serves all terms, v^T J^k v = (v^T J^(k-1)) J v, and carries the gradient.

        Args:
            g: from `Contractive.fixed`.
            x: `(batch, ...)`, with gradient.
            v: random signs, of x's shape.
            n: number of terms, from `length`.
        """
        y, slope = g(x, v)
        w, value, neumann = v, 0.0, 0.0
        for k in range(1, n + 1):
            w = torch.autograd.grad(y, x, w, retain_graph=True)[0] if k > 1 else w  # v^T J^(k-1)
            reached = (1 - self.stop) ** max(0, k - self.terms) if self.log_det == "roulette" else 1.0
            signed = (-1) ** (k + 1) / reached * w
            value, neumann = value + sum_event(signed * slope.detach()) / k, neumann + signed
        surrogate = sum_event(neumann * slope)  # of zero weight in the value; its gradient is the right one
        return y, value + surrogate - surrogate.detach()


def exact_log_det(jacobian, terms=None):
    """log|det(I + J)| of J `(batch, dim, dim)`, or the first `terms` of its power series; `(batch,)` in nats."""
    if terms is None:
        eye = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
        return torch.linalg.slogdet(eye + jacobian).logabsdet
    total, power = 0.0, jacobian
    for k in range(1, terms + 1):
        total = total + (-1) ** (k + 1) / k * power.diagonal(dim1=1, dim2=2).sum(1)
        power = power @ jacobian
    return total


def fixed_point(step, start, max_iter):
    """Iterates x <- step(x) until it stands still to rounding, each example by its own scale.

    Raises:
        ValueError: it did not within `max_iter` steps; the message has the residual.
    """
    eps, x = torch.finfo(start.dtype).eps, start
    scale = 1 + start.flatten(1).abs().amax(1) if len(start) else start.new_ones(0)
    change = 0 * scale
    for _ in range(max_iter):
        x, before = step(x), x
        change = (x - before).flatten(1).abs().amax(1) / scale if len(start) else change
        if bool((change <= 2 * eps).all()) or not bool(torch.isfinite(change).all()):
            break
    if not bool((change < 100 * eps).all()):
        raise ValueError(
            f"the fixed-point iteration did not converge in {max_iter} steps: relative residual {change.max().item():g}"
        )
    return x
