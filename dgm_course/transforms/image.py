"""Transforms for images: logit preprocessing, squeeze, masks and the multi-scale architecture.

References:
    Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, sections 3.4, 3.6 and 4.1.
"""

import copy
import math

import torch
from torch.nn import functional as F

from dgm_course.transforms.base import Transform, expect, sum_event


class Logit(Transform):
    """Maps [0, 1] to the real line: z = logit(alpha + (1 - 2 alpha) x), so that a Gaussian base can fit pixels.

    Args:
        alpha: keeps the argument of the logit away from 0 and 1.
    """

    def __init__(self, alpha=0.05):
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha}")
        self.alpha = alpha

    def forward(self, x, context=None):
        expect(x, (...,))
        if x.numel() and not (bool(x.min() >= 0) and bool(x.max() <= 1)):  # so that NaN is refused too
            raise ValueError(f"x must lie in [0, 1], got values from {x.min().item():g} to {x.max().item():g}")
        p = self.alpha + (1 - 2 * self.alpha) * x
        z = p.log() - (-p).log1p()
        return z, sum_event(self._log_slope(z))

    def inverse(self, z, context=None):
        expect(z, (...,), "z")
        x = (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)
        return x, -sum_event(self._log_slope(z))

    def _log_slope(self, z):
        """log dz/dx, written with softplus so that it stays finite where p (1 - p) rounds to zero."""
        return math.log(1 - 2 * self.alpha) + F.softplus(z) + F.softplus(-z)


class Squeeze(Transform):
    """Trades space for channels: `(batch, c, h, w)` to `(batch, 4c, h/2, w/2)`; log-det 0.

    Each channel becomes four neighbouring ones, in the order (row 0, column 0), (0, 1), (1, 0), (1, 1) of its 2x2
    blocks.
    """

    def forward(self, x, context=None):
        expect(x, (None, None, None))
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"height and width must be even to squeeze, got {tuple(x.shape[2:])}")
        quarters = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]  # each (batch, c, h/2, w/2)
        return torch.stack(quarters, dim=2).flatten(1, 2), x.new_zeros(len(x))

    def inverse(self, z, context=None):
        expect(z, (None, None, None), "z")
        if z.shape[1] % 4:
            raise ValueError(f"the number of channels must be a multiple of 4 to unsqueeze, got {z.shape[1]}")
        b, c, h, w = z.shape
        x = z.new_empty(b, c // 4, 2 * h, 2 * w)
        for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            x[:, :, i::2, j::2] = z[:, k::4]
        return x, z.new_zeros(b)


def checkerboard_mask(height, width, swap=False):
    """Mask `(1, height, width)` that is 1 where row + column is even (odd if `swap`)."""
    rows, cols = torch.arange(height)[:, None], torch.arange(width)
    return ((rows + cols + int(not swap)) % 2)[None].to(torch.get_default_dtype())


def channel_mask(channels, swap=False):
    """Mask `(channels, 1, 1)` that is 1 for the first half of the channels (the second half if `swap`)."""
    first = (torch.arange(channels) < channels - channels // 2).to(torch.get_default_dtype())
    return (1 - first if swap else first)[:, None, None]


class MultiScale(Transform):
    """Multi-scale architecture: after each level half of the channels leave as latents, the other half goes on.

    The latents of all levels are flattened and joined, so z has shape `(batch, c * h * w)`. Early latents stand first.

    Args:
        shape: shape `(c, h, w)` of x.
        levels: transforms, one for each level; each may change the shape (a squeeze, say), but not the size.
        context_dim: entries of the `context` that the levels take; 0 for none.
    """

    def __init__(self, shape, levels, context_dim=0):
        super().__init__()
        self.shape = tuple(shape)
        self.levels = torch.nn.ModuleList(levels)
        self.leaving = self._leaving_shapes(torch.zeros(1, context_dim) if context_dim else None)

    @torch.no_grad()
    def _leaving_shapes(self, context):
        """Shapes of the latents that leave at each level, found by sending one image of zeros through."""
        shapes, x, levels = [], torch.zeros(1, *self.shape), copy.deepcopy(self.levels)
        for module in levels.modules():
            if hasattr(module, "initialized"):  # an actnorm: zeros must not initialize it
                module.initialized.fill_(True)
        for level in levels[:-1]:
            x = level(x, context)[0]
            if x.shape[1] % 2:
                raise ValueError(f"a level must end with an even number of channels to split, got {x.shape[1]}")
            leaving, x = x.chunk(2, dim=1)
            shapes.append(tuple(leaving.shape[1:]))
        return [*shapes, tuple(levels[-1](x, context)[0].shape[1:])]

    def forward(self, x, context=None):
        expect(x, self.shape)
        latents, total = [], x.new_zeros(x.shape[0])
        for i, level in enumerate(self.levels):
            x, log_det = level(x, context)
            total = total + log_det
            if i < len(self.levels) - 1:
                leaving, x = x.chunk(2, dim=1)
                latents.append(leaving.flatten(1))
        return torch.cat([*latents, x.flatten(1)], dim=1), total

    def inverse(self, z, context=None):
        expect(z, (math.prod(self.shape),), "z")
        latents = [
            part.reshape(len(z), *shape)
            for part, shape in zip(z.split([math.prod(s) for s in self.leaving], dim=1), self.leaving, strict=True)
        ]
        total, x = z.new_zeros(z.shape[0]), latents[-1]
        for i in reversed(range(len(self.levels))):
            if i < len(self.levels) - 1:
                x = torch.cat([latents[i], x], dim=1)
            x, log_det = self.levels[i].inverse(x, context)
            total = total + log_det
        return x, total
