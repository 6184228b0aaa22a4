"""Same parameters, same numbers as normflows (residual blocks) and zuko (continuous flows), in float64."""

import normflows
import pytest
import torch
import zuko
from normflows.nets.lipschitz import InducedNormConv2d, InducedNormLinear, Swish

from dgm_course.transforms import Continuous, ContractiveMLP, Residual, VectorField
from dgm_course.transforms.residual import LipSwish, SpectralConv2d, spectral_bound


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def contractive(dim=2):
    torch.manual_seed(0)
    return ContractiveMLP(dim, (8,), 0.9).double()


def same(got, want, tolerance=1e-6):
    for one, two in zip(got, want, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance, check_dtype=False)


def test_exact_log_det_of_normflows():
    """Its `brute_force` is a determinant in two dimensions. (Not in training mode, where it wants no derivatives.)"""
    net, x = contractive(), noise(20, 2)
    peer = normflows.flows.Residual(net, reverse=False, brute_force=True).double().eval()
    z, log_det = peer(x.clone())
    same(Residual(net)(x), (z, log_det))


def test_series_of_normflows():
    net, x = contractive(3), noise(20, 3)
    peer = normflows.flows.Residual(net, reverse=False, exact_trace=True, n_power_series=7).double().eval()
    z, log_det = peer(x.clone())
    same(Residual(net, "series", terms=7)(x), (z, log_det))


def test_inverse_of_normflows():
    """With its own tolerance (1e-5 on squared steps) made strict."""
    net, z = contractive(3), noise(20, 3)
    peer = normflows.flows.Residual(net, reverse=False).double()
    with torch.no_grad():
        same(Residual(net).inverse(z)[:1], [peer.iresblock._inverse_fixed_point(z, atol=1e-20, rtol=0.0)])


def test_lipswish_of_normflows():
    ours, peer, x = LipSwish().double(), Swish().double(), 5 * noise(100)
    with torch.no_grad():
        ours.beta.fill_(0.7), peer.beta.fill_(0.7)
    same([ours(x)], [peer(x)])


def test_spectral_norm_of_normflows():
    """Its power iteration, run until it stands still, finds the norm that ours bounds (to 1e-6 with four rounds)."""
    torch.manual_seed(0)
    peer = InducedNormLinear(5, 7, coeff=0.5, domain=2, codomain=2, n_iterations=2000, atol=None, rtol=None).double()
    with torch.no_grad():
        peer.weight.copy_(noise(7, 5))
        peer.compute_weight(update=True, n_iterations=2000)
        scale = peer.weight / peer.compute_weight(update=False)
    same([spectral_bound(peer.weight[None], rounds=4).detach()], [0.5 * scale.mean()])


def test_convolution_norm_of_normflows():
    """Its power iteration on one image size: ours bounds it from above, by 6 percent at most on 14 x 14."""
    torch.manual_seed(0)
    peer = InducedNormConv2d(2, 3, 3, 1, 1, coeff=0.5, domain=2, codomain=2, n_iterations=100).double()
    ours = SpectralConv2d(2, 3, 3, 0.5).double()
    with torch.no_grad():
        peer.weight.copy_(noise(3, 2, 3, 3)), ours.weight.copy_(peer.weight)
        peer(noise(1, 2, 14, 14))
        peer.compute_weight(update=True, n_iterations=300)
        ratio = ours.normalized((14, 14)) / peer.compute_weight(update=False)
    assert 0.94 < float(ratio.mean()) <= 1 + 1e-6


@pytest.mark.parametrize("adjoint", [False, True])
def test_free_form_jacobian_of_zuko(adjoint):
    """Exact trace, both ways, and the gradients of its adjoint and of ours."""
    torch.manual_seed(0)
    field, x = VectorField(2, (16,)).double(), noise(20, 2)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    ours = Continuous(field, atol=1e-8, rtol=1e-8, adjoint=adjoint)
    peer = zuko.transforms.FreeFormJacobianTransform(field, phi=field.parameters(), atol=1e-8, rtol=1e-8)
    for call, peer_call in ((ours, peer), (ours.inverse, peer.inv)):
        got, want = call(x), peer_call.call_and_ladj(x)
        same(got, want)
        slopes = [torch.autograd.grad((z.sin().sum(1) + d).sum(), [*field.parameters()]) for z, d in (got, want)]
        same(*slopes, 1e-5)
