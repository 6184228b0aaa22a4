"""Networks that know the time: called as `net(x, t, context=None)`, with t of shape (batch,) in [0, 1]."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.nn import MLP, check_context, zero_
from dgm_course.transforms.base import expect


def time_features(t, n=8):
    """Sines and cosines of t at n frequencies from 1 to 100, `(batch,)` to `(batch, 2 n)`.

    Higher frequencies would make the velocity of an ODE rough in time.

    References:
        Attention Is All You Need, Vaswani et al., 2017, section 3.5 (positional encoding).
    """
    frequencies = torch.logspace(0, 2, n, dtype=t.dtype, device=t.device)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeMLP(nn.Module):
    """Fully connected network of x and time, `(batch, dim)` to the same shape; it starts at zero.

    Args:
        dim: entries of x.
        hidden: widths of the hidden layers.
        context_dim: entries of `context`; 0 for none.
        frequencies: of the `time_features`.
    """

    def __init__(self, dim, hidden=(128, 128, 128), context_dim=0, frequencies=8):
        super().__init__()
        self.context_dim, self.frequencies = context_dim, frequencies
        self.net = MLP(dim, dim, hidden, 2 * frequencies + context_dim, nn.SiLU)

    def forward(self, x, t, context=None):
        check_context(context, self.context_dim, len(x))
        known = [time_features(t, self.frequencies)] + ([] if context is None else [context])
        return self.net(x, torch.cat(known, dim=1))


class TimeUNet(nn.Module):
    """Small U-Net of images and time, `(batch, c, h, w)` to the same shape; it starts at zero.

    Two times down and up again, with skip connections; time and context shift the channels of every block. No
    attention.

    Args:
        shape: `(c, h, w)`; height and width divisible by 4.
        hidden: channels at full size (twice as many below), divisible by 8.
        context_dim: entries of `context`; 0 for none.
        frequencies: of the `time_features`.

    References:
        U-Net, Ronneberger, Fischer, Brox, 2015.
        Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020, appendix B.
    """

    def __init__(self, shape, hidden=32, context_dim=0, frequencies=8):
        super().__init__()
        c, h, w = shape
        if h % 4 or w % 4 or hidden % 8:
            raise ValueError(f"height and width must be divisible by 4, hidden by 8, got {(h, w)} and {hidden}")
        self.shape, self.context_dim, self.frequencies = tuple(shape), context_dim, frequencies
        known, wide = 4 * hidden, 2 * hidden
        self.embed = nn.Sequential(
            nn.Linear(2 * frequencies + context_dim, known), nn.SiLU(), nn.Linear(known, known), nn.SiLU()
        )
        self.first = nn.Conv2d(c, hidden, 3, padding=1)
        self.down = nn.ModuleList([_Block(hidden, hidden, known), _Block(hidden, wide, known)])
        self.middle = _Block(wide, wide, known)
        self.up = nn.ModuleList([_Block(2 * wide, wide, known), _Block(wide + hidden, hidden, known)])
        self.last = nn.Sequential(nn.GroupNorm(8, hidden), nn.SiLU(), zero_(nn.Conv2d(hidden, c, 3, padding=1)))

    def forward(self, x, t, context=None):
        expect(x, self.shape)
        check_context(context, self.context_dim, len(x))
        known = [time_features(t, self.frequencies)] + ([] if context is None else [context])
        known = self.embed(torch.cat(known, dim=1))
        h, skips = self.first(x), []
        for block in self.down:
            skips.append(block(h, known))
            h = F.avg_pool2d(skips[-1], 2)
        h = self.middle(h, known)
        for block in self.up:
            h = block(torch.cat([F.interpolate(h, scale_factor=2.0), skips.pop()], dim=1), known)
        return self.last(h)


class _Block(nn.Module):
    """Residual block of two 3x3 convolutions, the first one's channels shifted by what is known."""

    def __init__(self, c_in, c_out, n_known):
        super().__init__()
        self.one = nn.Sequential(nn.GroupNorm(8, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.shift = nn.Linear(n_known, c_out)
        self.two = nn.Sequential(nn.GroupNorm(8, c_out), nn.SiLU(), nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x, known):
        return (self.skip(x) + self.two(self.one(x) + self.shift(known)[:, :, None, None])) / math.sqrt(2)
