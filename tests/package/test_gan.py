"""Adversarial networks: losses and penalty by hand, the optimal discriminator on densities known in closed form."""

import math

import pytest
import torch
from torch import nn

from dgm_course import data
from dgm_course.distributions import StandardNormal
from dgm_course.flows import Flow
from dgm_course.gan import (
    GAN,
    KINDS,
    conv_critic,
    conv_generator,
    discriminator_value,
    gradient_penalty,
    js_divergence,
    mlp_critic,
    mlp_generator,
    optimal_discriminator,
    train_gan,
)
from dgm_course.transforms import Compose
from dgm_course.two_sample import mmd_test

LOG_2 = math.log(2)
GRID = torch.linspace(-12, 12, 4801, dtype=torch.float64)
CELL = (GRID[1] - GRID[0]).item()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(mean, std=1.0):
    return torch.distributions.Normal(torch.tensor(mean).double(), std).log_prob(GRID)


class Half(nn.Module):
    """Critic whose logit is a constant times the sum of the entries."""

    def __init__(self, slope):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(float(slope)))

    def forward(self, x):
        return self.slope * x.flatten(1).sum(1)


@pytest.fixture(autouse=True)
def weights():
    torch.manual_seed(0)


# Closed forms --------------------------------------------------------------------------------------------------------


def test_divergence_of_equal_and_of_disjoint_densities():
    assert js_divergence(gaussian(0.0), gaussian(0.0), CELL).item() == pytest.approx(0, abs=1e-12)
    middle = GRID[:-1] + CELL / 2

    def uniform(low, high):
        return torch.where((middle > low) & (middle < high), -math.log(high - low), -math.inf)

    assert js_divergence(uniform(-3, -1), uniform(1, 3), CELL).item() == pytest.approx(LOG_2, rel=1e-4)
    half = js_divergence(uniform(0, 2), uniform(1, 3), CELL).item()
    assert half == pytest.approx(LOG_2 / 2, rel=1e-4), "half of the mass overlaps"


def test_divergence_of_gaussians_against_monte_carlo():
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(1.5, 0.7)

    def kl(f):
        x = f.sample((400_000,))
        return (f.log_prob(x) - torch.logaddexp(p.log_prob(x), q.log_prob(x)) + LOG_2).mean()

    value = js_divergence(gaussian(0.0), gaussian(1.5, 0.7), CELL)
    assert value.item() == pytest.approx(((kl(p) + kl(q)) / 2).item(), rel=0.01)


def test_optimal_discriminator_of_two_gaussians_is_a_logistic_curve():
    """p / (p + q) for N(0, 1) and N(m, 1) is sigmoid(m^2 / 2 - m x)."""
    best = optimal_discriminator(gaussian(0.0), gaussian(2.0))
    torch.testing.assert_close(best, torch.sigmoid(2 - 2 * GRID))
    unbalanced = optimal_discriminator(gaussian(0.0), gaussian(2.0), prior=0.2)
    p, q = gaussian(0.0).exp(), gaussian(2.0).exp()
    torch.testing.assert_close(unbalanced, 0.2 * p / (0.2 * p + 0.8 * q))


def test_value_of_the_optimal_discriminator_is_2_jsd_less_2_log_2_and_no_other_gets_more():
    p, q = gaussian(0.0), gaussian(1.5, 0.7)
    best = discriminator_value(p, q, p - q, CELL)
    assert best.item() == pytest.approx((2 * js_divergence(p, q, CELL) - 2 * LOG_2).item(), abs=1e-10)
    for change in (0.3, -0.3 * GRID.sin(), (p - q) * 0.2):
        assert discriminator_value(p, q, p - q + change, CELL) < best - 1e-4
    assert discriminator_value(p, p, torch.zeros_like(p), CELL).item() == pytest.approx(-2 * LOG_2)


def test_a_trained_discriminator_approaches_the_optimal_one():
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(2.0, 1.0)
    generator = nn.Linear(1, 1)
    with torch.no_grad():
        generator.weight.fill_(1), generator.bias.fill_(2)
    gan = GAN(generator, mlp_critic(1, (32,)), 1)
    optimizer = torch.optim.Adam(gan.critic.parameters(), 0.01)
    for _ in range(300):
        optimizer.zero_grad()
        loss = gan.discriminator_loss(p.sample((512, 1)))
        loss.backward()
        optimizer.step()
    x = torch.linspace(-1, 3, 9)[:, None]
    wanted = optimal_discriminator(p.log_prob(x), q.log_prob(x))[:, 0]
    torch.testing.assert_close(gan.critic(x).sigmoid(), wanted, atol=0.06, rtol=0)
    with torch.no_grad():
        value = -gan.discriminator_loss(p.sample((50_000, 1)))
    most = 2 * js_divergence(gaussian(0.0), gaussian(2.0), CELL).item() - 2 * LOG_2
    assert value.item() == pytest.approx(most, abs=0.02)


