"""Planar, radial, actnorm and 1x1 convolutions: same parameters, same numbers as nflows and normflows, to 1e-6."""

import math

import nflows.transforms
import normflows
import torch

from dgm_course.transforms import ActNorm, InvertibleConv1x1, Planar, Radial


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same(got, want):
    for one, two in zip(got, want, strict=True):
        assert torch.allclose(one.detach(), two.detach().expand_as(one), rtol=1e-6, atol=1e-6)


def test_planar_equals_normflows():
    ours, z = Planar(5).double(), 2 * noise(50, 5)
    with torch.no_grad():
        ours.raw.copy_(noise(11, seed=1))
    u, w, b, slope = ours.constrained(z, None)
    # normflows bends u by another softplus; this is the u that it bends into ours.
    raw = u + (torch.log(torch.expm1(1 + slope)) - slope) * w / (w * w).sum()
    same(ours.inverse(z), normflows.flows.Planar((5,), u=raw, w=w, b=b[0]).forward(z))


def test_radial_equals_normflows():
    ours, z = Radial(5).double(), 2 * noise(50, 5)
    c, alpha, beta = ours.constrained(z, None)
    theirs = normflows.flows.Radial((5,), z_0=c.detach()).double()
    with torch.no_grad():
        theirs.alpha.copy_(alpha[0])
        theirs.beta.copy_(torch.log(torch.expm1(beta + alpha))[0])
    same(ours.inverse(z), theirs.forward(z))


def test_actnorm_equals_nflows():
    ours, theirs, x = ActNorm(3).double(), nflows.transforms.ActNorm(3).double(), 3 * noise(50, 3, 4, 4) + 1
    same(ours(x), theirs(x))
    z = noise(5, 3, 4, 4, seed=1)
    same(ours.inverse(z), theirs.inverse(z))


def test_1x1_convolution_equals_nflows_and_normflows():
    x = noise(5, 4, 3, 3)
    theirs = nflows.transforms.OneByOneConvolution(4, identity_init=False).double()
    ours = InvertibleConv1x1(4).double()
    with torch.no_grad():
        ours.weight.copy_(theirs.weight()[:, torch.argsort(theirs.permutation._permutation)])
    same(ours(x), theirs(x))
    same(ours.inverse(x), theirs.inverse(x))
    for lu in (False, True):
        ours, theirs = InvertibleConv1x1(4, lu).double(), normflows.flows.Invertible1x1Conv(4).double()
        with torch.no_grad():
            theirs.W.copy_(ours.matrix())
        same(ours(x), theirs.inverse(x))  # its forward goes from latent to data
    assert math.isclose(float(ours(x)[1][0].detach()), -float(ours.inverse(x)[1][0].detach()))
