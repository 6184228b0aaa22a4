"""Same parameters, same numbers as zuko and nflows, to 1e-6 in float64: splines and sums of squares."""

import math

import torch
import zuko
from nflows.transforms.splines.cubic import unconstrained_cubic_spline
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

from dgm_course.transforms import Cubic, RationalQuadratic, SumOfSquares


def example(law, dim=3, batch=200):
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    c = torch.randn(batch, law.n_params * dim, generator=generator, dtype=torch.float64)
    return x, c, c.unflatten(1, (law.n_params, dim)).movedim(1, -1)


def same(law, x, c, z, log_det):
    got = law.forward(x, c)
    torch.testing.assert_close(got[0], z, rtol=0, atol=1e-6)
    torch.testing.assert_close(got[1], log_det.sum(1), rtol=0, atol=1e-6)


def test_rational_quadratic_spline_of_nflows():
    law = RationalQuadratic(6, 4.0)
    x, c, p = example(law)
    w, h, d = p.split([6, 6, 5], dim=-1)
    d = d + math.log(math.expm1(1 - 1e-3))
    z, log_det = unconstrained_rational_quadratic_spline(x, w, h, d, tails="linear", tail_bound=4.0)
    same(law, x, c, z, log_det)


def test_cubic_spline_of_nflows():
    law = Cubic(6, 4.0)
    x, c, p = example(law)
    w, h, d = p.split([6, 6, 2], dim=-1)
    d = 7 * torch.tanh(d / 7) - math.log(2)
    z, log_det = unconstrained_cubic_spline(x, w, h, d[..., :1], d[..., 1:], tail_bound=4.0)
    same(law, x, c, z, log_det)


def test_sum_of_squares_of_zuko():
    law = SumOfSquares(3, 4)
    x, c, p = example(law)
    x, a = x.clamp(-9, 9), p[..., 1:].unflatten(-1, (3, 5)).clone()
    a[..., 1] += torch.linspace(-0.5, 0.5, 3, dtype=torch.float64)
    z, log_det = zuko.transforms.SOSPolynomialTransform(a).call_and_ladj(x)
    same(law, x, c, z + p[..., 0], log_det)
