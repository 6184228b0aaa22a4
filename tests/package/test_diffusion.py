"""Diffusion models against Bayes on a grid, Gaussian data in closed form, and exact scores of mixtures."""

import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from dgm_course import data, metrics
from dgm_course.diffusion import (
    DDPM,
    FlowMatching,
    ScoreModel,
    TimeMLP,
    TimeUNet,
    cosine_schedule,
    denoising_score_matching,
    gaussian_mixture_score,
    interval_log_prob,
    linear_schedule,
)
from dgm_course.training import fit
from dgm_course.two_sample import mmd_test

BETAS = torch.tensor([0.1, 0.3, 0.2, 0.6], dtype=torch.float64)
MEAN, STD = 0.4, 0.7  # of the Gaussian data


@pytest.fixture(autouse=True)
def weights():
    torch.manual_seed(0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randomized(net, scale=0.3):
    """The last layer starts at zero; give it values, so that the network says something."""
    for p in net.parameters():
        if not p.any():
            p.data.normal_(0, scale, generator=seeded(7))
    return net


class GaussianDenoiser(nn.Module):
    """The best prediction of the noise for data N(MEAN, STD^2), for DDPM with the given betas."""

    def __init__(self, betas, error=0.0):
        super().__init__()
        self.alpha_bar = torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)])
        self.error = error

    def forward(self, x, t, context=None):
        alpha_bar = self.alpha_bar[(t * (len(self.alpha_bar) - 1)).round().long()].to(x)[:, None]
        total = alpha_bar * STD**2 + 1 - alpha_bar
        return (1 - alpha_bar).sqrt() * (x - alpha_bar.sqrt() * MEAN) / total + self.error * x


