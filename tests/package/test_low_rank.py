"""Planar, radial and Sylvester flows: identities, constraints under any parameters, amortization, reverse KL."""

import math

import pytest
import torch

from dgm_course import flows
from dgm_course.transforms import Planar, Radial, Sylvester

LAYERS = {
    "planar": lambda **more: Planar(4, **more),
    "radial": lambda **more: Radial(4, **more),
    "orthogonal": lambda **more: Sylvester(4, 2, **more),
    "householder": lambda **more: Sylvester(4, 3, "householder", **more),
    "triangular": lambda **more: Sylvester(4, 4, "triangular", **more),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer_with(name, scale, seed=0):
    layer = LAYERS[name]().double()
    with torch.no_grad():
        layer.raw.copy_(scale * noise(len(layer.raw), seed=seed))
    return layer


@pytest.mark.parametrize("scale", [0.0, 1e-4, 10.0, 1e3, 1e4])
@every_layer
def test_invertible_whatever_the_parameters(name, scale):
    for seed in range(5):
        layer, z = layer_with(name, scale, seed), 3 * noise(50, 4, seed=9)
        with torch.no_grad():
            x, log_det = layer.inverse(z)
            back, back_log_det = layer(x)
        size = max(1.0, float(x.abs().max()))
        assert torch.isfinite(log_det).all() and torch.isfinite(back_log_det).all()
        assert float((layer.inverse(back)[0] - x).detach().abs().max()) < 1e-9 * size  # x is hit, however steep the map


def test_the_constraint_of_planar_keeps_u_w_above_minus_one():
    for w, u in ((1.0, -1e4), (1e4, -1e4), (1e-8, -1.0), (0.0, -5.0)):
        layer = Planar(2).double()
        with torch.no_grad():
            layer.raw.copy_(torch.tensor([u, 0.0, w, 0.0, 0.0]))
        bent, w_, _, slope = layer.constrained(torch.zeros(1, 2).double(), None)
        assert float(slope) > -1 and torch.isfinite(bent).all()
        assert abs(float((bent * w_).sum() - slope)) < 1e-5


@pytest.mark.parametrize("name", ["orthogonal", "householder", "triangular"])
def test_sylvester_identity_against_dense_determinants(name):
    layer, z = layer_with(name, 1.0), noise(6, 4, seed=1)
    q, r, s, b = (part[0] for part in layer.constrained(z, None))
    assert torch.allclose(q.T @ q, torch.eye(layer.rank, dtype=torch.float64), atol=1e-12)
    a_matrix, b_matrix = q @ r, s @ q.T
    for one, log_det in zip(z, layer.inverse(z)[1], strict=True):
        slopes = torch.diag(1 - torch.tanh(b_matrix @ one + b) ** 2)
        wide = torch.det(torch.eye(4, dtype=torch.float64) + a_matrix @ slopes @ b_matrix)
        narrow = torch.det(torch.eye(layer.rank, dtype=torch.float64) + slopes @ b_matrix @ a_matrix)
        assert torch.allclose(wide, narrow) and torch.allclose(wide.log(), log_det)


@every_layer
def test_context_gives_each_example_its_own_flow(name):
    layer = LAYERS[name](context_dim=3).double()
    z, context = noise(5, 4), noise(5, 3, seed=1)
    x, log_det = layer.inverse(z, context)
    for i in range(5):
        alone = LAYERS[name]().double()
        with torch.no_grad():
            alone.raw.copy_(layer.raw + layer.hyper.weight @ context[i])
        want, want_log_det = alone.inverse(z[i : i + 1])
        assert torch.allclose(x[i], want[0]) and torch.allclose(log_det[i], want_log_det[0])


@every_layer
def test_gradient_through_the_numerical_side(name):
    layer, x = layer_with(name, 0.7), noise(2, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, raw: torch.func.functional_call(layer, {"raw": raw}, (x,)), (x, layer.raw)
    )


def test_bad_settings_and_values_are_refused():
    with pytest.raises(RuntimeError, match=r"the inverse did not converge in .* steps: residual nan"):
        Planar(2)(torch.full((1, 2), torch.nan))
    with pytest.raises(ValueError, match=r"rank must lie in 1 .* 3, .* got 4"):
        Sylvester(3, 4)
    with pytest.raises(ValueError, match=r"kind must be one of orthogonal, householder, triangular, got 'other'"):
        Sylvester(3, 2, "other")
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Planar(0)


@pytest.mark.parametrize("make", [flows.planar, flows.radial, flows.sylvester], ids=["planar", "radial", "sylvester"])
def test_named_flow_density_integrates_to_one(make):
    torch.manual_seed(0)
    flow = make(2, 3).double()
    axis = torch.linspace(-8, 8, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        assert abs(float(flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2) - 1) < 1e-3


def test_reverse_kl_of_the_identity_is_known_and_training_lowers_it():
    """The target N(0, 4 I) has KL(N(0, I) || target) = 2 (log 2 + 1/8 - 1/2) in two dimensions."""

    def target(x):
        return -0.5 * (x**2 / 4 + math.log(8 * math.pi)).sum(1)

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    flow = flows.radial(2, 0)
    start = flows.reverse_kl(flow, target, 100_000, generator=generator)
    assert abs(float(start) - 2 * (math.log(2) + 1 / 8 - 1 / 2)) < 0.01
    flow = flows.radial(2, 8)
    optimizer = torch.optim.Adam(flow.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        flows.reverse_kl(flow, target, 128, generator=generator).backward()
        optimizer.step()
    assert -0.01 < float(flows.reverse_kl(flow, target, 10_000, generator=generator).detach()) < 0.15  # optimum 0
