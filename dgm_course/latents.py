"""Priors p(z) and posteriors q(z | x) of latent-variable models, with densities in nats.

A prior has `log_prob(z)`, `(batch, dim)` to `(batch,)`, and `sample(n, generator=None, temperature=1.0)`: a
`StandardNormal`, any `Flow`, or one of the mixtures below. A posterior is a diagonal Gaussian whose parameters come
from an encoder, and a flow on top, whose parameters may come from the encoder too.

References:
    Auto-Encoding Variational Bayes, Kingma, Welling, 2014, appendix C.
    Variational inference with normalizing flows, Rezende, Mohamed, 2015.
    VAE with a VampPrior, Tomczak, Welling, 2018.
"""

import math

import torch
from torch import nn

from dgm_course import flows
from dgm_course.bounds import normal
from dgm_course.transforms.base import expect

POSTERIOR_FLOWS = {
    "planar": lambda dim, layers, context_dim: flows.planar(dim, layers, context_dim),
    "radial": lambda dim, layers, context_dim: flows.radial(dim, layers, context_dim),
    "orthogonal": lambda dim, layers, context_dim: flows.sylvester(
        dim, layers, max(1, dim // 2), "orthogonal", context_dim=context_dim
    ),
    "householder": lambda dim, layers, context_dim: flows.sylvester(
        dim, layers, kind="householder", context_dim=context_dim
    ),
    "triangular": lambda dim, layers, context_dim: flows.sylvester(
        dim, layers, kind="triangular", context_dim=context_dim
    ),
    "realnvp": lambda dim, layers, context_dim: flows.realnvp(dim, layers, (64, 64), context_dim),
    "iaf": lambda dim, layers, context_dim: flows.iaf(dim, layers, (64, 64), context_dim),
}


def posterior_flow(name, dim, layers=4, context_dim=0):
    """A transform for `Posterior`, whose `inverse` is fast.

    Args:
        name: "planar", "radial", "orthogonal", "householder", "triangular" (Sylvester), "realnvp" or "iaf".
        dim: entries of z.
        layers: number of layers.
        context_dim: entries of the encoder's context; 0 for a flow that is the same for every x.
    """
    if name not in POSTERIOR_FLOWS:
        raise ValueError(f"the posterior must be gaussian or one of {', '.join(POSTERIOR_FLOWS)}, got {name!r}")
    return POSTERIOR_FLOWS[name](dim, layers, context_dim).transform


def log_normal(z, mean, log_scale):
    """Log-density of independent normals, elementwise, in nats."""
    return -0.5 * ((z - mean) * (-log_scale).exp()) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)