class Fixed(nn.Module):
    """A function of x and t as a network."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x, t, context=None):
        return self.f(x, t, context)


def ddpm(net, betas=BETAS, shape=(1,), **options):
    return DDPM(net, shape, betas, **options).to(torch.float64)


# Schedules ------------------------------------------------------------------------------------------------------------


def test_schedules_are_those_of_the_papers():
    linear = linear_schedule(1000)
    assert linear[0].item() == 1e-4 and linear[-1].item() == 0.02 and len(linear) == 1000
    assert (1 - linear).prod().item() == pytest.approx(4.04e-5, rel=0.01), "known value of alpha-bar at T"
    short = (1 - linear_schedule(100)).log().sum()
    assert short.item() == pytest.approx((1 - linear).log().sum().item(), rel=0.15), "about the same noise in 100 steps"
    cosine = (1 - cosine_schedule(1000)).cumprod(0)
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 1, 500, 900)]
    assert cosine[[0, 499, 899]].tolist() == pytest.approx([v / f[0] for v in f[1:]], rel=1e-9)
    assert cosine_schedule(1000).max() == 0.999


# The way to noise, by brute force on a grid ---------------------------------------------------------------------------

GRID = torch.linspace(-9, 9, 901, dtype=torch.float64)
CELL = (GRID[1] - GRID[0]).item()


def kernel(t):
    """q(x_t | x_{t-1}) as a matrix: row x_{t-1}, column x_t."""
    beta = BETAS[t - 1]
    return Normal((1 - beta).sqrt() * GRID[:, None], beta.sqrt()).log_prob(GRID).exp()


def chain(first, last):
    """q(x_last | x_first) on the grid, by integrating step after step."""
    matrix = kernel(first + 1)
    for t in range(first + 2, last + 1):
        matrix = CELL * matrix @ kernel(t)
    return matrix


def moments(density):
    mean = CELL * (density * GRID).sum()
    return mean.item(), (CELL * (density * (GRID - mean) ** 2).sum()).item()


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_noisy_data_have_the_density_that_the_steps_give(t):
    model, i = ddpm(None), 480
    signal, std = model.signal_and_noise(torch.tensor([t]))
    density = chain(0, t)[i]
    torch.testing.assert_close(Normal(signal[0] * GRID[i], std[0]).log_prob(GRID).exp(), density, atol=1e-6, rtol=1e-6)
    noise = torch.randn(3, 1, dtype=torch.float64)
    x0, times = GRID[i].expand(3, 1), torch.full((3,), t)
    torch.testing.assert_close(model.diffuse(x0, times, noise), signal * x0 + std * noise)


@pytest.mark.parametrize("s, t", [(1, 2), (2, 3), (3, 4), (1, 3), (1, 4)])
def test_posterior_is_bayes_rule(s, t):
    model, i, j = ddpm(None), 480, 372
    density = chain(0, s)[i] * chain(s, t)[:, j]
    mean, variance = model.posterior(GRID[i].view(1, 1), GRID[j].view(1, 1), torch.tensor([t]), torch.tensor([s]))
    assert (mean.item(), variance.item()) == pytest.approx(moments(density / (CELL * density.sum())), rel=1e-6)


def test_posterior_of_the_data_themselves_has_no_variance():
    mean, variance = ddpm(None).posterior(torch.ones(1, 1).double(), torch.zeros(1, 1).double(), torch.tensor([1]))
    assert mean.item() == pytest.approx(1) and variance.item() == 0


def test_coefficients_keep_their_digits_in_float32():
    single, double = (DDPM(None, (1,), cosine_schedule(1000)).to(d) for d in (torch.float32, torch.float64))
    double.log_alpha_bar = torch.cat([torch.zeros(1).double(), torch.log1p(-cosine_schedule(1000)).cumsum(0)])
    t = torch.arange(2, 1001)
    one, zero = torch.ones(999, 1), torch.zeros(999, 1)
    for a, b in ((one, zero), (zero, one)):
        wanted = double.posterior(a.double(), b.double(), t)
        for got, want in zip(single.posterior(a, b, t), wanted, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=2e-4, atol=1e-9)


# Predictions and losses -----------------------------------------------------------------------------------------------


def same_model_three_ways(variance="posterior"):
    """One and the same denoiser as predictor of the noise, the data, and v."""
    plain = ddpm(None)

    def epsilon(x, t):
        return torch.tanh(x + t[:, None])

    def parts(x, t):
        signal, std = plain.signal_and_noise((t * 4).round().long())
        return (x - std * epsilon(x, t)) / signal, signal, std

    def x0(x, t, context):
        return parts(x, t)[0]

    def v(x, t, context):
        data_part, signal, std = parts(x, t)
        return signal * epsilon(x, t) - std * data_part

    nets = {"epsilon": lambda x, t, context: epsilon(x, t), "x0": x0, "v": v}
    return [ddpm(Fixed(f), predict=name, variance=variance) for name, f in nets.items()]


def test_three_predictions_of_one_denoiser_are_one_model():
    x = torch.randn(6, 1, dtype=torch.float64)
    models = same_model_three_ways()
    for t in (1, 3, 4):
        denoised = [m.denoise(x, torch.full((6,), t)) for m in models]
        for other in denoised[1:]:
            torch.testing.assert_close(other, denoised[0])
    bounds = [m.elbo(x, generator=seeded()) for m in models]
    samples = [m.sample(5, generator=seeded()) for m in models]
    for i in (1, 2):
        torch.testing.assert_close(bounds[i], bounds[0])
        torch.testing.assert_close(samples[i], samples[0])


def test_simple_loss_measures_what_is_predicted():
    x, noise = torch.randn(2, 6, 1, dtype=torch.float64)
    t = torch.tensor([1, 2, 3, 4, 1, 2])
    alpha_bar = (1 - BETAS).cumprod(0)[t - 1, None]
    x_t = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
    target = {"epsilon": noise, "x0": x, "v": alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x}
    for name, wanted in target.items():
        got = ddpm(Fixed(lambda x, t, c: 0.3 * x + t[:, None]), predict=name).loss(x, t=t, noise=noise)
        torch.testing.assert_close(got, ((0.3 * x_t + t[:, None] / 4 - wanted) ** 2).mean())


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_terms_of_the_bound_are_weighted_squared_errors_of_the_noise(variance):
    """Equation 12 of Ho et al.: beta^2 / (2 sigma^2 alpha (1 - alpha-bar)) |noise - prediction|^2, plus a constant."""
    model = same_model_three_ways(variance)[0]
    x, noise = torch.randn(2, 50, 1, dtype=torch.float64)
    alpha_bar = torch.cat([torch.ones(1), (1 - BETAS).cumprod(0)])
    for t in (2, 3, 4):
        times = torch.full((50,), t)
        term = model.term(x, times, noise)
        x_t, beta = model.diffuse(x, times, noise), BETAS[t - 1]
        least = beta * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        sigma2 = least if variance == "posterior" else beta
        error = ((noise - model.network(x_t, times / 4)) ** 2).sum(1)
        constant = 0.5 * (least / sigma2 - 1 - (least / sigma2).log())
        weight = beta**2 / (2 * sigma2 * (1 - beta) * (1 - alpha_bar[t]))
        torch.testing.assert_close(term, constant + weight * error)


def test_reverse_mean_is_that_of_ho():
    """mu = (x_t - beta / sqrt(1 - alpha-bar) epsilon) / sqrt(alpha), equation 11; sigma^2 either extreme."""
    x, t = torch.randn(4, 1, dtype=torch.float64), torch.full((4,), 3)
    alpha_bar = (1 - BETAS).cumprod(0)
    for variance, wanted in (("beta", BETAS[2]), ("posterior", BETAS[2] * (1 - alpha_bar[1]) / (1 - alpha_bar[2]))):
        model = same_model_three_ways(variance)[0]
        mean, sigma2 = model.reverse(x, t)
        epsilon = model.network(x, t / 4)
        torch.testing.assert_close(mean, (x - BETAS[2] / (1 - alpha_bar[2]).sqrt() * epsilon) / (1 - BETAS[2]).sqrt())
        torch.testing.assert_close(sigma2, wanted.expand_as(sigma2))


# The bound ------------------------------------------------------------------------------------------------------------


def gaussian_chain(model, betas, x0):
    """log p(x_0) and the expected bound log p(x_0) - KL(q || p(x_1..T | x_0)) of a model whose denoiser is linear.

    All of x_0 ... x_T is Gaussian then, under p as under q: no diffusion formula but q(x_t | x_{t-1}) is used.
    """
    steps = len(betas)
    # p as a joint Gaussian of (x_T, ..., x_0), from its conditionals N(a x + b, v).
    mean, cov = torch.zeros(1).double(), torch.eye(1).double()
    for t in range(steps, 0, -1):
        (b, end), v = (m.flatten() for m in model.reverse(torch.tensor([[0.0], [1.0]]).double(), torch.full((2,), t)))
        row = (end - b) * cov[-1:]
        corner = (end - b) * row[:, -1:] + v[0]
        cov = torch.cat([torch.cat([cov, row.T], 1), torch.cat([row, corner], 1)])
        mean = torch.cat([mean, (end - b) * mean[-1:] + b])
    log_p = Normal(mean[-1], cov[-1, -1].sqrt()).log_prob(torch.tensor(x0))
    gain = cov[:-1, -1] / cov[-1, -1]
    p = MultivariateNormal(mean[:-1] + gain * (x0 - mean[-1]), cov[:-1, :-1] - torch.outer(gain, cov[:-1, -1]))
    q_mean, q_cov = torch.tensor([x0]).double(), torch.zeros(1, 1).double()
    for beta in betas:
        row = (1 - beta).sqrt() * q_cov[-1:]
        corner = (1 - beta).sqrt() * row[:, -1:] + beta
        q_cov = torch.cat([torch.cat([q_cov, row.T], 1), torch.cat([row, corner], 1)])
        q_mean = torch.cat([q_mean, (1 - beta).sqrt() * q_mean[-1:]])
    q = MultivariateNormal(q_mean[1:].flip(0), q_cov[1:, 1:].flip(0, 1))
    return log_p.item(), (log_p - torch.distributions.kl_divergence(q, p)).item()


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_bound_is_the_exact_one_of_a_gaussian_chain(variance):
    model = ddpm(GaussianDenoiser(BETAS, error=0.1), variance=variance)
    log_p, exact = gaussian_chain(model, BETAS, 0.9)
    bounds = model.elbo(torch.full((50_000, 1), 0.9).double(), generator=seeded())
    assert exact < log_p - 0.01
    assert abs(bounds.mean() - exact) < 4 * bounds.std() / math.sqrt(len(bounds))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_bound_stays_below_the_likelihood_and_the_gap_shrinks_with_more_steps(variance):
    """Mean over data N(MEAN, STD^2) with the best denoiser; the bound is quadratic in x, so three points are exact."""
    points, weights = [MEAN + c * STD for c in (-(3**0.5), 0, 3**0.5)], torch.tensor([1 / 6, 2 / 3, 1 / 6]).double()
    likelihood, gaps = -0.5 * math.log(2 * math.pi * math.e * STD**2), []
    for steps in (10, 40, 160):
        betas = linear_schedule(steps)
        model = ddpm(GaussianDenoiser(betas), betas, variance=variance)
        log_p, bound = (torch.tensor([gaussian_chain(model, betas, x) for x in points]).double().T @ weights).tolist()
        assert bound < log_p < likelihood
        gaps.append(likelihood - bound)
    assert gaps[1] < 0.5 * gaps[0] and gaps[2] < 0.5 * gaps[1]
    x = MEAN + STD * torch.randn(10_000, 1, generator=seeded(1), dtype=torch.float64)
    gap = Normal(MEAN, STD).log_prob(x)[:, 0] - model.elbo(x, generator=seeded(102))
    assert abs(gap.mean() - gaps[2]) < 4 * gap.std() / 100


def test_probabilities_of_pixels_are_bounded_by_one_in_all():
    """All images of two pixels with three levels: exp of the expected bound adds up to at most 1, and not to little."""
    betas = linear_schedule(100)
    alpha_bar, values = (1 - betas).cumprod(0), torch.tensor([-1.0, 0.0, 1.0]).double()

    def best(x, t, context):
        """Mean of the data given x for independent pixels, each value as likely as the others."""
        a = alpha_bar[(t * 100).round().long() - 1].view(-1, 1, 1)
        share = torch.softmax(-0.5 * (x[..., None] - a.sqrt() * values) ** 2 / (1 - a), dim=2)
        return share @ values

    model = ddpm(Fixed(best), betas, (2,), predict="x0", levels=3)
    images = torch.tensor(list(product(range(3), repeat=2)))
    bounds = model.elbo(images.repeat(200, 1), generator=seeded()).unflatten(0, (200, 9)).mean(0)
    assert 0.2 < bounds.exp().sum() <= 1


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_rounded_gaussian_adds_up_to_one_and_keeps_its_digits(levels):
    values = torch.linspace(-1, 1, levels, dtype=torch.float64)
    for mean, std in ((0.0, 0.1), (0.97, 0.02), (-1.3, 0.5), (3.0, 0.01)):
        mean, std = torch.tensor(mean).double(), torch.tensor(std).double()
        log_prob = interval_log_prob(values, mean, std, levels)
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)
        single = interval_log_prob(values.float(), mean.float(), std.float(), levels)
        assert bool(single.isfinite().all())
        torch.testing.assert_close(single.double(), log_prob, rtol=1e-3, atol=1e-3)


def test_rounded_gaussian_has_finite_gradients_at_the_edges():
    x, mean = torch.tensor([-1.0, -1.0, 1.0, 1.0, 0.0]), torch.tensor([-5.0, 5.0, 5.0, -5.0, 3.0], requires_grad=True)
    interval_log_prob(x, mean, torch.full((5,), 0.01), 255).sum().backward()
    assert bool(mean.grad.isfinite().all()) and mean.grad[0] == 0 and mean.grad[1] < 0


def test_pixels_come_back_in_bits_per_dim_and_as_pixels():
    pixels = data.load("digits8", "valid")[:20]
    model = DDPM(TimeUNet((1, 8, 8), 8), (1, 8, 8), linear_schedule(8), levels=17)
    result = metrics.evaluate(model, pixels, metrics.discrete("17 levels"))
    assert result.kind == "lower bound" and result.dims == 64
    bits = -model.elbo(pixels, generator=seeded()).mean().item() / 64 / math.log(2)
    assert result.bits_per_dim == pytest.approx(bits, rel=0.05)
    sample = model.sample(3, generator=seeded())
    assert sample.shape == (3, 1, 8, 8) and sample.min() >= 0 and sample.max() <= 16
    assert torch.equal(sample, sample.round())
    assert model.loss(pixels).isfinite()


# Sampling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [None, 8])
def test_ddim_with_eta_one_is_ddpm_for_posterior_variance_only(steps):
    betas = linear_schedule(20)
    same, other = (DDPM(randomized(TimeMLP(2, (16,))), (2,), betas, variance=v) for v in ("posterior", "beta"))
    other.network.load_state_dict(same.network.state_dict())
    ddim = same.sample(50, steps, eta=1.0, generator=seeded())
    torch.testing.assert_close(ddim, same.sample(50, steps, generator=seeded()), rtol=1e-4, atol=1e-4)
    assert (ddim - other.sample(50, steps, generator=seeded())).abs().max() > 0.01


def test_ddim_step_is_equation_12():
    model = same_model_three_ways()[0]
    x, noise = torch.randn(2, 4, 1, dtype=torch.float64)
    alpha_bar = torch.cat([torch.ones(1), (1 - BETAS).cumprod(0)])
    a_t, a_s, eta = alpha_bar[4], alpha_bar[2], 0.6
    epsilon = model.network(x, torch.ones(4))
    sigma = eta * ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
    x0 = (x - (1 - a_t).sqrt() * epsilon) / a_t.sqrt()
    wanted = a_s.sqrt() * x0 + (1 - a_s - sigma**2).sqrt() * epsilon + sigma * noise
    got = model.ddim_step(x, torch.full((4,), 4), torch.full((4,), 2), eta, noise)
    torch.testing.assert_close(got, wanted)


def test_ddim_without_noise_follows_the_probability_flow_of_gaussian_data():
    """Its limit is linear: the standardized x stays what it was."""
    betas = linear_schedule(1000)
    model = ddpm(GaussianDenoiser(betas), betas)
    z = torch.randn(20, 1, generator=seeded(), dtype=torch.float64)
    alpha_bar = (1 - betas).prod()
    wanted = MEAN + STD * (z - alpha_bar.sqrt() * MEAN) / (alpha_bar * STD**2 + 1 - alpha_bar).sqrt()
    torch.testing.assert_close(model.sample(20, eta=0.0, generator=seeded()), wanted, atol=0.01, rtol=0)
    few = model.sample(20, 50, eta=0.0, generator=seeded())
    torch.testing.assert_close(few, wanted, atol=0.1, rtol=0)


@pytest.mark.parametrize("eta", [None, 0.0, 0.5])
def test_samples_have_the_moments_of_the_data(eta):
    betas = linear_schedule(200)
    sample = ddpm(GaussianDenoiser(betas), betas).sample(10_000, eta=eta, generator=seeded())
    assert sample.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert sample.std().item() == pytest.approx(STD, rel=0.04)


def test_clipping_keeps_the_guessed_data_in_range():
    model = ddpm(Fixed(lambda x, t, c: 3 * x), clip=True)
    x, t = torch.randn(9, 1, dtype=torch.float64), torch.full((9,), 4)
    x0, epsilon = model.denoise(x, t)
    signal, std = model.signal_and_noise(t)
    assert x0.abs().max() <= 1
    torch.testing.assert_close(signal * x0 + std * epsilon, x)


def test_context_reaches_the_network_everywhere():
    context = torch.tensor([[-1.0], [2.0], [5.0]])
    model = DDPM(Fixed(lambda x, t, context: context), (1,), linear_schedule(10), predict="x0")
    torch.testing.assert_close(model.sample(3, context=context, generator=seeded()), context)
    assert model.loss(context, context=context) == 0
    assert bool((model.elbo(context, context=context) > model.elbo(context, context=context + 1)).all())
    flow = FlowMatching(TimeMLP(1, (8,), context_dim=1), (1,))
    assert flow.log_prob(context, context=context, steps=2).shape == (3,)
    assert flow.sample(3, 2, context=context).shape == (3, 1) and flow.loss(context, context=context).isfinite()
    image = TimeUNet((1, 4, 4), 8, context_dim=1)
    assert image(torch.randn(3, 1, 4, 4), torch.rand(3), context).shape == (3, 1, 4, 4)


# Scores ---------------------------------------------------------------------------------------------------------------

MEANS = torch.tensor([[-2.0, 0.0], [1.0, 1.5], [1.5, -1.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def mixture_log_prob(x, means=MEANS, std=0.5, weights=WEIGHTS):
    parts = -0.5 * ((x[:, None] - means) ** 2).sum(2) / std**2 - math.log(2 * math.pi * std**2)
    return torch.logsumexp(parts + weights.log(), dim=1)


@pytest.mark.parametrize("weights", [WEIGHTS, None])
def test_score_of_a_mixture_against_autograd(weights):
    x = (4 * torch.randn(50, 2, dtype=torch.float64)).requires_grad_()
    used = torch.full((3,), 1 / 3).double() if weights is None else weights
    (wanted,) = torch.autograd.grad(mixture_log_prob(x, weights=used).sum(), x)
    torch.testing.assert_close(gaussian_mixture_score(x, MEANS, 0.5, weights), wanted)


def test_denoising_score_matching_is_score_matching_up_to_a_constant():
    """Vincent's theorem: two scores compare alike on noisy data whether judged by the noise or by the true score."""
    which = torch.multinomial(WEIGHTS, 200_000, replacement=True, generator=seeded())
    x = MEANS[which] + 0.5 * torch.randn(200_000, 2, dtype=torch.float64, generator=seeded(1))
    noise, sigma = torch.randn(200_000, 2, dtype=torch.float64, generator=seeded(2)), 0.8
    smooth = math.hypot(0.5, sigma)

    def exact(y):
        return gaussian_mixture_score(y, MEANS, smooth, WEIGHTS)

    def explicit(score):
        y = x + sigma * noise
        return 0.5 * sigma**2 * ((score(y) - exact(y)) ** 2).sum(1).mean().item()

    best = denoising_score_matching(exact, x, sigma, noise).item()
    for other in (lambda y: -y, lambda y: exact(y) + 0.5, lambda y: 0.8 * exact(y)):
        more = denoising_score_matching(other, x, sigma, noise).item() - best
        assert more == pytest.approx(explicit(other), rel=0.03, abs=0.003) and more > 0.01


