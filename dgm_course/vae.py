"""Variational autoencoders: z from a prior, x from p(x | z), and q(z | x) for inference. Everything in nats.

    log p(x) >= E_q[log p(x | z)] - KL(q(z | x) || p(z)) = ELBO

The gap is KL(q(z | x) || p(z | x)).

References:
    Auto-Encoding Variational Bayes, Kingma, Welling, 2014.
    Stochastic Backpropagation and Approximate Inference in Deep Generative Models, Rezende, Mohamed, Wierstra, 2014.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

from dgm_course.bounds import Bound, normal, not_empty
from dgm_course.distributions import StandardNormal
from dgm_course.flows import Flow
from dgm_course.latents import AggregatedPosterior, Posterior, posterior_flow
from dgm_course.likelihoods import Bernoulli
from dgm_course.nn import MLP
from dgm_course.transforms import Inverse
from dgm_course.transforms.base import expect, sum_event


class Surgery(NamedTuple):
    """Mean ELBO of n points = reconstruction - mutual_information - marginal_kl, in nats; kl sums the last two.

    `mutual_information` is that of z and the index of a point, at most log n; `marginal_kl` is KL(q_agg || p).
    """

    elbo: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor
    mutual_information: torch.Tensor
    marginal_kl: torch.Tensor


def discrete_surgery(log_likelihood, log_q, log_prior):
    """ELBO surgery by sums, for a latent with K values.

    Args:
        log_likelihood: log p(x_i | z), `(n, K)` in nats.
        log_q: log q(z | x_i), `(n, K)`; may hold -inf, for values of z that x_i never takes.
        log_prior: log p(z), `(K,)`.

    References:
        Hoffman, Johnson, 2016, section 2.
    """
    log_agg = log_q.logsumexp(0) - math.log(len(log_q))
    q = log_q.exp()
    return _surgery(
        log_likelihood, log_q, log_agg, log_prior, lambda value: torch.where(q > 0, q * value, 0).sum(1).mean()
    )


def _surgery(log_likelihood, log_q, log_agg, log_prior, mean):
    reconstruction, kl = mean(log_likelihood), mean(log_q - log_prior)
    return Surgery(reconstruction - kl, reconstruction, kl, mean(log_q - log_agg), mean(log_agg - log_prior))


class VAE(Bound):
    """Variational autoencoder.

    Args:
        posterior: a `Posterior`, q(z | x).
        decoder: network from z `(batch, dim)` to `(batch, likelihood.n_params, *shape)`.
        likelihood: `Bernoulli()`, `Gaussian()`, `Logistic(levels)` or `Categorical(levels)`.
        shape: shape of one example.
        prior: has `log_prob(z)` and `sample(n, generator=)`; standard normal if not given.
        free_bits: nats of KL divergence for each entry of z that cost nothing in the loss (Kingma et al., 2016,
            equation 15). Where the KL divergence has no closed form, `dim` times as many for all entries together.
        warm_up: steps of training over which the weight of the KL divergence in the loss rises from 0 to 1 (Bowman et
            al., 2016; Sonderby et al., 2016).
    """

    def __init__(self, posterior, decoder, likelihood, shape, prior=None, free_bits=0.0, warm_up=0):
        super().__init__()
        if free_bits < 0 or warm_up < 0:
            raise ValueError(f"free_bits and warm_up must be at least 0, got {free_bits} and {warm_up}")
        self.posterior, self.decoder, self.likelihood, self.shape = posterior, decoder, likelihood, tuple(shape)
        self.prior = prior or StandardNormal((posterior.dim,))
        self.free_bits, self.warm_up = free_bits, warm_up
        self.register_buffer("step", torch.zeros((), dtype=torch.long))  # training steps taken, for the warm-up
        self.register_buffer("like", torch.zeros(()), persistent=False)  # knows dtype and device of the model

    def inputs(self, x):
        """What the encoder sees of x: integers brought to -1 ... 1, real numbers as they are."""
        return self.likelihood.inputs(self.likelihood.check(x, self.shape).to(self.like))

    def log_likelihood(self, x, z):
        """log p(x | z), `(k, batch)` in nats, for x `(batch, *shape)` and z `(k, batch, dim)`."""
        x = self.likelihood.check(x, self.shape)
        x = x.to(self.like) if x.is_floating_point() else x
        params = self.decoder(z.flatten(0, 1))
        expect(params, (self.likelihood.n_params, *self.shape), "output of the decoder")
        repeated = x.repeat(len(z), *[1] * len(self.shape))
        return sum_event(self.likelihood.log_prob(repeated, params)).unflatten(0, z.shape[:2])

    def infer(self, x, eps):
        """Samples z, their log q(z | x), and the parameters of q, for noise eps `(k, batch, dim)`."""
        if eps.dim() != 3 or eps.shape[1:] != (len(x), self.posterior.dim):
            raise ValueError(f"eps must have shape (k, {len(x)}, {self.posterior.dim}), got {tuple(eps.shape)}")
        params = self.posterior.params(self.inputs(x))
        return *self.posterior.draw(params, eps.to(self.like)), params

    def log_prior(self, z):
        """log p(z) in nats, `(k, batch, dim)` to `(k, batch)`."""
        return self.prior.log_prob(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def noise(self, x, k, generator=None):
        return normal((k, len(x), self.posterior.dim), self.like, generator)

    def log_weights(self, x, k, generator=None, eps=None):
        """log p(x, z) - log q(z | x) for k samples, `(k, batch)` in nats; eps `(k, batch, dim)` replaces the noise."""
        z, log_q, _ = self.infer(x, self.noise(x, k, generator) if eps is None else eps)
        return self.log_likelihood(x, z) + self.log_prior(z) - log_q

    def closed_form(self, analytic=None):
        """Whether to take the closed-form KL divergence: if there is one, unless `analytic` says otherwise."""
        there_is = self.posterior.flow is None and isinstance(self.prior, StandardNormal)
        if analytic and not there_is:
            raise ValueError("an analytic KL divergence needs a Gaussian posterior and a standard normal prior")
        return there_is if analytic is None else analytic

    def parts(self, x, eps, analytic=None):
        """Reconstruction E_q log p(x | z), `(batch,)`, and KL terms, `(batch, dim)` or, if estimated, `(batch, 1)`."""
        z, log_q, params = self.infer(x, eps)
        reconstruction = self.log_likelihood(x, z).mean(0)
        if self.closed_form(analytic):
            return reconstruction, self.posterior.kl_standard(params)
        return reconstruction, (log_q - self.log_prior(z)).mean(0)[:, None]

    def elbo(self, x, generator=None, eps=None, k=1, analytic=None):
        """Evidence lower bound from k samples of z, `(batch,)` in nats; in expectation at most log p(x).

        Args:
            x: data `(batch, *shape)`.
            generator: of the noise.
            eps: noise `(k, batch, dim)`, in place of the generator.
            k: samples.
            analytic: True for the closed-form KL divergence, False for its estimate; None for the closed form if any.

        Raises:
            ValueError: wrong shapes or values; no closed form.
            TypeError: real numbers where integers are wanted, or the reverse.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        reconstruction, kl = self.parts(x, self.noise(x, k, generator) if eps is None else eps, analytic)
        return reconstruction - kl.sum(1)

    def loss(self, x, generator=None, beta=None, analytic=None):
        """Minus the mean ELBO, a scalar in nats, with free bits and the warm-up as the model was built.

        Args:
            beta: weight of the KL divergence (beta-VAE, Higgins et al., 2017). None: in training mode that of the
                warm-up, and each call counts as a step; in evaluation mode 1.
        """
        not_empty(x)
        if beta is None:
            beta = min(1.0, int(self.step) / self.warm_up) if self.training and self.warm_up else 1.0
            self.step += int(self.training)
        reconstruction, kl = self.parts(x, self.noise(x, 1, generator), analytic)
        least = self.free_bits * self.posterior.dim / kl.shape[1]
        return beta * kl.mean(0).clamp(min=least).sum() - reconstruction.mean()

    @torch.no_grad()
    def sample(self, n, generator=None):
        """Draws x `(n, *shape)`: z from the prior, x from p(x | z)."""
        return self.likelihood.sample(self.decoder(self.prior.sample(n, generator=generator)), generator)

    @torch.no_grad()
    def decode(self, z):
        """Mean of p(x | z), `(batch, *shape)`, for pictures."""
        expect(z, (self.posterior.dim,), "z")
        return self.likelihood.mean(self.decoder(z))

    def aggregated_posterior(self, x):
        """q_agg(z) = 1/n sum_i q(z | x_i) over the given points, a density that could be the prior."""
        return AggregatedPosterior(self.posterior, self.inputs(x))

    @torch.no_grad()
    def surgery(self, x, k=1, generator=None):
        """Estimates of the parts of the mean ELBO of n points, from k samples of z each: a `Surgery`.

        q_agg is taken over the same n points, all of them: over a minibatch the mutual information is at most the log
        of its size. Costs k n^2 densities; with a flow steered by the encoder each of them is a pass of the flow.

        References:
            ELBO surgery, Hoffman, Johnson, 2016, section 2.
        """
        not_empty(x)
        z, log_q, _ = self.infer(x, self.noise(x, k, generator))
        log_agg = self.aggregated_posterior(x).log_prob(z.flatten(0, 1)).view_as(log_q)
        return _surgery(self.log_likelihood(x, z), log_q, log_agg, self.log_prior(z), torch.mean)


