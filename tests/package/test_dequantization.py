"""Uniform and variational dequantization against models whose exact probabilities can be integrated."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dgm_course import data, flows, metrics, training
from dgm_course.dequantization import Dequantized, UniformNoise, VariationalNoise
from dgm_course.distributions import StandardNormal
from dgm_course.flows import Flow
from dgm_course.nn import MLP
from dgm_course.transforms import Affine, Compose, Coupling, Logit


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def nodes(n):
    """Gauss-Legendre nodes and weights on [0, 1]."""
    at, weight = np.polynomial.legendre.leggauss(n)
    return torch.tensor(at + 1) / 2, torch.tensor(weight) / 2


def disturb(module, scale, seed=0):
    """The same module with random parameters, where new networks start as the identity."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, dtype=p.dtype, generator=generator(seed)))
    return module


def model_2d(noise=None):
    torch.manual_seed(3)
    couplings = [Coupling(2, MLP(1, 2, (8,), activation=nn.Tanh), Affine(1.0), swap=i % 2 == 1) for i in range(2)]
    flow = Flow(StandardNormal((2,)), Compose(Logit(0.05), *couplings))
    return Dequantized(disturb(flow, 0.8).double(), (2,), levels=4, noise=noise).double()


def all_pairs(levels=4):
    return torch.cartesian_prod(torch.arange(levels), torch.arange(levels))


def exact_log_prob(model, x, n=40):
    """log of the integral of p(x + u) over the unit square, by tensor-product quadrature."""
    at, weight = nodes(n)
    u, w = torch.cartesian_prod(at, at), torch.cartesian_prod(weight, weight).prod(1)
    y = (x[:, None] + u) / model.scale
    log_p = model.flow.log_prob(y.flatten(0, 1)).view(len(x), -1) - 2 * math.log(model.scale)
    return (log_p + w.log()).logsumexp(1), (log_p * w).sum(1)


def mean_and_error(values):
    return values.mean(), float(values.std() / math.sqrt(len(values)))


@torch.no_grad()
def test_uniform_at_most_variational_at_most_exact_for_one_fixed_model():
    x, model = all_pairs(), model_2d(VariationalNoise((2,), hidden=16).double())
    exact, uniform = exact_log_prob(model, x)
    finer = exact_log_prob(model, x, 60)
    assert torch.allclose(exact, finer[0], atol=1e-10) and torch.allclose(uniform, finer[1], atol=1e-8)
    weights = model.log_weights(x, 5000, generator())
    # q starts as the uniform noise: the same expectation, and log q = 0 for every draw
    mean, error = mean_and_error(weights.mean(1))
    assert abs(mean - uniform.mean()) < 4 * error
    with torch.enable_grad():
        optimizer = torch.optim.Adam(model.noise.parameters(), lr=1e-2)
        for step in range(200):
            loss = -model.log_weights(x, 16, generator(step)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    mean, error = mean_and_error(model.log_weights(x, 5000, generator(1)).mean(1))
    gap = exact.mean() - uniform.mean()
    assert uniform.mean() + 0.5 * gap < mean - 4 * error  # more than half of the gap is closed ...
    assert mean + 4 * error < exact.mean()  # ... and the bound stays one


@torch.no_grad()
def test_importance_weights_approach_the_exact_value_from_below():
    x, model = all_pairs(), model_2d()
    exact, uniform = exact_log_prob(model, x)
    bounds = [torch.stack([model.iwae(x, k, generator(i)) for i in range(200)]).mean(1) for k in (1, 4, 16)]
    means, errors = zip(*map(mean_and_error, bounds), strict=True)
    assert abs(means[0] - uniform.mean()) < 4 * errors[0]
    assert means[0] + 4 * errors[0] < means[1] and means[1] < means[2] and means[2] < exact.mean() + 4 * errors[2]
    estimate = model.log_prob_estimate(x, 4000, generator(), chunk=1500)
    assert abs(estimate.mean() - exact.mean()) < 0.03 and torch.allclose(estimate, exact, atol=0.3)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 4, 4)])
def test_variational_noise_is_a_density_on_the_cube(shape):
    noise = VariationalNoise(shape, hidden=8).double()
    x = 2 * torch.rand((5, *shape), dtype=torch.float64, generator=generator()) - 1
    u, log_q = noise.sample(x, 3, generator())
    assert u.shape == (3, *x.shape) and torch.allclose(log_q, torch.zeros(3, 5).double(), atol=1e-12)  # uniform
    assert torch.equal(noise.sample(x, 3, generator())[0], u)
    disturb(noise, 0.2 if len(shape) == 1 else 0.05)
    u, log_q = noise.sample(x, 3, generator())
    assert bool(((u > 0) & (u < 1)).all()) and float(log_q.abs().min()) > 1e-3
    again = torch.stack([noise.log_prob(one, x) for one in u])
    assert torch.allclose(again, log_q, atol=1e-8)
    other = noise.sample(-x, 3, generator())[0]
    assert float((other - u).abs().max()) > 1e-3  # q depends on x


