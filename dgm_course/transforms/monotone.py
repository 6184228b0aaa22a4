"""Monotone laws without a closed inverse: neural autoregressive flow, SOS polynomials, UMNN; and their inversion.

A law maps x to z entry by entry, increasing in x, with parameters c from a coupling or autoregressive network: `c` of
shape `(batch, n_params * m, ...)` for x of shape `(batch, m, ...)`. With c = 0 each is (almost) the identity.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.transforms.base import sum_event


@torch.no_grad()
def solve_monotone(curve, z, low, high, max_steps=300):
    """Solves curve(x) = z for increasing curves, elementwise: Newton steps inside a bracket, else bisection.

    Every third step halves the bracket, so it converges whatever the shape of the curve.

    Args:
        curve: `curve(x)` gives value and log-slope.
        z: values wanted.
        low, high: brackets, of the shape of z.
        max_steps: limit of evaluations.

    Raises:
        RuntimeError: not solved to rounding error, e.g. because the bracket does not hold the solution; the message
            has the largest residual.
    """
    eps = torch.finfo(z.dtype).eps
    x, done = (low + high) / 2, torch.zeros_like(z, dtype=torch.bool)
    for step in range(max_steps):
        value, log_slope = curve(x)
        gap = value - z
        newton = gap * (-log_slope).exp()
        # An entry is done when its bracket, its Newton step or its residual has come down to rounding error.
        tight = high - low <= 4 * eps * x.abs().clamp(min=1)
        small = (newton.abs() <= 4 * eps * x.abs().clamp(min=1)) | (gap.abs() <= 4 * eps * z.abs())
        done = done | tight | small
        if bool(done.all()):
            break
        low, high = torch.where(gap < 0, x, low), torch.where(gap > 0, x, high)
        middle, next_x = (low + high) / 2, x - newton
        inside = (next_x > low) & (next_x < high) & (step % 3 < 2)
        x = torch.where(done, x, torch.where(inside, next_x, middle))
    bad = ~((newton.abs() <= eps**0.5 * x.abs().clamp(min=1)) | (gap.abs() <= eps**0.5 * z.abs().clamp(min=1)))
    if bool((bad | ~done).any()):
        raise RuntimeError(
            f"the inverse did not converge in {step + 1} steps: residual {gap[bad | ~done].abs().max():g}"
        )
    return x


class Monotone(nn.Module):
    """A law given by `prepare(c, m)`, `curve(x, prepared)` (value and log-slope) and `bracket(z, prepared)`."""

    def forward(self, x, c):
        z, log_slope = self.curve(x, self.prepare(c, x.shape[1]))
        return z, sum_event(log_slope)

    def inverse(self, z, c):
        prepared = self.prepare(c, z.shape[1])
        x = solve_monotone(lambda x: self.curve(x, prepared), z, *self.bracket(z, prepared))
        value, log_slope = self.curve(x, prepared)
        if torch.is_grad_enabled():  # one more Newton step carries the gradients of the implicit function theorem
            x = x - (value - z) * (-log_slope).exp().detach()
            log_slope = self.curve(x, prepared)[1]
        return x, -sum_event(log_slope)


def along(v, x):
    """A vector as dimension 1 of a tensor that broadcasts to `(batch, len(v), *x.shape[1:])`."""
    return v.to(x).reshape(-1, *[1] * (x.dim() - 1))


class Sigmoidal(Monotone):
    """Deep sigmoidal flow: z = logit(sum_k w_k sigmoid(a_k (x - b_k))), all of it in log-space.

    Both logarithms, of the mixture and of one minus it, are sums of positive terms: no saturation, no 1 - p. Far out
    z goes on in straight lines, so the map is onto. Several in a row (`naf` with layers) make it deep.

    Args:
        units: sigmoids K.
        bound: the log of a_k is softly clamped to (-bound, bound).

    References:
        Neural Autoregressive Flows, Huang, Krueger, Lacoste, Courville, 2018, equations 8 to 10 and appendix C.
    """

    def __init__(self, units=8, bound=3.0):
        super().__init__()
        self.n_params, self.units, self.bound = 3 * units, units, bound

    def prepare(self, c, m):
        log_a, b, w = c.unflatten(1, (3, self.units, m)).unbind(1)
        log_a = self.bound * torch.tanh(log_a / self.bound)
        # Centres start apart: units that start equal would get equal gradients, and stay equal.
        return log_a, b + along(torch.linspace(-2, 2, self.units), b[:, 0]), F.log_softmax(w, dim=1)

    def curve(self, x, prepared):
        log_a, b, log_w = prepared
        y = log_a.exp() * (x[:, None] - b)
        on, off = log_w + F.logsigmoid(y), log_w + F.logsigmoid(-y)
        log_p, log_q = on.logsumexp(1), off.logsumexp(1)
        return log_p - log_q, (on + F.logsigmoid(-y) + log_a).logsumexp(1) - log_p - log_q

    def bracket(self, z, prepared):
        log_a, b, _ = prepared
        # z lies between the least and the largest a_k (x - b_k); a little room is left for rounding.
        x = b + z[:, None] * (-log_a).exp()
        low, high = x.amin(1), x.amax(1)
        return low - 1e-3 * (1 + low.abs()), high + 1e-3 * (1 + high.abs())


class Integral(Monotone):
    """z = c_0 + integral of a positive function g from 0 to x, by Gauss-Legendre quadrature; log-slope = log g(x).

    Inside (-bound, bound); outside z goes on in a straight line, so that wide inputs neither overflow nor leave the
    range where the quadrature is good. A subclass gives `positive(u, params)`: `(batch, nodes, m, ...)` for as many u.
    """

    def __init__(self, n_params, nodes, bound):
        super().__init__()
        self.n_params, self.bound = 1 + n_params, bound
        u, w = np.polynomial.legendre.leggauss(nodes)
        # The last node, x itself, has no weight: it gives the slope in the same evaluation.
        self.nodes, self.weights = torch.tensor([*(u + 1) / 2, 1.0]), torch.tensor([*w / 2, 0.0])
        self.nodes, self.weights = self.nodes.double(), self.weights.double()

    def prepare(self, c, m):
        c = c.unflatten(1, (self.n_params, m))
        return c[:, 0], c[:, 1:]

    def curve(self, x, prepared):
        shift, params = prepared
        inner = x.clamp(-self.bound, self.bound)
        g = self.positive(along(self.nodes, x) * inner[:, None], params)
        z = shift + inner * (along(self.weights, x) * g).sum(1) + (x - inner) * g[:, -1]
        return z, g[:, -1].log()

    def bracket(self, z, prepared):
        ends = []
        for end in (-self.bound, self.bound):
            value, log_slope = self.curve(torch.full_like(z, end), prepared)
            ends.append(end + (z - value) * (-log_slope).exp())
        low, high = ends[0].clamp(max=-self.bound), ends[1].clamp(min=self.bound)
        return low - 1e-3 * (1 + low.abs()), high + 1e-3 * (1 + high.abs())


class SumOfSquares(Integral):
    """SOS polynomial flow: g = min_slope + mean_k p_k(u)^2 with polynomials p_k; the quadrature is exact.

    p_k(u) = 1 + t_k u / bound + sum_l a_kl (u / bound)^l, with fixed small tilts t_k that tell the polynomials apart
    at the start.

    Args:
        polynomials: K, at least 2 (two squares make every positive polynomial).
        degree: of each p_k; z has degree `2 * degree + 1`.
        bound: z is a polynomial inside (-bound, bound), straight outside.
        min_slope: lower limit of g.

    References:
        Sum-of-Squares Polynomial Flow, Jaini, Selby, Yu, 2019, equations 9 to 12.
    """

    def __init__(self, polynomials=3, degree=4, bound=10.0, min_slope=1e-3):
        super().__init__(polynomials * (degree + 1), degree + 1, bound)
        self.polynomials, self.degree, self.min_slope = polynomials, degree, min_slope

    def positive(self, u, params):
        u = u[:, :, None] / self.bound  # (batch, nodes, 1, m, ...) against polynomials (batch, 1, K, m, ...)
        a = params.unflatten(1, (self.polynomials, self.degree + 1))[:, None]
        p = a[:, :, :, -1]
        for k in range(self.degree - 1, -1, -1):
            p = p * u + a[:, :, :, k]
        tilt = torch.linspace(-0.5, 0.5, self.polynomials).to(u).reshape(-1, *[1] * (u.dim() - 3))
        return self.min_slope + (1 + tilt * u + p).square().mean(2)


class PositiveNetwork(Integral):
    """UMNN: g is a network with positive output that gets u and the parameters of the entry; all entries share it.

    What the parameters add to the first layer does not depend on u, so it is computed once for all nodes.

    Args:
        signal: parameters for each entry that steer the network.
        hidden: widths of its two hidden layers. Its activation is tanh, smooth as quadrature needs it.
        nodes: nodes of the quadrature; the steeper the network, the more are needed.
        bound: range of the integral; straight outside.
        min_slope: lower limit of g.

    References:
        Unconstrained Monotonic Neural Networks, Wehenkel, Louppe, 2019, equations 1 to 3 and section 4 (there with
        Clenshaw-Curtis quadrature).
    """

    def __init__(self, signal=8, hidden=16, nodes=24, bound=10.0, min_slope=1e-3):
        super().__init__(signal, nodes, bound)
        self.min_slope = min_slope
        self.signal, self.u = nn.Linear(signal, hidden), nn.Linear(1, hidden, bias=False)
        self.rest = nn.Sequential(nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def positive(self, u, params):
        first = self.signal(params.movedim(1, -1))[:, None] + self.u(u[..., None])
        # softplus(0.5413) = 1, the slope of the identity
        return self.min_slope + F.softplus(0.5413 + self.rest(first)[..., 0])
