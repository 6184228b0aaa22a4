"""Linear transforms with a cheap determinant: permutations and diagonal scalings."""

import torch
from torch import nn

from dgm_course.transforms.base import Transform, expect


class Permute(Transform):
    """Reorders the entries of a vector (or the channels of an image): z_i = x_{order[i]}; log-det 0.

    Args:
        order: a permutation of 0 ... n-1.
    """

    def __init__(self, order):
        super().__init__()
        order = torch.as_tensor(order)
        if sorted(order.tolist()) != list(range(len(order))):
            raise ValueError(f"order must be a permutation of 0 ... {len(order) - 1}, got {order.tolist()}")
        self.register_buffer("order", order)
        self.register_buffer("back", torch.argsort(order))

    @classmethod
    def parity(cls, n):
        """Even positions first, then odd ones: the partition of NICE."""
        return cls(torch.cat([torch.arange(0, n, 2), torch.arange(1, n, 2)]))

    def forward(self, x, context=None):
        expect(x, (len(self.order), ...))
        return x.index_select(1, self.order), x.new_zeros(x.shape[0])

    def inverse(self, z, context=None):
        expect(z, (len(self.order), ...), "z")
        return z.index_select(1, self.back), z.new_zeros(z.shape[0])


class Rescale(Transform):
    """Learned diagonal scaling of a vector, z = exp(log_scale) * x; log-det = sum(log_scale).

    NICE needs it because its coupling layers preserve volume.

    Args:
        dim: entries of the vector.
        scale: positive starting values `(dim,)`; ones if not given.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh, Krueger, Bengio, 2015, section 3.3.
    """

    def __init__(self, dim, scale=None):
        super().__init__()
        start = torch.ones(dim) if scale is None else torch.as_tensor(scale)
        if start.shape != (dim,) or not bool((start > 0).all()):
            raise ValueError(f"scale must be positive and of shape ({dim},), got {scale}")
        self.log_scale = nn.Parameter(start.log())

    def forward(self, x, context=None):
        expect(x, tuple(self.log_scale.shape))
        return x * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def inverse(self, z, context=None):
        expect(z, tuple(self.log_scale.shape), "z")
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(z.shape[0])


class Standardize(Transform):
    """Fixed shift and scale, z = (x - mean) / std, with mean and std taken from data.

    Args:
        x: training data `(n, ...)`; mean and std are computed for each entry.
        min_std: lower limit of std, for entries that (almost) never change.
    """

    def __init__(self, x, min_std=1e-2):
        super().__init__()
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("std", x.std(0).clamp(min=min_std))

    def forward(self, x, context=None):
        expect(x, tuple(self.mean.shape))
        return (x - self.mean) / self.std, -self.std.log().sum().expand(x.shape[0])

    def inverse(self, z, context=None):
        expect(z, tuple(self.mean.shape), "z")
        return z * self.std + self.mean, self.std.log().sum().expand(z.shape[0])