class Posterior(nn.Module):
    """q(z | x): z0 = mean(x) + scale(x) * eps, then z = flow.inverse(z0).

    Args:
        encoder: maps a batch of inputs to `(batch, 2 * dim + context_dim)`: mean, log-scale, and context of the flow.
        dim: entries of z.
        flow: a `Transform` from z to z0 (so that `inverse` makes samples), or None for the diagonal Gaussian.
        context_dim: entries of the context.
    """

    def __init__(self, encoder, dim, flow=None, context_dim=0):
        super().__init__()
        if context_dim and flow is None:
            raise ValueError(f"the context is for a flow, and there is none: context_dim must be 0, got {context_dim}")
        self.encoder, self.dim, self.flow, self.context_dim = encoder, dim, flow, context_dim

    def params(self, x):
        """Mean and log-scale `(batch, dim)`, and the context `(batch, context_dim)` or None."""
        out = self.encoder(x)
        expect(out, (2 * self.dim + self.context_dim,), "output of the encoder")
        mean, log_scale, context = out.split([self.dim, self.dim, self.context_dim], dim=1)
        return mean, log_scale, context if self.context_dim else None

    def forward(self, x, eps):
        """Samples z `(k, batch, dim)` from noise of the same shape, and their log q(z | x) `(k, batch)`."""
        return self.draw(self.params(x), eps)

    def draw(self, params, eps):
        mean, log_scale, context = params
        z = mean + log_scale.exp() * eps
        log_q = log_normal(z, mean, log_scale).sum(-1)
        if self.flow is not None:
            context = None if context is None else context.repeat(len(eps), 1)
            z, log_det = self.flow.inverse(z.flatten(0, 1), context)
            z, log_q = z.unflatten(0, eps.shape[:2]), log_q - log_det.unflatten(0, eps.shape[:2])
        return z, log_q

    def log_prob(self, z, x):
        """log q(z_i | x_i), `(batch,)` in nats."""
        expect(z, (self.dim,), "z")
        return self.density(z, *self.params(x))

    def density(self, z, mean, log_scale, context):
        """log q of z `(batch, dim)`; means and scales of any shape `(batch, dim)`, or `(1, n, dim)` for every pair."""
        z0, log_det = (z, z.new_zeros(len(z))) if self.flow is None else self.flow(z, context)
        z0, log_det = (z0, log_det) if mean.dim() == 2 else (z0[:, None], log_det[:, None])
        return log_normal(z0, mean, log_scale).sum(-1) + log_det

    def pairwise(self, z, x, chunk=2**16):
        """log q(z_i | x_j) for every pair, `(len(z), len(x))` in nats, about `chunk` pairs at a time."""
        expect(z, (self.dim,), "z")
        mean, log_scale, context = self.params(x)
        rows, n = [], len(x)
        for part in z.split(max(1, chunk // n)):
            if context is None:  # one pass of the flow does for all x
                rows.append(self.density(part, mean[None], log_scale[None], None))
            else:
                repeated = (p.repeat(len(part), 1) for p in (mean, log_scale, context))
                rows.append(self.density(part.repeat_interleave(n, 0), *repeated).view(len(part), n))
        return torch.cat(rows)

    def kl_standard(self, params):
        """KL(q(z | x) || N(0, I)) in closed form from `params(x)`, for each entry of z: `(batch, dim)` in nats.

        References:
            Kingma, Welling, 2014, appendix B.

        Raises:
            ValueError: a flow is on top, so there is no closed form.
        """
        if self.flow is not None:
            raise ValueError("the KL divergence of a flow posterior has no closed form: estimate it (analytic=False)")
        mean, log_scale, _ = params
        return 0.5 * (mean**2 + torch.expm1(2 * log_scale)) - log_scale


class GaussianMixture(nn.Module):
    """Mixture of k diagonal Gaussians with learned weights, means and scales.

    Args:
        dim: entries of z.
        k: components.
    """

    def __init__(self, dim, k=10):
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.logits = nn.Parameter(torch.zeros(k))
        self.mean = nn.Parameter(torch.randn(k, dim))
        self.log_scale = nn.Parameter(torch.zeros(k, dim))

    def log_prob(self, z):
        expect(z, (self.mean.shape[1],), "z")
        each = log_normal(z[:, None], self.mean, self.log_scale).sum(-1)  # (batch, k)
        return (self.logits.log_softmax(0) + each).logsumexp(1)

    @torch.no_grad()
    def sample(self, n, generator=None, temperature=1.0):
        """Samples `(n, dim)`; the temperature multiplies the scales."""
        k = choose(self.logits, n, generator)
        noise = normal((n, self.mean.shape[1]), self.mean, generator)
        return self.mean[k] + temperature * self.log_scale[k].exp() * noise


class AggregatedPosterior(nn.Module):
    """q_agg(z) = 1/n sum_i q(z | x_i), a mixture over the given points: the prior that maximizes the mean ELBO on them.

    References:
        ELBO surgery: yet another way to carve up the variational evidence lower bound, Hoffman, Johnson, 2016.

    Args:
        posterior: a `Posterior`.
        x: inputs of its encoder, `(n, ...)`.
    """

    def __init__(self, posterior, x):
        super().__init__()
        if len(x) == 0:
            raise ValueError("the aggregated posterior needs at least one point, got none")
        self.posterior = posterior
        self.register_buffer("x", x)

    def log_prob(self, z):
        return self.posterior.pairwise(z, self.x).logsumexp(1) - math.log(len(self.x))

    @torch.no_grad()
    def sample(self, n, generator=None, temperature=1.0):
        """Samples `(n, dim)`: a point at random, then z from its posterior; the temperature multiplies its noise."""
        x = self.x[choose(self.x.new_zeros(len(self.x)), n, generator)]
        return self.posterior(x, temperature * normal((1, n, self.posterior.dim), x, generator))[0][0]


class VampPrior(AggregatedPosterior):
    """Aggregated posterior of k learned pseudo-inputs.

    Args:
        posterior: the model's own posterior; its encoder learns from both uses.
        pseudo_inputs: first values `(k, ...)`, inputs of the encoder, e.g. `vae.inputs(x)` of some examples.

    References:
        VAE with a VampPrior, Tomczak, Welling, 2018, equation 9.
    """

    def __init__(self, posterior, pseudo_inputs):
        super().__init__(posterior, pseudo_inputs)
        del self.x
        self.x = nn.Parameter(pseudo_inputs.detach().clone())


def choose(logits, n, generator=None):
    """n indices drawn from softmax(logits), `(n,)`, on the device of the logits."""
    device = logits.device if generator is None else generator.device
    return torch.multinomial(logits.softmax(0).to(device), n, True, generator=generator).to(logits.device)
