"""Same parameters, same numbers as zuko and nflows, to 1e-6 in float64: monotone laws and masked networks."""

import math

import pytest
import torch
import zuko
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.made import MADE
from nflows.transforms.splines.cubic import unconstrained_cubic_spline
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline

from dgm_course.nn import MaskedMLP
from dgm_course.transforms import (
    Affine,
    Autoregressive,
    Cubic,
    Inverse,
    PositiveNetwork,
    RationalQuadratic,
    SumOfSquares,
)


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


def test_unconstrained_monotonic_network_of_zuko():
    torch.manual_seed(0)
    law = PositiveNetwork(signal=4, hidden=8, nodes=24).double()
    x, c, p = example(law)
    x = x.clamp(-9, 9)

    def g(u):  # (batch, dim), or (nodes, batch, dim) within the integral
        nodes_second = u.reshape(-1, *x.shape).movedim(0, 1)
        return law.positive(nodes_second, p[..., 1:].movedim(-1, 1)).movedim(1, 0).reshape(u.shape)

    z, log_det = zuko.transforms.UnconstrainedMonotonicTransform(g, n=24).call_and_ladj(x)
    same(law, x, c, z + p[..., 0], log_det)


def test_made_of_nflows():
    """Its outputs are sorted by entry, ours by parameter; its masks are replaced by ours."""
    torch.manual_seed(0)
    net = MaskedMLP(5, 2, (16, 16), order=[2, 0, 4, 1, 3]).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    peer = MADE(5, 16, num_blocks=1, output_multiplier=2, use_residual_blocks=False).double()
    theirs = [peer.initial_layer, peer.blocks[0].linear, peer.final_layer]
    by_entry = torch.arange(10).reshape(2, 5).T.flatten()
    for a, b in zip(net.linears, theirs, strict=True):
        rows = by_entry if b is peer.final_layer else slice(None)
        b.weight.data, b.bias.data, b.mask = a.weight.data[rows], a.bias.data[rows], a.mask[rows]
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(net(x)[:, by_entry], peer(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("turned", [False, True], ids=["MAF", "IAF"])
def test_masked_affine_transform_of_nflows(turned):
    """With the same masked network on both sides: output and log-det, one pass and entry by entry."""
    torch.manual_seed(0)
    net = MaskedMLP(5, 2, (16, 16), order=[2, 0, 4, 1, 3]).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    layer, peer = Autoregressive(net, Affine()), MaskedAffineAutoregressiveTransform(5, 4)

    class Net(torch.nn.Module):
        def forward(self, x, context=None):
            shift, one = (layer.law.forward(torch.full_like(x, v), net(x))[0] for v in (0.0, 1.0))
            scale = one - shift  # which the peer gets as softplus(u) + 1e-3
            return torch.stack([torch.log(torch.expm1(scale - 1e-3)), shift], dim=-1).flatten(1)

    peer.autoregressive_net = Net()
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pairs = [(layer.forward, peer.forward), (layer.inverse, peer.inverse)]
    if turned:
        pairs = [(Inverse(layer).inverse, peer.forward), (Inverse(layer).forward, peer.inverse)]
    with torch.no_grad():
        for mine, theirs in pairs:
            for got, want in zip(mine(x), theirs(x), strict=True):
                torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