# Probability-flow ODE -------------------------------------------------------------------------------------------------


def exact_score_model(beta_max=40.0):
    """A score model of the mixture whose network is the exact one."""
    model = ScoreModel(None, (2,), beta_max=beta_max).double()

    def epsilon(x, t, context):
        signal, std = model.signal_and_noise(t)
        smooth = (signal[0] ** 2 * 0.25 + std[0] ** 2).sqrt()  # in a solver all rows have one time
        return -std * gaussian_mixture_score(x, signal[0] * MEANS, smooth, WEIGHTS)

    model.network = Fixed(epsilon)
    return model


def test_probability_flow_of_the_exact_score_has_the_density_of_the_data():
    model = exact_score_model()
    x = torch.tensor([[-2.0, 0.3], [1.0, 1.0], [0.0, 0.0], [3.0, -2.0]], dtype=torch.float64)
    signal, std = (float(c[0]) for c in model.signal_and_noise(torch.tensor([1e-3]).double()))
    wanted = mixture_log_prob(x, signal * MEANS, math.hypot(0.5 * signal, std))
    torch.testing.assert_close(model.log_prob(x), wanted, atol=2e-3, rtol=0)
    torch.testing.assert_close(wanted, mixture_log_prob(x), atol=0.02, rtol=0)


