"""Continuous flows: closed forms, densities that integrate to one, estimates over all signs, both gradients."""

import itertools

import pytest
import torch
from torch import nn

from dgm_course import flows
from dgm_course.transforms import Continuous, VectorField


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class LinearField(nn.Module):
    """f(t, x) = rate(t) matrix x."""

    def __init__(self, matrix, rate=lambda t: 1.0):
        super().__init__()
        self.matrix, self.rate = nn.Parameter(matrix), rate
        self.shape, self.context_dim = (len(matrix),), 0

    def forward(self, t, x, context=None):
        return self.rate(t) * x @ self.matrix.T


def field(dim=3, context_dim=0, activation=nn.Tanh, scale=1.0):
    """A field with random weights (the last layer of a new one is zero)."""
    torch.manual_seed(0)
    made = VectorField(dim, (16,), context_dim, activation).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * scale * torch.randn_like(parameter))
    return made


def random_sign_vectors(dim):
    return [torch.tensor(s, dtype=torch.float64) for s in itertools.product([-1.0, 1.0], repeat=dim)]


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("solver", ["rk4", "dopri5", "dopri8"])
def test_a_linear_equation_against_the_matrix_exponential(solver, adjoint):
    matrix, x = 0.8 * noise(3, 3), noise(5, 3, seed=1)
    layer = Continuous(LinearField(matrix), solver=solver, steps=100, atol=1e-12, rtol=1e-12, adjoint=adjoint)
    z, log_det = layer(x)
    assert torch.allclose(z, x @ torch.linalg.matrix_exp(matrix).T, atol=1e-8)
    assert torch.allclose(log_det, matrix.trace().expand(5), atol=1e-8)
    back, back_log_det = layer.inverse(x)
    assert torch.allclose(back, x @ torch.linalg.matrix_exp(-matrix).T, atol=1e-8)
    assert torch.allclose(back_log_det, -matrix.trace().expand(5), atol=1e-8)


def test_a_field_that_changes_with_time():
    """Rate 3 t^2 integrates to 1 over [0, 1]; half way it has done an eighth."""
    matrix, x = 0.5 * noise(2, 2), noise(4, 2, seed=1)
    layer = Continuous(LinearField(matrix, lambda t: 3 * t**2), atol=1e-10, rtol=1e-10)
    half, log_det = layer.integrate(x, None, 0.0, 0.5)
    assert torch.allclose(half, x @ torch.linalg.matrix_exp(matrix / 8).T, atol=1e-8)
    assert torch.allclose(log_det, matrix.trace().expand(4) / 8, atol=1e-8)
    assert torch.allclose(layer.integrate(half, None, 0.5, 1.0)[0], layer(x)[0], atol=1e-8)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Softplus])
def test_the_density_integrates_to_one(activation):
    flow = flows.Flow(flows.StandardNormal((2,)), Continuous(field(2, 0, activation), atol=1e-6, rtol=1e-6)).double()
    axis = torch.linspace(-25, 25, 101, dtype=torch.float64)
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(axis, axis)).exp()
        mean = density @ torch.cartesian_prod(axis, axis) * 0.5**2
        samples = flow.sample(20_000, generator=torch.Generator().manual_seed(0))
    assert abs(float(density.sum()) * 0.5**2 - 1) < 1e-4
    assert ((samples.mean(0) - mean).abs() < 5 * samples.std(0) / 20_000**0.5).all()  # and is that of the samples


def test_hutchinson_over_all_signs_is_the_exact_trace():
    """At fixed steps the mean over the eight sign vectors is the solver's exact-trace result itself."""
    exact = Continuous(field(), solver="rk4", steps=4)
    noisy, x = Continuous(field(), "hutchinson", solver="rk4", steps=4), noise(6, 3)
    for start, end in ((0.0, 1.0), (1.0, 0.0)):
        results = [noisy.integrate(x, None, start, end, v.expand(6, 3)) for v in random_sign_vectors(3)]
        log_dets = torch.stack([log_det for _, log_det in results])
        z, log_det = exact.integrate(x, None, start, end)
        assert torch.allclose(log_dets.mean(0), log_det, atol=1e-12)
        assert float(log_dets.detach().std(0).min()) > 1e-3
        assert all(torch.allclose(one, z, atol=1e-12) for one, _ in results)


