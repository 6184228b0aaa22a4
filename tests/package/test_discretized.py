"""Logistic distributions, mixed and discretized: probabilities, extremes, gradients, samples."""

import pytest
import torch

from dgm_course.distributions import DiscretizedLogistic, DiscretizedLogisticMixture, LogisticMixture

EXTREMES = (-60.0, -20.0, -7.0, -2.0, 0.0, 5.0, 20.0, 70.0)  # log-scales


def mixture(levels, dtype=torch.float64, n=5, k=3, spread=1.0):
    parameters = torch.randn(3, n, 1, k, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * spread
    logits, mean, log_scale = parameters.to(dtype)
    return DiscretizedLogisticMixture(logits, mean, log_scale - 2, levels)


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_the_alphabet_sum_to_one(levels, dtype):
    x = torch.arange(levels)
    total = mixture(levels, dtype, spread=2).log_prob(x).logsumexp(-1)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-6 if dtype == torch.float32 else 1e-13, rtol=0)


def test_a_bin_has_what_the_continuous_distribution_has_in_it():
    d, levels = mixture(5), 5
    edges = (torch.arange(1, levels, dtype=torch.float64) - 0.5) / (levels - 1) * 2 - 1
    edges = torch.cat([torch.tensor([-1e3]), edges, torch.tensor([1e3])])
    grid = torch.linspace(0, 1, 40_001, dtype=torch.float64)
    continuous = LogisticMixture(d.logits, d.mean, d.log_scale)
    for i in range(1, levels - 1):  # the bins that end
        x = edges[i] + (edges[i + 1] - edges[i]) * grid
        torch.testing.assert_close(
            torch.trapezoid(continuous.log_prob(x).exp(), x)[:, None], d.log_prob(torch.tensor([i])).exp()
        )
    x = torch.cat([-torch.logspace(5, 0, 40_001, dtype=torch.float64), torch.linspace(-1, edges[1], 4001).double()])
    torch.testing.assert_close(
        torch.trapezoid(continuous.log_prob(x).exp(), x)[:, None],
        d.log_prob(torch.tensor([0])).exp(),
        rtol=1e-5,
        atol=1e-9,
    )


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_every_device(device):
    d = mixture(16, torch.float32)
    there = DiscretizedLogisticMixture(*(p.to(device) for p in (d.logits, d.mean, d.log_scale)), 16)
    x = torch.arange(16)
    torch.testing.assert_close(there.log_prob(x.to(device)).cpu(), d.log_prob(x), rtol=1e-5, atol=1e-5)
    samples = there.sample(torch.Generator(device).manual_seed(0))
    assert samples.shape == (5, 1) and samples.device.type == device


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_float32_agrees_with_float64_in_extremes_and_gradients_are_finite(levels):
    x = torch.tensor([0, 1, levels // 2, levels - 2, levels - 1])[:, None, None]
    mean, log_scale = torch.tensor([-3.0, -1.0, 0.0, 0.3, 1.0, 1e4])[:, None], torch.tensor(EXTREMES)
    results = {}
    for dtype in (torch.float32, torch.float64):
        leaves = [p.to(dtype).clone().requires_grad_() for p in torch.broadcast_tensors(mean, log_scale)]
        log_prob = DiscretizedLogistic(*leaves, levels).log_prob(x)
        log_prob.sum().backward()
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
        results[dtype] = log_prob.detach().double()
    assert torch.isfinite(results[torch.float64]).all() and (results[torch.float64] <= 0).all()
    # Steps and means are numbers near 1 (or near 1e4) rounded to 24 bits; divided by the scale, that is the error.
    rounding = (2 + mean.abs()) * (-torch.tensor(EXTREMES)).exp() * 2**-23
    error = (results[torch.float32] - results[torch.float64]).abs()
    assert (error <= rounding + 1e-6 * results[torch.float64].abs() + 1e-6).all()


def test_tails_are_exact_where_a_difference_of_sigmoids_is_zero():
    """Far from the mean the logistic decays as exp(-distance / scale)."""
    d = DiscretizedLogistic(torch.tensor(-1.0), torch.tensor(-5.0))  # mean at x = 0, scale 0.0067: 0.86 steps
    log_prob, scale = d.log_prob(torch.tensor([200, 201])), torch.tensor(-5.0).exp()
    assert (torch.sigmoid((2 * 201 / 255 + 1 / 255) / scale) - torch.sigmoid((2 * 201 / 255 - 1 / 255) / scale)) == 0
    assert log_prob[0] < -200
    torch.testing.assert_close(log_prob[0] - log_prob[1], 2 / 255 / scale, rtol=1e-3, atol=0)


def test_equals_a_difference_of_sigmoids_where_that_is_accurate():
    d, x = mixture(16, n=7), torch.arange(1, 15)
    u = 2 * x[:, None].double() / 15 - 1
    cdf = [torch.sigmoid((u + side / 15 - d.mean) / d.log_scale.exp()) for side in (1, -1)]
    plain = ((cdf[0] - cdf[1]) * d.logits.softmax(-1)).sum(-1).log()
    torch.testing.assert_close(d.log_prob(x), plain, rtol=1e-9, atol=1e-9)


def test_samples_come_as_often_as_their_probabilities_say():
    n, levels = 100_000, 6
    d = mixture(levels, torch.float32, n=1)
    many = DiscretizedLogisticMixture(*(p.expand(n, 1, 3) for p in (d.logits, d.mean, d.log_scale)), levels)
    x = many.sample(torch.Generator().manual_seed(0))
    assert x.shape == (n, 1) and x.dtype == torch.int64
    p = d.log_prob(torch.arange(levels)).exp()[0]
    assert ((x.flatten().bincount(minlength=levels) / n - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


def test_temperature_zero_takes_the_likeliest_component_at_its_mean():
    d = DiscretizedLogisticMixture(
        torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.2]), torch.tensor([0.0, 70.0]), levels=11
    )
    assert d.sample(temperature=0).item() == 6
    assert d.sample(torch.Generator().manual_seed(0)).item() in (0, 10), "a huge scale falls on the edges"


def test_density_of_the_mixture_integrates_to_one_and_has_a_gradient_in_x():
    d = LogisticMixture(torch.randn(3), torch.randn(3), torch.randn(3))
    x = torch.linspace(-200, 200, 400_001, requires_grad=True)
    log_prob = d.log_prob(x)
    assert torch.trapezoid(log_prob.exp(), x).item() == pytest.approx(1, abs=1e-4)
    (grad,) = torch.autograd.grad(log_prob.sum(), x)
    assert torch.isfinite(grad).all() and grad[0] > 0 > grad[-1]
    samples = LogisticMixture(*(p.expand(100_000, 3) for p in (d.logits, d.mean, d.log_scale))).sample()
    assert samples.mean().item() == pytest.approx((d.logits.softmax(-1) * d.mean).sum().item(), abs=0.1)


def test_bad_input_is_refused():
    d = DiscretizedLogistic(torch.zeros(2), torch.zeros(2), 8)
    with pytest.raises(ValueError, match=r"0 ... 7, got values from 3 to 8"):
        d.log_prob(torch.tensor([3, 8]))
    with pytest.raises(TypeError, match=r"integers in 0 ... 7, got dtype torch.float32"):
        d.log_prob(torch.zeros(2))
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        DiscretizedLogistic(torch.zeros(2), torch.zeros(2), 1)
    with pytest.raises(ValueError, match="temperature must be at least 0, got -1"):
        d.sample(temperature=-1)