def linear_gaussian(kind):
    """Exact networks for correlated Gaussian data, and the density that the model then has."""
    mean = torch.tensor([0.5, -1.0], dtype=torch.float64)
    cov, eye = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    if kind == "score":
        model = ScoreModel(None, (2,), beta_max=40.0).double()

        def net(x, t, context):
            signal, std = (c.unsqueeze(2) for c in model.signal_and_noise(t))
            centred = (x - signal[:, 0] * mean).unsqueeze(2)
            return (std * torch.linalg.solve(signal**2 * cov + std**2 * eye, centred)).squeeze(2)

        signal, std = (float(c[0]) for c in model.signal_and_noise(torch.tensor([1e-3]).double()))
        wanted = MultivariateNormal(signal * mean, signal**2 * cov + std**2 * eye)
    else:
        model = FlowMatching(None, (2,), sigma_min=0.1).double()

        def net(x, t, context):
            """E[x1 - 0.9 z | x_t] of jointly Gaussian x1 and z, x_t = (1 - 0.9 t) z + t x1."""
            t = t.view(-1, 1, 1)
            cross = t * cov - 0.9 * (1 - 0.9 * t) * eye
            centred = (x - t[:, 0] * mean).unsqueeze(2)
            total = (1 - 0.9 * t) ** 2 * eye + t**2 * cov
            return mean + (cross @ torch.linalg.solve(total, centred)).squeeze(2)

        wanted = MultivariateNormal(mean, cov + 0.01 * eye)
    model.network = Fixed(net)
    return model, wanted


