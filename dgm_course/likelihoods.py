"""Likelihoods p(x | z) of a VAE: how each entry of x is distributed, given what the decoder gives for it. In nats.

A likelihood has `n_params` numbers for each entry, `(batch, n_params, *shape)`, and with them `log_prob(x, params)`,
`mean(params)` and `sample(params, generator=None)`, each `(batch, *shape)`.
"""

import math

import torch
from torch.nn import functional as F

from dgm_course.autoregressive.common import draw
from dgm_course.bounds import integers, normal
from dgm_course.distributions import DiscretizedLogistic
from dgm_course.latents import log_normal
from dgm_course.transforms.base import expect


class Discrete:
    """What the likelihoods of integers 0 ... levels-1 share: the check of x, and the encoder's input, from -1 to 1."""

    def check(self, x, shape):
        return integers(x, shape, self.levels)

    def inputs(self, x):
        return 2 * x / (self.levels - 1) - 1


class Bernoulli(Discrete):
    """Zeros and ones; the decoder gives the logit of each."""

    levels, n_params = 2, 1

    def log_prob(self, x, params):
        (logit,) = params.unbind(1)
        return x * logit - F.softplus(logit)

    def mean(self, params):
        return torch.sigmoid(params[:, 0])

    def sample(self, params, generator=None):
        return draw(F.pad(params.movedim(1, -1), (1, 0)), generator=generator)


class Logistic(Discrete):
    """Discretized logistic; the decoder gives mean and log-scale on the line from -1 to 1.

    References:
        Improved Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, section 5.1.
    """

    n_params = 2

    def __init__(self, levels=256):
        self.levels = levels

    def distribution(self, params):
        return DiscretizedLogistic(*params.unbind(1), self.levels)

    def log_prob(self, x, params):
        return self.distribution(params).log_prob(x)

    def mean(self, params):
        """The location, in 0 ... levels-1; for one near an end not quite the mean of the discretized distribution."""
        return ((params[:, 0] + 1) / 2 * (self.levels - 1)).clamp(0, self.levels - 1)

    def sample(self, params, generator=None):
        return self.distribution(params).sample(generator)


class Categorical(Discrete):
    """One logit for each of `levels` integers."""

    def __init__(self, levels=256):
        self.levels = self.n_params = levels

    def log_prob(self, x, params):
        return params.log_softmax(1).gather(1, x[:, None])[:, 0]

    def mean(self, params):
        levels = torch.arange(self.levels, dtype=params.dtype, device=params.device)
        return (params.softmax(1).movedim(1, -1) * levels).sum(-1)

    def sample(self, params, generator=None):
        return draw(params.movedim(1, -1), generator=generator)


class Gaussian:
    """Real numbers; the decoder gives the mean, and the log-scale too unless `scale` fixes it.

    Args:
        scale: standard deviation of every entry, or None.
    """

    def __init__(self, scale=None):
        if scale is not None and not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale, self.n_params = scale, 2 if scale is None else 1

    def check(self, x, shape):
        expect(x, shape)
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"x has {int((~torch.isfinite(x)).sum())} entries that are NaN or infinite")
        return x

    def inputs(self, x):
        return x

    def split(self, params):
        mean = params[:, 0]
        return mean, params[:, 1] if self.scale is None else torch.full_like(mean, math.log(self.scale))

    def log_prob(self, x, params):
        return log_normal(x, *self.split(params))

    def mean(self, params):
        return params[:, 0]

    def sample(self, params, generator=None):
        mean, log_scale = self.split(params)
        return mean + log_scale.exp() * normal(mean.shape, mean, generator)
