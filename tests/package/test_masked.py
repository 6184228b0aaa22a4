"""MADE networks and autoregressive flows."""

import itertools

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from dgm_course.nn import MaskedMLP
from dgm_course.transforms import Affine, Autoregressive, Coupling, Inverse, RationalQuadratic, Sigmoidal


def random_(module, scale=0.5, seed=0):
    """Random parameters in float64 (last layers start at zero)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.double().parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype) / p[0].numel() ** 0.25)
    return module


def depends(net, context=None):
    """`(n_params, dim, dim)`: does parameter p of entry i change with entry j? Over several x, by autograd."""
    x = torch.randn(8, net.dim, dtype=torch.float64)
    total = sum(
        jacobian(lambda v, i=i: net(v[None], None if context is None else context[i : i + 1])[0], x[i]).abs()
        for i in range(len(x))
    )
    return (total > 0).unflatten(0, (net.n_params, net.dim))


@pytest.mark.parametrize("n_params", [1, 2, 5])
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_each_entry_sees_all_entries_before_it_in_the_order_and_no_other(order, n_params):
    net = random_(MaskedMLP(4, n_params, (24, 24), order=order, activation=nn.Tanh))
    rank = torch.argsort(torch.tensor(order))
    before = rank[None, :] < rank[:, None]
    assert torch.equal(depends(net), before.expand(n_params, 4, 4))


def test_a_linear_made_and_one_of_a_single_entry():
    assert torch.equal(depends(random_(MaskedMLP(3, 2, ())))[0], torch.ones(3, 3).tril(-1).bool())
    assert not depends(random_(MaskedMLP(1, 2, (8,)))).any()


def test_every_entry_sees_the_context_the_first_one_by_a_nonlinear_way():
    net = random_(MaskedMLP(3, 1, (16,), context_dim=2, order=[2, 0, 1], activation=nn.Tanh))
    x, context = torch.randn(1, 3).double(), torch.randn(1, 2).double()
    assert (jacobian(lambda c: net(x, c)[0], context)[:, 0].abs() > 0).all()
    first = [float(net(x, t * context)[0, 2].detach()) for t in (-1, 0, 1)]
    assert abs(first[0] + first[2] - 2 * first[1]) > 1e-3
    with pytest.raises(ValueError, match=r"needs a context of shape \(batch, 2\), got none"):
        net(x)


def test_reorder_keeps_the_weights_and_random_degrees_stay_autoregressive():
    net = random_(MaskedMLP(5, 2, (40, 30), activation=nn.Tanh))
    weights = [p.clone() for p in net.parameters()]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        order = torch.randperm(5, generator=generator)
        net.reorder(order, generator=generator)
        rank = torch.argsort(order)
        assert not (depends(net) & (rank[None, :] >= rank[:, None])).any()
        net(torch.randn(3, 5).double()).sum().backward()
    net.reorder(range(5), degrees=[[4] * 40, [4] * 30])
    assert torch.equal(depends(net)[0].any(1), torch.tensor([0, 0, 0, 0, 1]).bool()), "only the last entry may see 4"
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


def test_masks_survive_save_and_load():
    net, other = random_(MaskedMLP(4, 2, (16,), order=[3, 1, 0, 2])), MaskedMLP(4, 2, (16,)).double()
    other.load_state_dict(net.state_dict())
    x = torch.randn(5, 4).double()
    assert torch.equal(net(x), other(x))


@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("hidden", [(), (3,), (20,), (20, 30, 10)], ids=str)
@pytest.mark.parametrize("dim", [1, 2, 6])
def test_building_entry_by_entry_equals_one_pass_each(dim, hidden, context_dim):
    generator = torch.Generator().manual_seed(0)
    net = random_(MaskedMLP(dim, 3, hidden, context_dim))
    context = torch.randn(7, context_dim, dtype=torch.float64) if context_dim else None
    noise = torch.randn(7, dim, dtype=torch.float64)

    def choose(i, c):
        return noise[:, i] * c[:, 0].tanh() + c[:, 1] * c[:, 2].tanh()

    for random_degrees in (False, True):
        net.reorder(torch.randperm(dim, generator=generator), generator=generator if random_degrees else None)
        x = torch.zeros(7, dim, dtype=torch.float64)
        with torch.no_grad():
            for i in net.order.tolist():
                x[:, i] = choose(i, net(x, context).unflatten(1, (3, dim))[:, :, i])
        torch.testing.assert_close(net.sequential(choose, 7, context), x, rtol=1e-9, atol=1e-12)


def test_bad_orders_and_degrees_are_refused():
    with pytest.raises(ValueError, match=r"permutation of 0 ... 2, got \[1, 2, 3\]"):
        MaskedMLP(3, 1, (4,), order=[1, 2, 3])
    with pytest.raises(ValueError, match=r"lengths \[4\], got \[3\]"):
        MaskedMLP(3, 1, (4,)).reorder(range(3), degrees=[[1, 1, 1]])
    with pytest.raises(ValueError, match="between 0 and 2, got"):
        MaskedMLP(3, 1, (4,)).reorder(range(3), degrees=[[1, 1, 1, 3]])


def test_realnvp_lies_inside_maf_and_iaf():
    """Half-kept coupling, z2 = x2 e^s + t: an autoregressive layer whose first half is free and steers the second."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(4, 2, generator=generator).double()  # s = w[:2] x_a, t = w[2:] x_a

    def conditioner(x, context):
        return x @ w.T

    coupling = Coupling(4, conditioner, Affine(3.0))
    net = MaskedMLP(4, 2, ()).double()
    with torch.no_grad():
        net.linears[-1].weight.zero_()
        net.linears[-1].weight[2:4, :2], net.linears[-1].weight[6:8, :2] = w[:2], w[2:]
    maf_layer = Autoregressive(net, Affine(3.0))
    iaf_layer = Inverse(maf_layer)
    x = torch.randn(6, 4, generator=generator).double()
    for layer in (maf_layer, iaf_layer):
        coupling_way = coupling if layer is maf_layer else Inverse(coupling)
        for got, want in zip((*layer(x), *layer.inverse(x)), (*coupling_way(x), *coupling_way.inverse(x)), strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("law", [Affine(1.0), RationalQuadratic(), Sigmoidal(4)], ids=lambda law: type(law).__name__)
def test_fast_inverse_equals_the_plain_one(law):
    layer = random_(Autoregressive(MaskedMLP(6, law.n_params, (20, 20), 2, order=[3, 1, 0, 5, 4, 2]), law), 0.3)
    z, context = torch.randn(9, 6).double(), torch.randn(9, 2).double()
    with torch.no_grad():
        for fast, plain in zip(layer.inverse_fast(z, context), layer.inverse_plain(z, context), strict=True):
            torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)