@torch.no_grad()
def test_variational_noise_integrates_to_one_and_matches_a_dense_jacobian():
    noise = disturb(VariationalNoise((2,), hidden=8).double(), 0.3)
    x = torch.tensor([[0.3, -0.9]]).double()
    # in v = logit(u) the density decays exponentially: quadrature there, on a wide grid
    line = torch.linspace(-25, 25, 401).double()
    v = torch.cartesian_prod(line, line)
    log_slope = -(nn.functional.softplus(v) + nn.functional.softplus(-v)).sum(1)
    z, log_det = noise.flow(v, x.expand(len(v), 2))
    total = (noise.base.log_prob(z) + log_det).exp().sum() * float(line[1] - line[0]) ** 2
    inner = v.abs().amax(1) < 5
    u = torch.sigmoid(v[inner])
    by_u = noise.log_prob(u, x.expand(len(u), 2)) + log_slope[inner]
    assert abs(total - 1) < 1e-3 and torch.allclose(by_u, (noise.base.log_prob(z) + log_det)[inner], atol=1e-8)
    for v_one, slope, det in zip(v[inner][::3000], log_slope[inner][::3000], log_det[inner][::3000], strict=True):
        jacobian = torch.func.jacrev(lambda w: noise.flow(w[None], x)[0][0])(v_one)
        assert torch.allclose(torch.linalg.slogdet(jacobian)[1], det) and float(slope) < 0


@torch.no_grad()
def test_uniform_noise_agrees_with_the_convention_of_the_metrics():
    """The same flow, once with noise by `metrics.dequantized`, once inside the model: the same bits/dim."""
    x = data.load("digits8", "test")
    flow = Flow(StandardNormal((1, 8, 8)), Logit(0.05))
    model = Dequantized(flow, (1, 8, 8), levels=17)
    inside = metrics.evaluate(model, x, metrics.discrete("integers 0 to 16"))
    outside = metrics.evaluate(flow, x, metrics.dequantized(17))
    assert inside.kind == "lower bound"
    tolerance = 4 * (inside.standard_error + outside.standard_error) / (64 * math.log(2))
    assert abs(inside.bits_per_dim - outside.bits_per_dim) < min(tolerance, 0.05)


@torch.no_grad()
def test_context_reaches_the_flow_row_by_row():
    flow = disturb(flows.realnvp(2, 2, (8,), context_dim=3), 0.3)
    model = Dequantized(Flow(StandardNormal((2,)), Compose(Logit(), flow.transform)), (2,), levels=4)
    x, context = all_pairs()[:5], torch.randn(5, 3, generator=generator())
    together = model.log_weights(x, 2, generator(), context=context)
    u = torch.rand(2, 5, 2, generator=generator())
    for i in range(5):
        alone = model.flow.log_prob((x[i] + u[:, i]) / 4, context[i : i + 1].expand(2, 3)) - 2 * math.log(4)
        assert torch.allclose(together[:, i], alone, atol=1e-5)
    for value in (model.elbo(x, generator(), context=context), model.log_prob_estimate(x, 3, context=context)):
        assert torch.isfinite(value).all()
    model.train()
    assert math.isfinite(model.loss(x, context=context)) and model.sample(5, context).shape == (5, 2)


@torch.no_grad()
@pytest.mark.parametrize("noise", [UniformNoise, lambda: disturb(VariationalNoise((1,), hidden=4), 3.0)])
def test_every_draw_stays_in_its_own_bin_in_float32(noise):
    seen = []
    flow = Flow(StandardNormal((1,)), Logit(0.05))
    flow.log_prob = lambda y, context: seen.append(y) or y.new_zeros(len(y))
    x = torch.tensor([[0], [255]], dtype=torch.uint8)
    model = Dequantized(flow, (1,), noise=noise())
    assert torch.isfinite(model.log_weights(x, 5000, generator())).all()
    bins = (seen[0] * 256).floor().view(5000, 2).long()
    assert bool((bins == torch.tensor([0, 255])).all())


def test_training_on_digits_samples_and_bits_per_dim():
    x = data.load("digits8")
    torch.manual_seed(0)
    flow = Flow(StandardNormal((64,)), Compose(Logit(0.05), flows.realnvp(64, 4, (64,)).transform))
    model = Dequantized(flow, (64,), 17, VariationalNoise((64,), layers=2, hidden=32))
    before = metrics.evaluate(model, x[:200].flatten(1), metrics.discrete()).bits_per_dim
    training.fit(model, x.flatten(1), steps=60, batch_size=128, lr=2e-3, progress=False, device="cpu")
    after = metrics.evaluate(model, x[:200].flatten(1), metrics.discrete()).bits_per_dim
    assert after < before - 0.1
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.noise.parameters())
    samples = model.sample(7, generator=generator())
    assert samples.shape == (7, 64) and samples.dtype == torch.int64 and int(samples.min()) >= 0
    assert int(samples.max()) <= 16 and torch.equal(samples, model.sample(7, generator=generator()))


def test_bad_input():
    model = model_2d()
    with pytest.raises(ValueError, match=r"batch, 2.*got \(3, 4\)"):
        model.elbo(torch.zeros(3, 4).long())
    with pytest.raises(ValueError, match=r"0 \.\.\. 3, got values from 0 to 4"):
        model.elbo(torch.tensor([[0, 4]]))
    with pytest.raises(TypeError, match="integers"):
        model.elbo(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(TypeError, match="integers"):
        model.elbo(torch.tensor([[0.5, 1.0]]))
    with pytest.raises(ValueError, match="empty"):
        model.loss(torch.zeros(0, 2).long())
    with pytest.raises(ValueError, match="k must be at least 1"):
        model.iwae(torch.zeros(1, 2).long(), 0)
    with pytest.raises(ValueError, match="at least 1"):
        model.log_prob_estimate(torch.zeros(1, 2).long(), 5, chunk=0)
    for noise in (UniformNoise(), VariationalNoise((2,))):
        with pytest.raises(ValueError, match=r"u must lie inside \(0, 1\), got values from 0.5 to 1"):
            noise.log_prob(torch.tensor([[0.5, 1.0]]), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="context of shape"):
        Dequantized(flows.realnvp(2, context_dim=3), (2,), levels=4).elbo(torch.zeros(1, 2).long())
    with pytest.raises(ValueError, match="shape must be"):
        VariationalNoise((4, 4))
