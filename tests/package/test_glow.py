"""Glow: data-dependent initialization, 1x1 convolutions and the whole model."""

import copy

import pytest
import torch

from dgm_course import flows
from dgm_course.transforms import ActNorm, InvertibleConv1x1


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_actnorm_starts_from_the_first_training_batch_and_only_from_it():
    layer, x = ActNorm(3).double(), 5 * noise(20, 3, 4, 4) + 2
    for call in (layer.eval(), layer.inverse):
        with pytest.raises(RuntimeError, match="not initialized: send one batch"):
            call(x)
    z, _ = layer.train()(x)
    channels = z.transpose(0, 1).flatten(1)
    assert torch.allclose(channels.mean(1), torch.zeros(3).double(), atol=1e-9)
    assert torch.allclose(channels.std(1), torch.ones(3).double())
    before = copy.deepcopy(layer.state_dict())
    layer(noise(20, 3, 4, 4, seed=1))
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    other = ActNorm(3).double()
    other.load_state_dict(before)
    assert torch.equal(other.eval()(x)[0], layer(x)[0]), "a loaded layer is initialized"


def test_actnorm_batches_that_cannot_start_it():
    for x in (torch.zeros(1, 3), torch.full((4, 3), torch.nan)):
        with pytest.raises(ValueError, match="at least two finite values per channel"):
            ActNorm(3)(x)
    z, log_det = ActNorm(2)(torch.ones(4, 2))  # constant channels
    assert torch.isfinite(z).all() and torch.isfinite(log_det).all()


@pytest.mark.parametrize("lu", [False, True])
def test_1x1_convolution_starts_as_a_rotation_and_is_a_convolution(lu):
    layer, x = InvertibleConv1x1(4, lu).double(), noise(3, 4, 2, 2)
    w = layer.matrix()
    assert torch.allclose(w @ w.T, torch.eye(4).double(), atol=1e-6)
    z, log_det = layer(x)
    assert torch.allclose(z, torch.nn.functional.conv2d(x, w[:, :, None, None]))
    assert torch.allclose(log_det, 4 * torch.linalg.slogdet(w).logabsdet.expand(3), atol=1e-6)


def test_singular_and_nearly_singular_matrices():
    layer, x = InvertibleConv1x1(2).double(), noise(5, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-6]], dtype=torch.float64))
        z, log_det = layer(x)
        assert torch.allclose(layer.inverse(z)[0], x, atol=1e-8)
        assert torch.allclose(log_det.exp(), torch.full((5,), 1e-6, dtype=torch.float64), rtol=1e-6)
        layer.weight.copy_(torch.ones(2, 2))
    for call in (layer, layer.inverse):
        with pytest.raises(RuntimeError, match=r"singular: log\|det W\| = -inf"):
            call(x)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("lu", [True, False])
def test_glow_inverts_and_trains(affine, lu):
    torch.manual_seed(0)
    flow = flows.glow((1, 8, 8), levels=2, steps=2, hidden=8, affine=affine, lu=lu).double()
    x = 3 * noise(32, 1, 8, 8)
    with pytest.raises(RuntimeError, match="not initialized"):
        flow.sample(2)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    first = float(flow.loss(x).detach())
    for _ in range(15):
        optimizer.zero_grad()
        flow.loss(x).backward()
        optimizer.step()
    assert float(flow.loss(x).detach()) < first
    with torch.no_grad():
        z, log_det = flow.transform(x)
        back, back_log_det = flow.transform.inverse(z)
    assert torch.allclose(back, x, atol=1e-8) and torch.allclose(log_det, -back_log_det, atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.transform(v[None])[0][0], x[0]).reshape(64, 64)
    assert torch.allclose(torch.linalg.slogdet(jacobian).logabsdet, log_det[0], atol=1e-8)
    assert flow.sample(3).shape == (3, 1, 8, 8)


def test_glow_refuses_sizes_that_do_not_halve():
    with pytest.raises(ValueError, match=r"divisible by 4 for 2 levels, got \(6, 8\)"):
        flows.glow((1, 6, 8))
