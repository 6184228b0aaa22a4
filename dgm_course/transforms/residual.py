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

from dgm_course.nn import check_context
from dgm_course.transforms.base import Transform, dense_jacobian, expect, random_signs, sum_event, tracked


def spectral_bound(matrices, squarings=8):
    """Upper bound on the largest singular value of all `matrices` `(n, rows, columns)`; differentiable, a scalar.

    Power iteration from every unit vector at once: the Gram matrix G is squared again and again, so that no starting
    vector can miss the largest direction. With m = 2^squarings, sigma <= tr(G^(m+1))^(1/(2m+2)) always, and too large
    by a factor of at most min(rows, columns)^(1/(2m+2)): 1 percent for a rank of 128 and 8 squarings.

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
        power, log_trace = gram, 0.0  # G^m = exp(log_trace) power, where power has trace 1
        for m in range(squarings + 1):
            power, log_trace = (power @ power, 2 * log_trace) if m else (power, log_trace)
            trace = power.diagonal(dim1=1, dim2=2).sum(1).real.clamp(min=tiny)
            power, log_trace = power / trace[:, None, None], log_trace + trace.log()
        log_trace = log_trace + (power * gram.mT).sum((1, 2)).real.clamp(min=tiny).log()
        best = log_trace.argmax()
        bound = size * torch.exp(log_trace[best] / (2**squarings + 1) / 2)
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

    def apply_with(self, weight, x):
        return F.linear(x, weight, self.bias)


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

    def apply_with(self, weight, x):
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class LipSwish(nn.Module):
    """x sigmoid(softplus(beta) x) / 1.1: smooth, not monotone, of Lipschitz constant below 1 for any beta."""

    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor([0.5]))

    def forward(self, x):
        return x * torch.sigmoid(F.softplus(self.beta) * x) / 1.1


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
        """g(., context) as a function for many x of one shape, with weights normalized once."""
        expect(x, self.shape, name)
        check_context(context, self.context_dim, len(x))
        weights = [layer.normalized(x.shape[2:]) for layer in self.layers]
        shift = 0 if context is None else self.shift(context)[(..., *[None] * (x.dim() - 2))]

        def g(x):
            h = self.layers[0].apply_with(weights[0], x) + shift
            for act, layer, weight in zip(self.acts, self.layers[1:], weights[1:], strict=True):
                h = layer.apply_with(weight, act(h))
            return h

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
        z, log_det = self._with_log_det(self.net.fixed(x, context), x)
        return z, log_det

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
            y = g(x)
            if self.log_det in ("exact", "series"):
                value = exact_log_det(dense_jacobian(y, x, keep), self.terms if self.log_det == "series" else None)
            elif self.log_det in ("hutchinson", "roulette"):
                value = self.estimate(y, x, random_signs(x, self.generator), self.length(x.device), keep)
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

    def estimate(self, y, x, v, n, keep=False):
        """The estimate from y = g(x), given signs v and the number n of terms; `(batch,)`.

        Args:
            y, x: `(batch, ...)`, x with gradient.
            v: random signs, of x's shape.
            n: number of terms, from `length`.
            keep: whether the estimate is to have a gradient.
        """
        w, value, neumann = v, 0.0, torch.zeros_like(v)
        for k in range(1, n + 1):
            reached = (1 - self.stop) ** max(0, k - self.terms) if self.log_det == "roulette" else 1.0
            sign = (-1) ** (k + 1) / reached
            neumann = neumann + sign * w
            w = torch.autograd.grad(y, x, w, retain_graph=True)[0]  # v^T J^k
            value = value + sign / k * sum_event(w * v)
        if not keep:
            return value
        slope = sum_event(torch.autograd.grad(y, x, neumann, create_graph=True)[0] * v)  # its gradient is right
        return value + slope - slope.detach()


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
