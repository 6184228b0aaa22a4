"""Generative adversarial networks: losses, networks for vectors and images, what an optimal discriminator says."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from dgm_course.distributions import StandardNormal
from dgm_course.transforms.base import expect

KINDS = ("minimax", "non-saturating", "wasserstein")


class GAN(nn.Module):
    """A generator from latent z to x, against a critic that gives x one number, `(batch,)`.

    For the first two kinds that number is a logit: the discriminator is D(x) = sigmoid(critic(x)).

    Args:
        generator: module, `(batch, latent)` to `(batch, ...)`.
        critic: module, `(batch, ...)` to `(batch,)`.
        latent: entries of z, which is N(0, I).
        kind: "minimax", "non-saturating" (same discriminator; the generator maximizes log D(G(z)), whose gradient does
            not vanish where D is sure), or "wasserstein" (no sigmoid, gradient penalty).
        penalty: weight of the gradient penalty of "wasserstein".

    References:
        Generative Adversarial Networks, Goodfellow et al., 2014, equation 1 and section 3.
        Improved Training of Wasserstein GANs, Gulrajani et al., 2017, equation 3.
    """

    def __init__(self, generator, critic, latent, kind="non-saturating", penalty=10.0):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        self.generator, self.critic, self.base = generator, critic, StandardNormal((latent,))
        self.kind, self.penalty = kind, penalty

    def generator_loss(self, z, generator=None):
        """What the generator minimizes, a scalar: E log(1 - D), -E log D or -E critic, over generated x.

        Args:
            z: latents `(batch, latent)`, or how many to draw.
            generator: draws them.
        """
        logit = self._critic(self.generator(self._latents(z, generator)))
        if self.kind == "minimax":
            return -F.softplus(logit).mean()
        return F.softplus(-logit).mean() if self.kind == "non-saturating" else -logit.mean()

    def discriminator_loss(self, x, z=None, u=None, generator=None):
        """What the discriminator minimizes, a scalar; no gradient reaches the generator.

        The first two kinds: -E log D(x) - E log(1 - D(G(z))), which is -V(D, G). "wasserstein": E critic(G(z)) -
        E critic(x) + penalty * `gradient_penalty`.

        Args:
            x: data `(batch, ...)`.
            z: latents `(batch, latent)`; drawn if not given, as many as data.
            u: for "wasserstein", where between data and generated x to take the gradient, `(batch,)` in [0, 1]; drawn
                if not given.
            generator: draws them.
        """
        if len(x) == 0:
            raise ValueError("the batch is empty; its mean loss is not defined")
        with torch.no_grad():
            fake = self.generator(self._latents(len(x) if z is None else z, generator))
        expect(x, tuple(fake.shape[1:]))
        on_data, on_fake = self._critic(x), self._critic(fake)
        if self.kind != "wasserstein":
            return F.softplus(-on_data).mean() + F.softplus(on_fake).mean()
        u = torch.rand(len(x), generator=generator, dtype=x.dtype, device=x.device) if u is None else u
        return on_fake.mean() - on_data.mean() + self.penalty * gradient_penalty(self.critic, x, fake, u)

    @torch.no_grad()
    def sample(self, n, generator=None):
        """Draws `(n, ...)` samples, one pass of the generator."""
        return self.generator(self.base.sample(n, generator))

    def _latents(self, z, generator):
        if isinstance(z, int):
            if z < 1:
                raise ValueError(f"the number of latents must be at least 1, got {z}")
            return self.base.sample(z, generator)
        expect(z, self.base.shape, "z")
        return z

    def _critic(self, x):
        value = self.critic(x)
        if value.shape != x.shape[:1]:
            raise ValueError(f"the critic must give shape ({len(x)},), got {tuple(value.shape)}")
        return value


def gradient_penalty(critic, x, fake, u):
    """E (|grad critic(x u + fake (1 - u))| - 1)^2, a scalar that can be differentiated again.

    Args:
        critic: `(batch, ...)` to `(batch,)`; must treat examples alone (no batch normalization).
        x, fake: data and generated x, of one shape `(batch, ...)`.
        u: `(batch,)` in [0, 1].

    References:
        Improved Training of Wasserstein GANs, Gulrajani et al., 2017, algorithm 1.
    """
    if x.shape != fake.shape or u.shape != x.shape[:1]:
        shapes = f"{tuple(x.shape)}, {tuple(fake.shape)} and {tuple(u.shape)}"
        raise ValueError(f"x, fake and u must have shapes (batch, ...), the same, and (batch,), got {shapes}")
    u = u.view(-1, *[1] * (x.dim() - 1))
    between = (x * u + fake * (1 - u)).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def mlp_generator(latent, dim, hidden=(128, 128)):
    """Generator of vectors, `(batch, latent)` to `(batch, dim)`."""
    return nn.Sequential(*_mlp([latent, *hidden], nn.ReLU, nn.Linear), nn.Linear([latent, *hidden][-1], dim))


def mlp_critic(dim, hidden=(128, 128), spectral=False):
    """Critic of vectors, `(batch, dim)` to `(batch,)`.

    Args:
        spectral: divide each weight by its largest singular value (`spectral_norm`), so that no layer stretches.

    References:
        Spectral Normalization for Generative Adversarial Networks, Miyato et al., 2018.
    """
    make = _linear(spectral)
    last = make(nn.Linear([dim, *hidden][-1], 1))
    layers = _mlp([dim, *hidden], lambda: nn.LeakyReLU(0.2), lambda a, b: make(nn.Linear(a, b)))
    return nn.Sequential(*layers, last, nn.Flatten(0))


def conv_generator(latent, shape, hidden=32, last=nn.Tanh):
    """Generator of images, `(batch, latent)` to `(batch, c, h, w)`; a quarter of the size, then doubled twice.

    Args:
        latent: entries of z.
        shape: `(c, h, w)`; height and width divisible by 4.
        hidden: channels before the last layer.
        last: class of the last activation: `nn.Tanh` for data in [-1, 1], `nn.Identity` for none.

    References:
        Unsupervised Representation Learning with Deep Convolutional GANs, Radford, Metz, Chintala, 2016. Batch
        normalization is left out.
    """
    c, h, w = _image_shape(shape)
    return nn.Sequential(
        nn.Linear(latent, 2 * hidden * h * w // 16), nn.ReLU(), nn.Unflatten(1, (2 * hidden, h // 4, w // 4)),
        nn.ConvTranspose2d(2 * hidden, hidden, 4, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(hidden, c, 4, stride=2, padding=1), last(),
    )  # fmt: skip


def conv_critic(shape, hidden=32, spectral=False):
    """Critic of images, `(batch, c, h, w)` to `(batch,)`; arguments as in `conv_generator` and `mlp_critic`."""
    c, h, w = _image_shape(shape)
    make = _linear(spectral)
    return nn.Sequential(
        make(nn.Conv2d(c, hidden, 4, stride=2, padding=1)), nn.LeakyReLU(0.2),
        make(nn.Conv2d(hidden, 2 * hidden, 4, stride=2, padding=1)), nn.LeakyReLU(0.2),
        nn.Flatten(), make(nn.Linear(2 * hidden * h * w // 16, 1)), nn.Flatten(0),
    )  # fmt: skip


def _mlp(widths, activation, linear):
    return [m for a, b in pairwise(widths) for m in (linear(a, b), activation())]


def _linear(spectral):
    return spectral_norm if spectral else lambda layer: layer


def _image_shape(shape):
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4:
        raise ValueError(f"shape must be (c, h, w) with height and width divisible by 4, got {tuple(shape)}")
    return shape


def train_gan(gan, x, steps, batch_size=128, lr=2e-4, betas=(0.5, 0.999), critic_steps=1, seed=0):
    """Alternates `critic_steps` Adam steps of the critic with one of the generator; the model stays on its device.

    Args:
        gan: a `GAN`.
        x: data `(n, ...)`.
        steps: steps of the generator.
        batch_size, lr, betas: of both optimizers; for "wasserstein" the paper has 1e-4, (0, 0.9) and 5 critic steps.
        critic_steps: steps of the critic before each of the generator.
        seed: of batches and noise.

    Returns:
        dict with lists `discriminator` and `generator`: the last loss of each in every step.

    Raises:
        FloatingPointError: a loss is NaN or infinite; the message has the step.

    References:
        Generative Adversarial Networks, Goodfellow et al., 2014, algorithm 1.
    """
    expect(x, (...,))
    if steps < 1 or critic_steps < 1 or len(x) == 0:
        raise ValueError(f"steps, critic_steps and data must be at least 1, got {steps}, {critic_steps}, {len(x)}")
    device = next(gan.parameters()).device
    generator, losses = torch.Generator(device).manual_seed(seed), {"discriminator": [], "generator": []}
    nets = {"discriminator": gan.critic, "generator": gan.generator}
    optimizers = {name: torch.optim.Adam(net.parameters(), lr, betas) for name, net in nets.items()}

    def step(name, loss):
        gan.zero_grad()
        loss.backward()
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss of the {name} is {loss.item()} at step {len(losses['generator']) + 1}")
        optimizers[name].step()
        return loss.item()

    gan.train()
    for _ in range(steps):
        for _ in range(critic_steps):
            rows = torch.randint(len(x), (batch_size,), generator=generator, device=device).to(x.device)
            batch = x[rows].to(device)
            of_critic = step("discriminator", gan.discriminator_loss(batch, generator=generator))
        losses["discriminator"].append(of_critic)
        losses["generator"].append(step("generator", gan.generator_loss(batch_size, generator)))
    gan.eval()
    return losses


def optimal_discriminator(log_p, log_q, prior=0.5):
    """D*(x) = prior p / (prior p + (1 - prior) q): the probability that x is data, if data come as often as `prior`.

    Args:
        log_p, log_q: log-densities of data and of generated x at the same points, any shape.
        prior: share of data among what the discriminator sees; GANs have 1/2, so that D* = p / (p + q).

    References:
        Generative Adversarial Networks, Goodfellow et al., 2014, proposition 1.
    """
    if not 0 < prior < 1:
        raise ValueError(f"prior must lie between 0 and 1, got {prior}")
    return torch.sigmoid(log_p - log_q + math.log(prior / (1 - prior)))


def discriminator_value(log_p, log_q, logit, cell):
    """V(D, G) = E_p log D + E_q log(1 - D) in nats on a grid; at most 2 JSD - 2 log 2, for `optimal_discriminator`.

    Args:
        log_p, log_q: log-densities of data and of generated x at the points of a grid, any shape.
        logit: of D at the same points.
        cell: volume of one cell of the grid.
    """
    _check_grid(log_p, log_q, cell)
    return -cell * (log_p.exp() * F.softplus(-logit) + log_q.exp() * F.softplus(logit)).sum()


def js_divergence(log_p, log_q, cell):
    """Jensen-Shannon divergence in nats, integrated on a grid; between 0 and log 2. Its square root is a metric.

    Arguments as in `discriminator_value`. The grid must hold nearly all of both densities.

    Raises:
        ValueError: other shapes, or a density that does not sum to 1 on the grid (within 0.01).
    """
    _check_grid(log_p, log_q, cell)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    # Where p = 0 the term is 0, not 0 * infinity.
    kl = [cell * torch.where(f > -math.inf, f.exp() * (f - log_m), 0.0).sum() for f in (log_p, log_q)]
    return (kl[0] + kl[1]) / 2


def _check_grid(log_p, log_q, cell):
    if log_p.shape != log_q.shape:
        raise ValueError(f"log_p and log_q must have the same shape, got {tuple(log_p.shape)} and {tuple(log_q.shape)}")
    masses = [float(cell * f.exp().sum()) for f in (log_p, log_q)]
    if any(abs(mass - 1) > 0.01 for mass in masses):
        raise ValueError(f"both densities must sum to 1 on the grid, got {masses[0]:.3f} and {masses[1]:.3f}")
