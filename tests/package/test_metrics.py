"""Likelihoods keep their units: right numbers, and no way to mix conventions unseen."""

import math

import pytest
import torch
from torch import nn

from dgm_course import metrics
from dgm_course.distributions import StandardNormal


class Uniform(nn.Module):
    """Uniform density on [0, high)^dims, whose likelihoods are known without a computer."""

    def __init__(self, high=1.0):
        super().__init__()
        self.high, self.seen = high, []

    def log_prob(self, x, context=None):
        assert x.is_floating_point() and float(x.min()) >= 0 and float(x.max()) < self.high
        self.seen.append(len(x))
        return -x.flatten(1).shape[1] * torch.log(torch.full((len(x),), float(self.high)))


def pixels(n=50, levels=256):
    return torch.randint(levels, (n, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_uniform_pixels_have_eight_bits_each_in_every_convention():
    """The same model on pixels in [0, 1) and in [0, 256): other nats, the same 8 bits/dim."""
    small = metrics.evaluate(Uniform(1.0), pixels(), metrics.dequantized(256))
    large = metrics.evaluate(Uniform(256.0), pixels(), metrics.dequantized(256, scale=1))
    assert small.nats == 0 and large.nats == pytest.approx(-16 * math.log(256), rel=1e-6)
    assert small.bits_per_dim == pytest.approx(8) and large.bits_per_dim == pytest.approx(8)
    assert large.nats_per_dim == pytest.approx(-math.log(256))
    assert small.log_volume == pytest.approx(-16 * math.log(256)) and large.log_volume == 0


def test_bits_of_a_flow_on_digits():
    """8x8 digits with 17 levels: 115.5 nats of NLL on the scale of the pixels are 115.5 / 64 / log 2 bits/dim."""
    plain = metrics.LogLikelihood(-115.5, 1.0, 397, 64, "exact", metrics.dequantized(17, scale=1))
    assert plain.bits_per_dim == pytest.approx(115.5 / 64 / math.log(2))
    scaled = metrics.LogLikelihood(-115.5 + 64 * math.log(17), 1.0, 397, 64, "exact", metrics.dequantized(17))
    assert scaled.bits_per_dim == pytest.approx(plain.bits_per_dim)
    with pytest.raises(ValueError, match="different conventions"):
        _ = scaled - plain


def test_gaussian_likelihood_and_its_standard_error():
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    result = metrics.evaluate(StandardNormal((3,)), x)
    entropy = 1.5 * math.log(2 * math.pi * math.e)
    assert abs(result.nats + entropy) < 4 * result.standard_error
    assert result.standard_error == pytest.approx(math.sqrt(1.5 / 4000), rel=0.1)  # half a chi-square with 3 degrees
    assert (result.n, result.dims, result.kind) == (4000, 3, "exact")


def test_batches_do_not_matter_and_the_seed_fixes_the_noise():
    class Square(nn.Module):
        def log_prob(self, x):
            return -(x**2).flatten(1).sum(1)

    results = [
        metrics.evaluate(Square(), pixels(), metrics.dequantized(), batch_size=b, seed=s)
        for b, s in ((7, 0), (7, 0), (50, 0), (7, 1))
    ]
    assert results[0] == results[1]
    assert results[0].nats == pytest.approx(results[2].nats, rel=1e-2)
    assert results[0].nats != results[3].nats
    model = Uniform()
    metrics.evaluate(model, pixels(), metrics.dequantized(), batch_size=20)
    assert model.seen == [20, 20, 10]


def test_noise_stays_inside_its_pixel():
    """255 + u rounds to 256 in float32 for u near 1; that would leave the model's interval."""
    data = torch.full((100_000, 40), 255, dtype=torch.uint8)
    x = metrics.dequantized(256).prepare(data, torch.Generator().manual_seed(0))
    assert x.dtype == torch.float32 and float(x.max()) < 1 and float(x.min()) >= 255 / 256
    assert float((x * 256 - 255).mean()) == pytest.approx(0.5, abs=0.001)
    global_state = torch.get_rng_state()
    metrics.dequantized(256).prepare(data[:10], torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), global_state)


def test_kind_follows_the_method():
    class Bound(nn.Module):
        def elbo(self, x, context):
            return -context[:, 0]

    result = metrics.evaluate(Bound(), torch.zeros(4, 2), context=torch.arange(4.0)[:, None], batch_size=3)
    assert result.kind == "lower bound" and result.nats == -1.5
    own = metrics.evaluate(Bound(), torch.zeros(4, 2), score=lambda x: x[:, 0] + 3, kind="estimate")
    assert own.kind == "estimate" and own.nats == 3
    with pytest.raises(TypeError, match="say what the score is"):
        metrics.evaluate(Bound(), torch.zeros(4, 2), score=lambda x: x[:, 0])
    with pytest.raises(ValueError, match="exact, lower bound, estimate, got 'about'"):
        metrics.evaluate(Bound(), torch.zeros(4, 2), score=lambda x: x[:, 0], kind="about")
    with pytest.raises(TypeError, match="Identity has neither log_prob nor elbo"):
        metrics.evaluate(nn.Identity(), torch.zeros(4, 2))


def test_training_mode_and_gradients_are_left_alone():
    class Mode(nn.Module):
        def log_prob(self, x):
            assert not self.training and not torch.is_grad_enabled()
            return x[:, 0]

    for training in (True, False):
        model = Mode().train(training)
        metrics.evaluate(model, torch.ones(3, 1))
        assert model.training == training and torch.is_grad_enabled()


def test_conventions_do_not_mix():
    first = metrics.LogLikelihood(-90.0, 0.5, 100, 784, "exact", metrics.discrete("binarized at 0.5"))
    second = metrics.LogLikelihood(-85.0, 0.5, 100, 784, "lower bound", metrics.discrete("binarized anew each time"))
    for operation in (lambda a, b: a - b, lambda a, b: a < b, lambda a, b: a > b):
        with pytest.raises(ValueError, match=r"different conventions: 'binarized .*, and 'binarized "):
            operation(first, second)
    with pytest.raises(ValueError, match=r"784 dimensions.*64"):
        _ = first - metrics.LogLikelihood(-9.0, 0.5, 100, 64, "exact", first.convention)
    with pytest.raises(TypeError, match="got float"):
        _ = first - 80.0
    better = metrics.LogLikelihood(-88.0, 0.5, 100, 784, "exact", metrics.discrete("binarized at 0.5"))
    assert better - first == 2 and better > first and max(first, better) is better


def test_no_bits_for_continuous_data():
    result = metrics.LogLikelihood(-2.4, 0.01, 1000, 2)
    with pytest.raises(ValueError, match="discrete data; the convention here is 'continuous data as given'"):
        _ = result.bits_per_dim
    assert "bits" not in str(result)


def test_printing_shows_value_unit_bound_and_convention():
    text = str(metrics.LogLikelihood(-115.5, 0.31, 397, 64, "exact", metrics.dequantized(17, scale=1)))
    assert text == (
        "-115.500 ± 0.310 nats (-1.805 nats/dim, <= 2.604 bits/dim), exact, 397 examples of 64 dimensions; "
        "integers 0 to 16 + uniform noise"
    )
    exact = metrics.LogLikelihood(-80.0, 0.3, 10, 784, "exact", metrics.discrete("binarized at 0.5"))
    assert "(-0.102 nats/dim, 0.147 bits/dim)" in str(exact), "no bound: probabilities of a discrete model"
    assert "divided by 256" in str(metrics.dequantized())


@pytest.mark.parametrize(
    ("data", "convention", "score", "error", "message"),
    [
        (torch.zeros(0, 2), None, None, ValueError, "no data"),
        (torch.rand(3, 2), metrics.dequantized(), None, TypeError, "needs integers, got torch.float32"),
        (torch.zeros(3, 2), None, lambda x: x, ValueError, r"must have shape \(3,\), got \(3, 2\)"),
        (torch.zeros(3, 2), None, lambda x: x[:, 0] / 0, ValueError, "3 of 3 log-likelihoods are NaN or infinite"),
    ],
)
def test_clear_errors(data, convention, score, error, message):
    with pytest.raises(error, match=message):
        metrics.evaluate(Uniform(), data, convention, score=score, kind="exact" if score else None)