class Pushed(nn.Module):
    """The decoder p(x | f(z)), with f the inverse of a transform."""

    def __init__(self, transform, decoder):
        super().__init__()
        self.transform, self.decoder = transform, decoder

    def forward(self, z):
        return self.decoder(self.transform.inverse(z)[0])


def prior_twin(vae):
    """The VAE with a flow prior that is the same model as `vae` with its flow posterior, with shared parameters.

    It has the Gaussian posterior q(z0 | x), the prior of z0 that f(z0) ~ p(z) implies, and the decoder p(x | f(z0)).
    For the same noise, both ELBOs agree sample by sample.

    Raises:
        ValueError: no flow posterior, or one whose parameters depend on x: such a one has no twin.
    """
    flow = vae.posterior.flow
    if flow is None or vae.posterior.context_dim:
        raise ValueError(
            f"a twin needs a flow posterior without context, got {'none' if flow is None else 'one with context'}"
        )
    posterior, prior = Posterior(vae.posterior.encoder, vae.posterior.dim), Flow(vae.prior, Inverse(flow))
    return VAE(posterior, Pushed(flow, vae.decoder), vae.likelihood, vae.shape, prior).to(vae.like)


def mlp(n_in, n_out, hidden):
    """Fully connected network. Its last layer starts at random, or encoder and decoder would wait for each other."""
    net = MLP(n_in, n_out, hidden)
    net.layers[-1].reset_parameters()
    return net