@pytest.mark.parametrize("kind", ["score", "flow matching"])
def test_likelihood_and_samples_of_gaussian_data_in_closed_form(kind):
    model, wanted = linear_gaussian(kind)
    x = 2 * torch.randn(30, 2, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(model.log_prob(x), wanted.log_prob(x), atol=2e-3, rtol=0)
    torch.testing.assert_close(model.log_prob(x, steps=100), wanted.log_prob(x), atol=5e-3, rtol=0)
    sample = model.sample(5000, 40, generator=seeded())
    torch.testing.assert_close(sample.mean(0), wanted.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(sample.T), wanted.covariance_matrix, atol=0.08, rtol=0)


@pytest.mark.parametrize("kind", ["score", "flow matching"])
def test_exact_network_has_the_least_loss(kind):
    model, _ = linear_gaussian(kind)
    mean, cov = torch.tensor([0.5, -1.0]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.8]]).double()
    x = MultivariateNormal(mean, cov).sample((20_000,))
    exact, best = model.network.f, model.loss(x, generator=seeded()).item()
    for change in (lambda x, t: 0.1 * x, lambda x, t: 0.2 * t[:, None] - 0.1, lambda x, t: 0.1 * x.flip(1)):
        model.network.f = lambda x, t, c, change=change: exact(x, t, c) + change(x, t)
        assert model.loss(x, generator=seeded()).item() > best + 0.001


