"""Same parameters, same numbers as zuko, nflows and normflows: outputs and log-dets, in both directions, to 1e-6.

Both sides share one conditioner; adapters bring its output into the order and the parametrization of each library.
"""

import nflows.transforms
import normflows
import pytest
import torch
import zuko
from torch import nn

from dgm_course.nn import MLP, ResidualConvNet
from dgm_course.transforms import (
    Additive,
    Affine,
    Compose,
    Coupling,
    MaskedCoupling,
    Permute,
    Squeeze,
    checkerboard_mask,
)


class Conditioner(nn.Module):
    """A network with random parameters whose log-scales lie below 0 (nflows scales by at most 1.001)."""

    def __init__(self, net, law, seed=0):
        super().__init__()
        self.net, self.law = net.double(), law
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.normal_(0, 0.3, generator=generator)

    def forward(self, x, context=None):
        out = self.net(x)
        if self.law.n_params == 1:
            return out
        s, t = out.chunk(2, dim=1)
        return torch.cat([-0.1 - s.abs(), t], dim=1)


def coupling(n, law, seed=0, swap=False, image=False):
    kept, moved = (n // 2, n - n // 2) if swap else (n - n // 2, n // 2)
    net = ResidualConvNet(kept, law.n_params * moved, 8, 1) if image else MLP(kept, law.n_params * moved, (16,))
    return Coupling(n, Conditioner(net, law, seed), law, swap)


def scale_and_shift(layer, kept):
    """What our law makes of the conditioner's output: log-scale s and translation t."""
    out = layer.conditioner(kept)
    return (torch.zeros_like(out), out) if layer.law.n_params == 1 else layer.law.split(out)


def kept_first(layer):
    """1 for entries that are kept, 0 for those that are transformed."""
    first = torch.arange(sum(layer.sizes)) < layer.sizes[0]
    return ~first if layer.swap else first


class Zuko:
    """zuko.transforms.CouplingTransform with MonotonicAffineTransform, which bounds log-scales by a softsign."""

    def __init__(self, layer):
        limit = 6.907755278982137  # -log(1e-3), zuko's smallest slope

        def meta(kept):
            s, t = scale_and_shift(layer, kept)
            affine = zuko.transforms.MonotonicAffineTransform(t, s / (1 - s.abs() / limit))
            return zuko.transforms.DependentTransform(affine, 1)

        self.transform = zuko.transforms.CouplingTransform(meta, kept_first(layer))

    def forward(self, x):
        return self.transform.call_and_ladj(x)

    def inverse(self, z):
        return self.transform.inv.call_and_ladj(z)


class NFlows:
    """nflows' coupling: shift first, then a scale of sigmoid(u + 2) + 0.001."""

    def __init__(self, layer):
        class Net(nn.Module):
            def forward(self, kept, context=None):
                s, t = scale_and_shift(layer, kept)
                return t if layer.law.n_params == 1 else torch.cat([t, (s.exp() - 1e-3).logit() - 2], dim=1)

        names = {1: "AdditiveCouplingTransform", 2: "AffineCouplingTransform"}
        make = getattr(nflows.transforms, names[layer.law.n_params])
        self.transform = make((~kept_first(layer)).long(), lambda n_in, n_out: Net())

    def forward(self, x):
        return self.transform(x)

    def inverse(self, z):
        return self.transform.inverse(z)


class NormFlows:
    """normflows' coupling: two parts, shifts and log-scales alternating; its `forward` has the form of ours."""

    def __init__(self, layer):
        class Net(nn.Module):
            def forward(self, kept):
                s, t = scale_and_shift(layer, kept)
                return t if layer.law.n_params == 1 else torch.stack([t, s], dim=2).flatten(1, 2)

        self.sizes, self.swap = layer.sizes, layer.swap
        self.flow = normflows.flows.AffineCoupling(Net(), scale=layer.law.n_params == 2)

    def call(self, flow, x):
        parts = x.split(self.sizes, dim=1)
        parts, log_det = flow(parts[::-1] if self.swap else parts)
        return torch.cat(parts[::-1] if self.swap else parts, dim=1), log_det

    def forward(self, x):
        return self.call(self.flow.forward, x)

    def inverse(self, z):
        return self.call(self.flow.inverse, z)


def same(ours, theirs, x):
    """Both directions agree, outputs and log-dets."""
    with torch.no_grad():
        z, log_det = ours(x)
        for got, want in zip((z, log_det, *ours.inverse(z)), (*theirs.forward(x), *theirs.inverse(z)), strict=True):
            want = torch.as_tensor(want, dtype=got.dtype)
            assert torch.allclose(got, want.expand_as(got), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("law", [Additive(), Affine(2.0)], ids=["additive", "affine"])
@pytest.mark.parametrize(("n", "swap"), [(2, False), (5, False), (5, True), (8, True)])
@pytest.mark.parametrize("peer", [Zuko, NFlows, NormFlows])
def test_coupling_of_vectors(peer, n, swap, law):
    layer = coupling(n, law, swap=swap)
    same(layer, peer(layer), 2 * torch.randn(50, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("law", [Additive(), Affine(2.0)], ids=["additive", "affine"])
@pytest.mark.parametrize("peer", [NFlows, NormFlows])
def test_coupling_of_channels(peer, law):
    layer = coupling(4, law, swap=True, image=True)
    x = torch.randn(6, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    same(layer, peer(layer), x)


@pytest.mark.parametrize("peer", [Zuko, NFlows, NormFlows])
def test_stack_of_couplings(peer):
    layers = [coupling(4, Affine(2.0), seed, swap=seed % 2 == 1) for seed in range(4)]

    class Stack:
        def run(self, calls, x):
            total = 0
            for call in calls:
                x, log_det = call(x)
                total = total + log_det
            return x, total

        def forward(self, x):
            return self.run([peer(layer).forward for layer in layers], x)

        def inverse(self, z):
            return self.run([peer(layer).inverse for layer in layers[::-1]], z)

    x = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    same(Compose(*layers), Stack(), x)


@pytest.mark.parametrize("swap", [False, True])
def test_masked_coupling_equals_normflows(swap):
    mask = checkerboard_mask(4, 4, swap).double()
    layer = MaskedCoupling(mask, Conditioner(ResidualConvNet(2, 4, 8, 1), Affine(2.0)), bound=2.0).double()

    class Part(nn.Module):
        def __init__(self, i):
            super().__init__()
            self.i = i

        def forward(self, kept):
            return scale_and_shift(layer, kept)[self.i]

    theirs = normflows.flows.MaskedAffineFlow(mask.expand(2, 4, 4), t=Part(1), s=Part(0))
    x = torch.randn(6, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    same(layer, theirs, x)


def test_squeeze_equals_nflows_and_normflows():
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = Squeeze()(x)[0]
    assert torch.equal(z, nflows.transforms.SqueezeTransform()(x)[0])
    assert torch.equal(z, normflows.flows.Squeeze().inverse(x)[0]), "its forward goes from latent to data"
    assert torch.equal(Squeeze().inverse(z)[0], normflows.flows.Squeeze().forward(z)[0])


def test_permutation_equals_zuko_nflows_and_normflows():
    order = torch.tensor([3, 0, 4, 1, 2])
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = Permute(order), nflows.transforms.Permutation(order)
    assert torch.equal(ours(x)[0], theirs(x)[0]) and torch.equal(ours.inverse(x)[0], theirs.inverse(x)[0])
    theirs = zuko.transforms.PermutationTransform(order)
    assert torch.equal(ours(x)[0], theirs(x)) and torch.equal(ours.inverse(x)[0], theirs.inv(x))
    theirs = normflows.flows.Permute(5)
    theirs.perm, theirs.inv_perm = order, torch.argsort(order)
    assert torch.equal(ours(x)[0], theirs(x)[0]) and torch.equal(ours.inverse(x)[0], theirs.inverse(x)[0])
