"""Base distributions of flows: no parameters, any event shape, values in nats."""

import math

import torch
from torch import nn
from torch.nn import functional as F

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
        u = out.uniform_(generator=generator).clamp(torch.finfo(out.dtype).tiny, 1 - torch.finfo(out.dtype).eps)
        return u.log() - (-u).log1p()