@pytest.mark.parametrize("make", [ScoreModel, FlowMatching])
def test_likelihood_integrates_to_one_in_two_dimensions(make):
    net = randomized(TimeMLP(2, (16,), frequencies=2), 0.4)
    model = make(net, (2,))
    if make is ScoreModel:  # around the score of N(0, I), since a random one flings the noise far away
        model.network = Fixed(lambda x, t, c: model.signal_and_noise(t)[1] * (x + 0.3 * net(x, t)))
    side = torch.linspace(-8, 8, 65)
    grid = torch.cartesian_prod(side, side)
    density = model.log_prob(grid, steps=30).exp()
    assert (density.sum() * (16 / 64) ** 2).item() == pytest.approx(1, abs=0.01)
    normal = torch.exp(-0.5 * (grid**2).sum(1)) / (2 * math.pi)
    assert (density - normal).abs().max() > 0.02, "and it is not the base"


def test_hutchinson_estimates_the_exact_value_without_bias():
    model = FlowMatching(randomized(TimeMLP(3, (16,), frequencies=2)), (3,)).double()
    x = torch.randn(1, 3, dtype=torch.float64)
    exact = model.log_prob(x, steps=10)
    estimates = model.log_prob(x.expand(4000, 3), trace="hutchinson", steps=10, generator=seeded())
    assert estimates.std() > 1e-3
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / math.sqrt(4000)
    image = FlowMatching(randomized(TimeUNet((1, 4, 4), 8)), (1, 4, 4))
    assert image.log_prob(torch.randn(2, 1, 4, 4), trace="hutchinson", steps=2).shape == (2,)