def test_noise_is_fixed_in_a_solve_and_drawn_by_the_generator():
    def run(seed):
        layer = Continuous(field(), "hutchinson", generator=torch.Generator().manual_seed(seed))
        return layer(noise(6, 3))[1].detach()

    before = torch.get_rng_state()
    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))
    layer = Continuous(field(), "hutchinson", generator=torch.Generator().manual_seed(0))
    first, second = layer(noise(6, 3))[1].detach(), layer(noise(6, 3))[1].detach()
    assert not torch.equal(first, second), "a call draws anew"
    signs = noise(6, 3, seed=5).sign()  # noise that changed within a solve would not repeat
    assert torch.equal(*[layer.integrate(noise(6, 3), None, 0.0, 1.0, signs)[1].detach() for _ in range(2)])
    torch.set_rng_state(before)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_the_adjoint_gradient_equals_the_direct_one(solver, trace):
    """For x, every parameter, and a context that a network has made."""
    results = []
    signs = noise(4, 2, seed=9).sign()
    for adjoint in (False, True):
        layer = Continuous(field(2, 3), trace, solver, 40, 1e-9, 1e-9, adjoint)
        x, raw = noise(4, 2).requires_grad_(), noise(4, 3, seed=2).requires_grad_()
        z, log_det = layer.integrate(x, raw.sin(), 0.0, 1.0, signs)
        leaves = [x, raw, *layer.parameters()]
        results.append(torch.autograd.grad((z.sin().sum(1) + log_det).sum(), leaves))
    assert all(float(direct.abs().max()) > 1e-3 for direct in results[0])
    for direct, adjoint in zip(*results, strict=True):
        assert torch.allclose(direct, adjoint, atol=1e-6)


def test_the_direct_gradient_against_finite_differences():
    layer, x = Continuous(field(2), solver="rk4", steps=3), noise(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_wide_inputs_come_back(scale):
    layer, x = Continuous(field(), atol=1e-9, rtol=1e-9), scale * noise(20, 3)
    with torch.no_grad():
        z, log_det = layer(x)
        back, back_log_det = layer.inverse(z)
    assert float((back - x).abs().max()) < 1e-7 * scale
    assert float((log_det + back_log_det).abs().max()) < 1e-6


def test_tolerances_that_float32_cannot_meet_are_met_as_well_as_it_can():
    layer, x = Continuous(field(), atol=1e-12, rtol=1e-12).float(), noise(20, 3).float()
    with torch.no_grad():
        z, log_det = layer(x)
        want, want_log_det = Continuous(field(), atol=1e-12, rtol=1e-12)(x.double())
    assert float((z - want).abs().max()) < 1e-4 and float((log_det - want_log_det).abs().max()) < 1e-4


@torch.no_grad()
def test_smaller_tolerances_are_more_accurate():
    x, errors = noise(10, 3), []
    truth = torch.cat([t.reshape(-1) for t in Continuous(field(scale=2.0), solver="rk4", steps=500)(x)])
    for tolerance in (1e-2, 1e-5, 1e-8):
        got = Continuous(field(scale=2.0), atol=tolerance, rtol=tolerance)(x)
        errors.append(float((torch.cat([t.reshape(-1) for t in got]) - truth).abs().max()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-6 < 1e-4 < errors[0]


def test_bad_settings_and_inputs_are_refused():
    with pytest.raises(ValueError, match="trace must be exact or hutchinson, got 'other'"):
        Continuous(VectorField(2), "other")
    with pytest.raises(ValueError, match=r"solver must be one of euler, midpoint, rk4, .* got 'other'"):
        Continuous(VectorField(2), solver="other")
    with pytest.raises(ValueError, match="steps, atol and rtol must be positive, got 0"):
        Continuous(VectorField(2), steps=0)
    layer = flows.ffjord(2, context_dim=2).transform
    with pytest.raises(ValueError, match=r"needs a context of shape \(batch, 2\), got none"):
        layer(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 2\), got \(1, 3\)"):
        layer(torch.zeros(1, 3), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="solver dopri5 gave up"):
        Continuous(field(2))(torch.full((1, 2), torch.nan, dtype=torch.float64))


@pytest.mark.parametrize("settings", [{}, {"trace": "hutchinson", "solver": "rk4", "steps": 5, "adjoint": True}])
def test_ffjord_trains(settings):
    torch.manual_seed(0)
    flow, x = flows.ffjord(2, (16,), generator=torch.Generator().manual_seed(0), **settings), 0.3 * noise(64, 2).float()
    optimizer = torch.optim.Adam(flow.parameters(), 2e-2)
    first = float(flow.loss(x).detach())
    for _ in range(30):
        optimizer.zero_grad()
        flow.loss(x).backward()
        optimizer.step()
    assert float(flow.loss(x).detach()) < first - 0.3
    assert flow.sample(5).shape == (5, 2)
