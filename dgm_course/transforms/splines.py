"""Monotone splines on (-bound, bound), the identity outside: laws for coupling and autoregressive layers.

A law gets x `(batch, m, ...)` and parameters c `(batch, n_params * m, ...)`; c = 0 gives the identity.
"""

import math

import torch
from torch.nn import functional as F

from dgm_course.transforms.base import sum_event
from dgm_course.transforms.monotone import Monotone

MIN_BIN, MIN_SLOPE = 1e-3, 1e-3  # least width and height as a share of the interval, least slope at a knot


def knots(logits, bound):
    """Sizes of K bins, `(batch, K, ...)`, and their K + 1 borders from -bound to bound, `(batch, K + 1, ...)`."""
    bins = logits.shape[1]
    sizes = 2 * bound * (MIN_BIN + (1 - MIN_BIN * bins) * F.softmax(logits, dim=1))
    inner = sizes[:, :-1].cumsum(1) - bound
    edge = torch.full_like(sizes[:, :1], bound)
    borders = torch.cat([-edge, inner, edge], dim=1)  # the ends exactly, not as sums
    return borders.diff(dim=1), borders


def bin_of(x, borders):
    """Number of the bin that holds x, 0 to K - 1, with a dimension for `gather`."""
    return (x[:, None] >= borders[:, 1:-1]).sum(1, keepdim=True)


def check_bins(bins, bound):
    if not 2 <= bins < 1 / MIN_BIN or bound <= 0:
        raise ValueError(f"a spline needs 2 to {1 / MIN_BIN - 1:.0f} bins and a positive bound, got {bins} and {bound}")


class RationalQuadratic:
    """Rational-quadratic spline with linear tails: K bins of any width and height, any slope at each inner knot.

    Args:
        bins: K; each entry has 3K - 1 parameters (widths, heights, inner slopes).
        bound: the spline maps (-bound, bound) onto itself.

    References:
        Neural Spline Flows, Durkan, Bekasov, Murray, Papamakarios, 2019, equations 4 to 8 and 29 (the inverse, in the
        form that does not cancel).
    """

    def __init__(self, bins=8, bound=5.0):
        check_bins(bins, bound)
        self.n_params, self.bins, self.bound = 3 * bins - 1, bins, bound

    def prepare(self, c, m):
        w, h, d = c.unflatten(1, (self.n_params, m)).split([self.bins, self.bins, self.bins - 1], dim=1)
        slopes = MIN_SLOPE + F.softplus(d + math.log(math.expm1(1 - MIN_SLOPE)))
        one = torch.ones_like(slopes[:, :1])  # at the ends, to meet the tails
        return *knots(w, self.bound), *knots(h, self.bound), torch.cat([one, slopes, one], dim=1)

    def bin(self, v, prepared, inverse=False):
        """Left border and size of v's bin on both axes, and the slopes at its ends."""
        widths, x, heights, y, slopes = prepared
        k = bin_of(v, y if inverse else x)
        parts = [t.gather(1, k)[:, 0] for t in (x, widths, y, heights, slopes)]
        return *parts, slopes.gather(1, k + 1)[:, 0]

    @staticmethod
    def log_slope(t, s, d0, d1):
        top = s**2 * (d1 * t**2 + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2)
        return top.log() - 2 * (s + (d0 + d1 - 2 * s) * t * (1 - t)).log()

    def forward(self, x, c):
        inner = x.clamp(-self.bound, self.bound)  # outside nothing below can be infinite, nor its gradient NaN
        x0, w, y0, h, d0, d1 = self.bin(inner, self.prepare(c, x.shape[1]))
        t, s = (inner - x0) / w, h / w
        z = y0 + h * (s * t**2 + d0 * t * (1 - t)) / (s + (d0 + d1 - 2 * s) * t * (1 - t))
        inside = x.abs() < self.bound
        return torch.where(inside, z, x), sum_event(torch.where(inside, self.log_slope(t, s, d0, d1), 0.0))

    def inverse(self, z, c):
        inner = z.clamp(-self.bound, self.bound)
        x0, w, y0, h, d0, d1 = self.bin(inner, self.prepare(c, z.shape[1]), inverse=True)
        s, r = h / w, (inner - y0) / h
        excess = d0 + d1 - 2 * s
        a, b, c0 = s - d0 + r * excess, d0 - r * excess, -s * r
        # In exact arithmetic the discriminant is positive; rounding must not make it negative.
        root = (b**2 - 4 * a * c0).clamp(min=torch.finfo(z.dtype).tiny).sqrt()
        t = (2 * c0 / (-b - root)).clamp(0, 1)
        inside = z.abs() < self.bound
        log_det = torch.where(inside, -self.log_slope(t, s, d0, d1), 0.0)
        return torch.where(inside, x0 + t * w, z), sum_event(log_det)


class Cubic(Monotone):
    """Cubic spline: inner slopes follow from the bins (Steffen's rule keeps it monotone), the two end slopes are free.

    Args:
        bins: K; each entry has 2K + 2 parameters (widths, heights, end slopes).
        bound: the spline maps (-bound, bound) onto itself, the identity outside.

    References:
        Cubic-Spline Flows, Durkan, Bekasov, Murray, Papamakarios, 2019, section 3.
        A simple method for monotonic interpolation in one dimension, Steffen, 1990, equation 11.
    """

    def __init__(self, bins=8, bound=5.0):
        super().__init__()
        check_bins(bins, bound)
        self.n_params, self.bins, self.bound = 2 * bins + 2, bins, bound

    def prepare(self, c, m):
        w, h, d = c.unflatten(1, (self.n_params, m)).split([self.bins, self.bins, 2], dim=1)
        (w, x), (h, y) = knots(w, self.bound), knots(h, self.bound)
        s = h / w
        # Between 0 and 3 times the slope of the bin, never at the ends of that range; 1 times it for d = 0.
        ends = 3 * torch.sigmoid(7 * torch.tanh(d / 7) - math.log(2)) * torch.cat([s[:, :1], s[:, -1:]], dim=1)
        parabola = (w[:, 1:] * s[:, :-1] + w[:, :-1] * s[:, 1:]) / (w[:, 1:] + w[:, :-1])
        inner = torch.minimum(2 * torch.minimum(s[:, :-1], s[:, 1:]), parabola)
        return w, x, s, y, torch.cat([ends[:, :1], inner, ends[:, 1:]], dim=1)

    def curve(self, x, prepared):
        widths, borders, secants, y, slopes = prepared
        inner = x.clamp(-self.bound, self.bound)
        k = bin_of(inner, borders)
        x0, w, s, y0, d0 = (t.gather(1, k)[:, 0] for t in (borders, widths, secants, y, slopes))
        d1 = slopes.gather(1, k + 1)[:, 0]
        t = (inner - x0) / w
        z = y0 + w * t * (d0 + t * (3 * s - 2 * d0 - d1 + t * (d0 + d1 - 2 * s)))
        slope = d0 + t * (2 * (3 * s - 2 * d0 - d1) + 3 * t * (d0 + d1 - 2 * s))
        inside = x.abs() < self.bound
        return torch.where(inside, z, x), torch.where(inside, slope, 1.0).log()

    def bracket(self, z, prepared):
        return z.clamp(max=-self.bound) - 1e-3, z.clamp(min=self.bound) + 1e-3
