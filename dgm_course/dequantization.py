"""Dequantization: a continuous density as a model of integers.

    P(x) = integral over u in [0, 1]^m of p(x + u)

With noise u from q(u | x), log p(x + u) - log q(u | x) is in expectation a lower bound on log P(x). Uniform
dequantization takes q = 1; variational dequantization learns q, from a family that contains the uniform one.

References:
    A note on the evaluation of generative models, Theis, van den Oord, Bethge, 2016, section 3.1.
    Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design, Ho et al.,
    2019, section 3.1.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.bounds import Bound, integers
from dgm_course.distributions import StandardLogistic
from dgm_course.nn import MLP, ResidualConvNet
from dgm_course.transforms import Compose, MaskedCoupling, checkerboard_mask
from dgm_course.transforms.base import sum_event


class UniformNoise(nn.Module):
    """q(u | x) = 1 on [0, 1]^m."""

    def sample(self, x, n=1, generator=None):
        """Noise for x `(batch, *shape)`, floats from -1 to 1: u `(n, batch, *shape)` and log q(u | x) `(n, batch)`."""
        device = x.device if generator is None else generator.device
        u = torch.rand((n, *x.shape), generator=generator, dtype=x.dtype, device=device).to(x.device)
        return u, x.new_zeros(n, len(x))

    def log_prob(self, u, x):
        """log q(u | x), `(batch,)` in nats, for u inside the cube."""
        in_cube(u)
        return x.new_zeros(len(x))


class VariationalNoise(nn.Module):
    """q(u | x): a flow that sees x, then a sigmoid: u = sigmoid(v), v from standard logistic noise.

    The sigmoid of logistic noise is uniform, and the networks start at zero: q starts as exactly the uniform one. The
    flow has masked affine couplings: the first keeps nothing, so it moves and scales every entry as x says, and then
    checkerboards take turns.

    Args:
        shape: shape `(m,)` or `(c, h, w)` of one example.
        layers: couplings, at least one.
        hidden: width of the networks.
        bound: soft limit of each log-scale.
    """

    def __init__(self, shape, layers=4, hidden=32, bound=3.0):
        super().__init__()
        self.shape = shape = tuple(shape)
        if len(shape) not in (1, 3) or layers < 1:
            raise ValueError(f"shape must be (m,) or (c, h, w) and layers at least 1, got {shape} and {layers}")
        self.base, couplings = StandardLogistic(shape), []
        for i in range(layers):
            if len(shape) == 1:
                board = (torch.arange(shape[0]) + i) % 2
                net = MLP(shape[0], 2 * shape[0], (hidden, hidden), context_dim=shape[0])
            else:
                board, net = checkerboard_mask(*shape[1:], swap=i % 2 == 1), SeesImage(shape[0], hidden)
            couplings.append(MaskedCoupling(board * (i > 0), net, bound))
        self.flow = Compose(*couplings)

    def sample(self, x, n=1, generator=None):
        """Noise for x `(batch, *shape)`, floats from -1 to 1: u `(n, batch, *shape)` and log q(u | x) `(n, batch)`.

        Gradients pass through the samples (reparameterization).
        """
        z = self.base.sample(n * len(x), generator)
        v, log_det = self.flow.inverse(z, x.repeat(n, *[1] * (x.dim() - 1)))
        log_q = self.base.log_prob(z) - log_det + sum_event(F.softplus(v) + F.softplus(-v))
        return torch.sigmoid(v).unflatten(0, (n, len(x))), log_q.unflatten(0, (n, len(x)))

    def log_prob(self, u, x):
        """log q(u | x), `(batch,)` in nats, for u inside the cube."""
        in_cube(u)
        v = u.log() - (-u).log1p()
        z, log_det = self.flow(v, x)
        return self.base.log_prob(z) + log_det + sum_event(F.softplus(v) + F.softplus(-v))


def in_cube(u):
    if not bool(((u > 0) & (u < 1)).all()):
        raise ValueError(f"u must lie inside (0, 1), got values from {u.min().item():g} to {u.max().item():g}")


class SeesImage(nn.Module):
    """Coupling network whose context is an image: it is stacked on the kept part."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.net = ResidualConvNet(2 * channels, 2 * channels, hidden, blocks=1)

    def forward(self, kept, context):
        return self.net(torch.cat([kept, context], dim=1))


class Dequantized(Bound):
    """A model of integers: a continuous flow of (x + u) / scale, with noise u from q(u | x).

    All values are nats of the integers, -m log(scale) included; so bits/dim are
    `metrics.evaluate(model, x, metrics.discrete(...)).bits_per_dim`, without noise or scale in the convention.

    Args:
        flow: a `Flow`, or what has its `log_prob` and `sample`; for pixels start its transform with a `Logit`.
        shape: shape of one example.
        levels: integers run over 0 ... levels-1.
        noise: `UniformNoise()`, the default, or `VariationalNoise(shape)`.
        scale: what x + u is divided by; None for `levels`, which brings it to [0, 1].
    """

    def __init__(self, flow, shape, levels=256, noise=None, scale=None):
        super().__init__()
        self.flow, self.shape, self.levels = flow, tuple(shape), levels
        self.noise, self.scale = noise or UniformNoise(), float(scale or levels)
        self.register_buffer("like", torch.zeros(()), persistent=False)  # knows dtype and device of the model

    def log_weights(self, x, k, generator=None, context=None):
        """log p(x + u) - log q(u | x) for k draws of noise, `(k, batch)` in nats.

        Args:
            x: integers `(batch, *shape)`, or floats with whole values.
            k: draws of noise for each x.
            generator: of the noise.
            context: conditioning variables of the flow, `(batch, context_dim)`, if it takes any.

        Raises:
            ValueError: wrong shape, values outside 0 ... levels-1.
            TypeError: no tensor, or floats that are not whole.
        """
        x = integers(x, self.shape, self.levels).to(self.like)
        u, log_q = self.noise.sample(2 * x / (self.levels - 1) - 1, k, generator)
        context = None if context is None else context.repeat(k, 1)
        log_p = self.flow.log_prob(self.join(x, u).flatten(0, 1), context).unflatten(0, (k, len(x)))
        return log_p - x[:1].numel() * math.log(self.scale) - log_q

    def join(self, x, u):
        """(x + u) / scale. Rounding may bring x + u to x + 1: it stays inside the pixel's own interval."""
        return torch.minimum(x + u, torch.nextafter(x + 1, x)) / self.scale

    @torch.no_grad()
    def sample(self, n, context=None, generator=None):
        """Integers `(n, *shape)`: samples of the flow rounded down; those outside the range are moved to its end."""
        return (self.flow.sample(n, context, generator) * self.scale).floor().clamp(0, self.levels - 1).long()