def test_score_model_is_the_limit_of_ddpm():
    """signal^2 of the continuous model and alpha-bar of 1,000 steps of the linear schedule agree."""
    alpha_bar = (1 - linear_schedule(1000)).cumprod(0)
    signal, std = ScoreModel(None, (1,)).double().signal_and_noise(torch.tensor([0.1, 0.5, 1.0]).double())
    torch.testing.assert_close(signal[:, 0] ** 2, alpha_bar[[99, 499, 999]], rtol=0.03, atol=1e-5)
    torch.testing.assert_close(signal**2 + std**2, torch.ones_like(std))


# Flow matching --------------------------------------------------------------------------------------------------------


def test_paths_run_straight_from_noise_to_data():
    model = FlowMatching(None, (2,), sigma_min=0.2)
    x, z = torch.randn(2, 3, 2)
    starts, ends = (model.path(x, torch.full((3,), t), z)[0] for t in (0.0, 1.0))
    torch.testing.assert_close(starts, z)
    torch.testing.assert_close(ends, x + 0.2 * z)
    middle, velocity = model.path(x, torch.full((3,), 0.25), z)
    torch.testing.assert_close(velocity, ends - starts)
    torch.testing.assert_close(middle, starts + 0.25 * velocity)


# Training -------------------------------------------------------------------------------------------------------------


def make_ddpm(net, shape):
    return DDPM(net, shape, linear_schedule(50))


@pytest.mark.parametrize("make", [make_ddpm, ScoreModel, FlowMatching])
def test_training_on_moons_brings_samples_to_the_data(make):
    x = data.toy("moons", 4000)
    x = (x - x.mean(0)) / x.std(0)
    model = make(TimeMLP(2, (128, 128)), (2,))
    before = mmd_test(model.sample(400, 50, generator=seeded()), x[::10], 1, 0.3).statistic
    fit(model, x, steps=400, lr=1e-2, schedule="cosine", progress=False, device="cpu")
    after = mmd_test(model.sample(400, 50, generator=seeded()), x[::10], 1, 0.3).statistic
    assert after < 0.4 * before


# Bad input ------------------------------------------------------------------------------------------------------------