# Losses ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_those_of_the_papers(dtype):
    z = torch.tensor([[0.3], [-1.2], [2.0]], dtype=dtype)
    x = torch.tensor([[1.0], [-2.0], [0.5]], dtype=dtype)
    on_fake, on_data = torch.sigmoid(0.5 * z), torch.sigmoid(0.5 * x)
    wanted = {
        "minimax": (1 - on_fake).log().mean(),
        "non-saturating": -on_fake.log().mean(),
        "wasserstein": -0.5 * z.mean(),
    }
    for kind in KINDS:
        gan = GAN(nn.Identity(), Half(0.5), 1, kind).to(dtype)
        torch.testing.assert_close(gan.generator_loss(z).detach(), wanted[kind])
        u = torch.tensor([0.1, 0.5, 0.9], dtype=dtype)
        loss = gan.discriminator_loss(x, z, u).detach()
        if kind == "wasserstein":
            torch.testing.assert_close(loss, 0.5 * z.mean() - 0.5 * x.mean() + 10 * torch.tensor(0.25, dtype=dtype))
        else:
            torch.testing.assert_close(loss, -on_data.log().mean() - (1 - on_fake).log().mean())


def test_only_the_non_saturating_loss_teaches_where_the_discriminator_is_sure():
    """D is sure that x is generated (logit -30): minimax has no slope there, non-saturating has slope -1."""
    slopes = {}
    for kind in KINDS[:2]:
        z = torch.tensor([[-30.0]], requires_grad=True)
        GAN(nn.Identity(), Half(1.0), 1, kind).generator_loss(z).backward()
        slopes[kind] = z.grad.item()
    assert abs(slopes["minimax"]) < 1e-12 and slopes["non-saturating"] == pytest.approx(-1)


def test_losses_stay_finite_when_the_discriminator_is_certain():
    for kind in KINDS:
        gan = GAN(nn.Identity(), Half(1e3), 1, kind)
        assert gan.generator_loss(torch.tensor([[5.0], [-5.0]])).isfinite()
        assert gan.discriminator_loss(torch.tensor([[-5.0]]), torch.tensor([[5.0]]), torch.ones(1)).isfinite()


def test_discriminator_loss_leaves_the_generator_alone():
    for kind in KINDS:
        gan = GAN(mlp_generator(2, 2, (8,)), mlp_critic(2, (8,)), 2, kind)
        gan.discriminator_loss(torch.randn(6, 2)).backward()
        assert all(p.grad is None for p in gan.generator.parameters())
        assert any(p.grad.abs().sum() > 0 for p in gan.critic.parameters())


