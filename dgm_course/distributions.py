"""Base distributions of flows, without parameters, and outputs of autoregressive models. All values in nats."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.autoregressive.common import check_classes, draw
from dgm_course.transforms.base import expect, sum_event


class Standard(nn.Module):
    """A fixed distribution with independent, identically distributed entries.

    Args:
        shape: shape of one sample, e.g. `(2,)`.
    """

    def __init__(self, shape):
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("like", torch.zeros(()), persistent=False)  # knows dtype and device of the model

    def log_prob(self, z):
        """Log-density in nats, `(batch, *shape)` to `(batch,)`."""
        expect(z, self.shape, "z")
        return sum_event(self.log_density(z))

    def entropy(self):
        """Differential entropy of one sample in nats, a number."""
        return math.prod(self.shape) * self.entry_entropy

    def sample(self, n, generator=None, temperature=1.0):
        """Samples `(n, *shape)`, drawn with `generator` and multiplied by `temperature`."""
        u = torch.empty(n, *self.shape, dtype=self.like.dtype, device=self.like.device)
        return temperature * self.draw(u, generator)


class StandardNormal(Standard):
    """N(0, I)."""

    entry_entropy = 0.5 * math.log(2 * math.pi * math.e)

    def log_density(self, z):
        return -0.5 * (z**2 + math.log(2 * math.pi))

    def draw(self, out, generator):
        return out.normal_(generator=generator)


class StandardLogistic(Standard):
    """Logistic distribution with location 0 and scale 1, the base of NICE: p(z) = sigmoid(z) sigmoid(-z)."""

    entry_entropy = 2.0

    def log_density(self, z):
        return -F.softplus(z) - F.softplus(-z)

    def draw(self, out, generator):
        return logistic_(out, generator)


def logistic_(out, generator=None):
    """Standard logistic noise in the shape, dtype and device of `out`, whose entries are lost."""
    u = out.uniform_(generator=generator).clamp(torch.finfo(out.dtype).tiny, 1 - torch.finfo(out.dtype).eps)
    return u.log() - (-u).log1p()


class LogisticMixture:
    """Mixture of logistic distributions on the whole line: sum_k softmax(logits)_k Logistic(mean_k, exp(log_scale_k)).

    Log-scales are held within -80 ... 80, where float32 still has their exponential.

    Args:
        logits, mean, log_scale: `(..., k)`, one entry for each of k components; shapes that broadcast.
    """

    def __init__(self, logits, mean, log_scale):
        self.logits, self.mean, self.log_scale = torch.broadcast_tensors(logits, mean, log_scale.clamp(-80, 80))

    def log_prob(self, x):
        """Log-density in nats, `(...)` to `(...)`, differentiable in x too."""
        z = (x[..., None] - self.mean) * (-self.log_scale).exp()
        return self.mix(-F.softplus(z) - F.softplus(-z) - self.log_scale)

    def mix(self, log_prob):
        return (self.logits.log_softmax(-1) + log_prob).logsumexp(-1)

    def sample(self, generator=None, temperature=1.0):
        """Samples `(...)`. The temperature divides the logits and multiplies the scales; at 0 a component's mean."""
        k = draw(self.logits, temperature, generator)[..., None]
        mean, log_scale = self.mean.gather(-1, k)[..., 0], self.log_scale.gather(-1, k)[..., 0]
        return mean + temperature * log_scale.exp() * logistic_(torch.empty_like(mean), generator)


class DiscretizedLogisticMixture(LogisticMixture):
    """Mixture of logistics over the integers 0 ... levels-1, which stand for `levels` even steps from -1 to 1.

    An integer's probability is what the mixture has within half a step of it; the first and the last integer's bins
    reach to infinity. With h half a step, a bin (b, a) = ((x - h - mean) / scale, (x + h - mean) / scale) has
    log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)), where nothing cancels.

    References:
        PixelCNN++, Salimans et al., 2017, equation 2; Improved Variational Inference with Inverse Autoregressive Flow,
        Kingma et al., 2016, section 5.1.

    Args:
        logits, mean, log_scale: `(..., k)`, in units of the line from -1 to 1.
        levels: size of the alphabet.
    """

    def __init__(self, logits, mean, log_scale, levels=256):
        super().__init__(logits, mean, log_scale)
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.levels = levels

    def log_prob(self, x):
        """Log-probability in nats of integers, `(...)` to `(...)`.

        Raises:
            TypeError: x is not a tensor of integers.
            ValueError: x has values outside 0 ... levels-1.
        """
        x, last = check_classes(x[None], x.shape, self.levels)[0][..., None], self.levels - 1
        center = (2 * x.to(self.mean) / last - 1) - self.mean
        inverse_scale, log_width = (-self.log_scale).exp(), math.log(2 / last) - self.log_scale
        a, b, width = (center + 1 / last) * inverse_scale, (center - 1 / last) * inverse_scale, log_width.exp()
        series = log_width - width / 2 + width**2 / 24  # of log(1 - exp(-width)), right also where width underflows
        inside = torch.where(width < 1e-3, series, (-(-width.clamp(min=1e-3)).expm1()).log())
        zero = torch.zeros_like(a)
        return self.mix(
            torch.where(x < last, F.logsigmoid(a), zero)
            + torch.where(x > 0, F.logsigmoid(-b), zero)
            + torch.where((x > 0) & (x < last), inside, zero)
        )

    def sample(self, generator=None, temperature=1.0):
        """Integers `(...)`: samples of the continuous mixture, each moved to the nearest step."""
        x = super().sample(generator, temperature).clamp(-2, 2)
        return ((x + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1).long()


class DiscretizedLogistic(DiscretizedLogisticMixture):
    """One logistic distribution over the integers 0 ... levels-1; `mean` and `log_scale` of shape `(...)`."""

    def __init__(self, mean, log_scale, levels=256):
        super().__init__(torch.zeros_like(mean)[..., None], mean[..., None], log_scale[..., None], levels)