def test_bad_input_of_ddpm_is_named():
    net, betas = TimeMLP(2, (8,)), linear_schedule(10)
    model = DDPM(net, (2,), betas)
    x = torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"predict must be one of epsilon, x0, v, got 'score'"):
        DDPM(net, (2,), betas, predict="score")
    with pytest.raises(ValueError, match="variance must be one of posterior, beta, got 'learned'"):
        DDPM(net, (2,), betas, variance="learned")
    with pytest.raises(ValueError, match="betas must be numbers between 0 and 1"):
        DDPM(net, (2,), torch.tensor([0.1, 1.0]))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        linear_schedule(0)
    for method in (model.loss, model.elbo):
        with pytest.raises(ValueError, match=r"x must have shape \(batch, 2\), got \(4, 3\)"):
            method(torch.randn(4, 3))
        with pytest.raises(TypeError, match="floating-point"):
            method(torch.zeros(4, 2, dtype=torch.long))
        with pytest.raises(ValueError, match="1 entries that are NaN or infinite"):
            method(torch.tensor([[0.0, math.nan]]))
        with pytest.raises(ValueError, match="takes no context"):
            method(x, context=torch.zeros(4, 1))
    with pytest.raises(ValueError, match="batch is empty"):
        model.loss(x[:0])
    with pytest.raises(ValueError, match=r"t must have shape \(4,\) and lie between 1 and 10, got \(4,\) from 0 to 3"):
        model.loss(x, t=torch.arange(4))
    with pytest.raises(ValueError, match="steps must lie between 1 and 10, got 11"):
        model.sample(2, 11)
    with pytest.raises(ValueError, match="eta must lie between 0 and 1, got 2"):
        model.sample(2, eta=2)
    pixels = DDPM(net, (2,), betas, levels=4)
    for bad in ([[0, 4]], [[-1, 0]], [[0.5, 0]]):
        with pytest.raises(ValueError, match="whole numbers from 0 to 3"):
            pixels.elbo(torch.tensor(bad))
    with pytest.raises(ValueError, match=r"divisible by 4, hidden by 8, got \(8, 6\) and 8"):
        TimeUNet((1, 8, 6), 8)
    with pytest.raises(ValueError, match=r"needs a context of shape \(batch, 3\)"):
        DDPM(TimeMLP(2, (8,), context_dim=3), (2,), betas).loss(x)


def test_empty_batches_have_empty_bounds():
    assert DDPM(TimeMLP(2, (8,)), (2,), linear_schedule(3)).elbo(torch.zeros(0, 2)).shape == (0,)


@pytest.mark.parametrize("make", [ScoreModel, FlowMatching])
def test_bad_input_in_continuous_time_is_named(make):
    model, x = make(TimeMLP(2, (8,)), (2,)), torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 2\), got \(4, 3\)"):
        model.log_prob(torch.randn(4, 3))
    with pytest.raises(ValueError, match="1 entries that are NaN or infinite"):
        model.log_prob(torch.tensor([[0.0, math.inf]]))
    with pytest.raises(ValueError, match=r'trace must be "exact" or "hutchinson", got \'both\''):
        model.log_prob(x, trace="both")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        model.sample(3, 0)
    with pytest.raises(ValueError, match=r"z must have shape \(batch, 2\)"):
        model.decode(torch.randn(4))
    with pytest.raises(ValueError, match="batch is empty"):
        model.loss(x[:0])
    with pytest.raises(ValueError, match=r"t must have shape \(4,\)"):
        model.loss(x, t=torch.full((4,), 1.5))
    with pytest.raises(ValueError, match=r"noise must have the shape of x, \(4, 2\), got \(4, 1\)"):
        model.loss(x, noise=torch.randn(4, 1))
    with pytest.raises(TypeError, match="floating-point"):
        model.loss(torch.zeros(4, 2, dtype=torch.long))


def test_bad_constants_are_named():
    with pytest.raises(ValueError, match="0 < t_min < 1"):
        ScoreModel(None, (2,), t_min=0)
    with pytest.raises(ValueError, match=r"sigma_min must lie in \[0, 1\), got 1"):
        FlowMatching(None, (2,), sigma_min=1)
    with pytest.raises(ValueError, match=r"noise must have the shape of x, \(3, 2\), got \(3, 1\)"):
        denoising_score_matching(lambda y: y, torch.zeros(3, 2), 1.0, torch.zeros(3, 1))