def test_gradient_penalty_against_finite_differences():
    critic = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0)).double()
    x, fake = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    u, h = torch.rand(5, dtype=torch.float64), 1e-5
    between = u[:, None] * x + (1 - u[:, None]) * fake
    with torch.no_grad():
        slopes = [(critic(between + h * e) - critic(between - h * e)) / (2 * h) for e in torch.eye(3).double()]
    wanted = ((torch.stack(slopes, 1).norm(dim=1) - 1) ** 2).mean()
    penalty = gradient_penalty(critic, x, fake, u)
    torch.testing.assert_close(penalty, wanted, rtol=1e-7, atol=0)
    # Its own gradient, that training uses, by finite differences too.
    weight = critic[0].weight
    penalty.backward()
    for i, j in ((0, 0), (7, 2)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[i, j] += sign * h
            values.append(gradient_penalty(critic, x, fake, u).item())
            with torch.no_grad():
                weight[i, j] -= sign * h
        assert weight.grad[i, j].item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


def test_gradient_penalty_is_zero_for_slope_one_on_images_too():
    x, fake = torch.randn(2, 4, 1, 4, 4)
    assert gradient_penalty(Half(1 / 4), x, fake, torch.rand(4)).item() == pytest.approx(0, abs=1e-12)
    assert gradient_penalty(Half(3 / 4), x, fake, torch.rand(4)).item() == pytest.approx(4, rel=1e-5)


def test_spectral_normalization_makes_critics_one_lipschitz():
    critic = mlp_critic(2, (32, 32), spectral=True)
    for p in critic.parameters():
        p.data.mul_(5)
    for _ in range(50):  # each pass in training mode is one step of the power iteration
        critic(torch.randn(2, 2))
    critic.eval()
    norms = [torch.linalg.matrix_norm(m.weight, 2).item() for m in critic if isinstance(m, nn.Linear)]
    assert norms == pytest.approx([1, 1, 1], abs=0.02)
    a, b = torch.randn(2, 500, 2)
    assert bool(((critic(a) - critic(b)).abs() <= 1.03 * (a - b).norm(dim=1)).all())
    assert conv_critic((1, 8, 8), 4, spectral=True)(torch.randn(3, 1, 8, 8)).shape == (3,)


# Sampling and training ------------------------------------------------------------------------------------------------


def test_samples_follow_the_generator_alone():
    for net, shape in ((mlp_generator(3, 2, (8,)), (2,)), (conv_generator(3, (1, 8, 12), 4), (1, 8, 12))):
        gan = GAN(net, nn.Identity(), 3)
        sample = gan.sample(5, seeded(1))
        assert sample.shape == (5, *shape) and not sample.requires_grad
        torch.manual_seed(99)
        torch.testing.assert_close(sample, gan.sample(5, seeded(1)), rtol=0, atol=0)
        assert not torch.equal(sample, gan.sample(5, seeded(2)))
    assert sample.abs().max() <= 1, "tanh"


def test_a_flow_can_be_a_generator():
    class Sampler(nn.Module):
        def __init__(self, flow):
            super().__init__()
            self.flow = flow

        def forward(self, z):
            return self.flow.transform.inverse(z)[0]

    gan = GAN(Sampler(Flow(StandardNormal((2,)), Compose())), Half(1.0), 2)
    assert gan.generator_loss(4).isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_training_brings_the_samples_to_the_data(kind):
    x = torch.randn(2000, 2, generator=seeded()) * torch.tensor([0.5, 1.0]) + torch.tensor([2.0, -1.0])
    gan = GAN(mlp_generator(2, 2, (32,)), mlp_critic(2, (32,)), 2, kind)
    before = mmd_test(gan.sample(400, seeded()), x[:400], 1).statistic
    losses = train_gan(gan, x, 300, 64, lr=5e-3 if kind == "wasserstein" else 2e-3, betas=(0.5, 0.9), critic_steps=3)
    after = mmd_test(gan.sample(400, seeded()), x[:400], 1).statistic
    assert after < 0.1 * before and not gan.training
    assert len(losses["generator"]) == len(losses["discriminator"]) == 300


def test_training_of_images_is_reproducible():
    x = 2 * data.load("digits8").float() / 16 - 1
    samples = []
    for _ in range(2):
        torch.manual_seed(0)
        gan = GAN(conv_generator(8, (1, 8, 8), 4), conv_critic((1, 8, 8), 4), 8)
        losses = train_gan(gan, x, 3, 16, seed=1)
        samples.append((gan.sample(2, seeded()), losses))
    torch.testing.assert_close(samples[0][0], samples[1][0], rtol=0, atol=0)
    assert samples[0][1] == samples[1][1]


# Bad input ------------------------------------------------------------------------------------------------------------


def test_bad_input_is_named():
    gan = GAN(mlp_generator(2, 3, (8,)), mlp_critic(3, (8,)), 2)
    with pytest.raises(ValueError, match=r"kind must be one of minimax, non-saturating, wasserstein, got 'hinge'"):
        GAN(nn.Identity(), nn.Identity(), 2, "hinge")
    with pytest.raises(ValueError, match=r"z must have shape \(batch, 2\), got \(5, 3\)"):
        gan.generator_loss(torch.randn(5, 3))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        gan.generator_loss(0)
    with pytest.raises(ValueError, match="batch is empty"):
        gan.discriminator_loss(torch.randn(0, 3))
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 3\), got \(5, 2\)"):
        gan.discriminator_loss(torch.randn(5, 2))
    with pytest.raises(TypeError, match="floating-point"):
        gan.discriminator_loss(torch.zeros(5, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"critic must give shape \(4,\), got \(4, 3\)"):
        GAN(nn.Identity(), nn.Identity(), 3).generator_loss(4)
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 3\) and \(3,\)"):
        gradient_penalty(Half(1), torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"divisible by 4, got \(1, 8, 6\)"):
        conv_critic((1, 8, 6))
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        train_gan(gan, torch.randn(5, 3), 0)
    with pytest.raises(ValueError, match="prior must lie between 0 and 1, got 1"):
        optimal_discriminator(torch.zeros(1), torch.zeros(1), prior=1)
    with pytest.raises(ValueError, match=r"sum to 1 on the grid, got 1.000 and 0.500"):
        js_divergence(gaussian(0.0), gaussian(0.0) - LOG_2, CELL)
    with pytest.raises(ValueError, match=r"same shape, got \(4801,\) and \(1,\)"):
        js_divergence(gaussian(0.0), torch.zeros(1), CELL)


def test_training_stops_at_a_loss_that_is_not_finite():
    gan = GAN(mlp_generator(2, 3, (8,)), mlp_critic(3, (8,)), 2)
    with pytest.raises(FloatingPointError, match="discriminator is nan at step 1"):
        train_gan(gan, torch.full((5, 3), math.nan), 2)