def conv_encoder(shape, n_out, channels=32):
    """Two convolutions of stride 2 and a linear layer, from `(batch, c, h, w)` to `(batch, n_out)`."""
    c, h, w = quartered(shape)
    convolutions = [nn.Conv2d(c, channels, 4, 2, 1), nn.ReLU(), nn.Conv2d(channels, 2 * channels, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(2 * channels * h * w, n_out))


def conv_decoder(dim, n_params, shape, channels=32):
    """The mirror image of `conv_encoder`, from `(batch, dim)` to `(batch, n_params, c, h, w)`."""
    c, h, w = quartered(shape)
    return nn.Sequential(
        nn.Linear(dim, 2 * channels * h * w),
        nn.ReLU(),
        nn.Unflatten(1, (2 * channels, h, w)),
        nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, n_params * c, 4, 2, 1),
        nn.Unflatten(1, (n_params, c)),
    )


def quartered(shape):
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4:
        raise ValueError(f"shape must be (c, h, w) with h and w divisible by 4, got {tuple(shape)}")
    return shape[0], shape[1] // 4, shape[2] // 4


def vae(
    shape,
    dim=16,
    likelihood=None,
    posterior="gaussian",
    layers=4,
    context_dim=32,
    hidden=(256, 256),
    channels=0,
    prior=None,
    **more,
):
    """A VAE with fully connected or convolutional networks.

    Args:
        shape: shape of one example.
        dim: entries of z.
        likelihood: `Bernoulli()` if not given.
        posterior: "gaussian" or a name of `latents.posterior_flow`.
        layers: layers of the posterior's flow.
        context_dim: entries that the encoder gives to steer the flow; 0 for a flow that is the same for every x.
        hidden: widths of encoder and, in reverse, decoder.
        channels: if positive, convolutions with so many channels in place of `hidden`.
        prior, **more: as in `VAE`.
    """
    likelihood, flow = likelihood or Bernoulli(), None
    context_dim = 0 if posterior == "gaussian" else context_dim
    if posterior != "gaussian":
        flow = posterior_flow(posterior, dim, layers, context_dim)
    n_out, n_params = 2 * dim + context_dim, likelihood.n_params
    if channels:
        encoder, decoder = conv_encoder(shape, n_out, channels), conv_decoder(dim, n_params, shape, channels)
    else:
        size = math.prod(shape)
        encoder = nn.Sequential(nn.Flatten(), mlp(size, n_out, hidden))
        decoder = nn.Sequential(mlp(dim, n_params * size, hidden[::-1]), nn.Unflatten(1, (n_params, *shape)))
    return VAE(Posterior(encoder, dim, flow, context_dim), decoder, likelihood, shape, prior, **more)
