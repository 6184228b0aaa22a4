"""Parts of Glow: actnorm and invertible 1x1 convolution, for vectors `(batch, n)` and images `(batch, n, h, w)`.

References:
    Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma, Dhariwal, 2018, sections 3.1 to 3.3.
"""

import torch
from torch import nn

from dgm_course.transforms.base import Transform, expect


class ActNorm(Transform):
    """Scale and shift for each channel, z = exp(log_scale) * x + shift; log-det = h * w * sum(log_scale).

    The first batch that comes forward in training mode sets both, so that z has mean 0 and variance 1 per channel.
    In evaluation mode, or backwards, nothing is initialized: before the first training batch that is an error.

    Args:
        n: entries of the vector (channels of the image).
        data_init: if False the layer starts as the identity, and no batch initializes it.
    """

    def __init__(self, n, data_init=True):
        super().__init__()
        self.log_scale, self.shift = nn.Parameter(torch.zeros(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("initialized", torch.tensor(not data_init))

    @torch.no_grad()
    def initialize(self, x):
        """Sets scale and shift from a batch of at least two values per channel.

        Raises:
            ValueError: too few or non-finite values.
        """
        values = x.transpose(0, 1).flatten(1)  # (n, batch * h * w)
        if values.shape[1] < 2 or not bool(torch.isfinite(values).all()):
            raise ValueError(f"actnorm starts from at least two finite values per channel, got x {tuple(x.shape)}")
        std = values.std(1).clamp(min=1e-6)  # a constant channel stays finite
        self.log_scale.copy_(-std.log())
        self.shift.copy_(-values.mean(1) / std)
        self.initialized.fill_(True)

    def _columns(self, x):
        """log_scale and shift that broadcast against x, and the number of pixels."""
        if not bool(self.initialized):
            raise RuntimeError("actnorm is not initialized: send one batch of data forward in training mode first")
        shape = (-1, *[1] * (x.dim() - 2))
        return self.log_scale.reshape(shape), self.shift.reshape(shape), x.shape[2:].numel()

    def forward(self, x, context=None):
        expect(x, (len(self.shift), ...))
        if self.training and not bool(self.initialized):
            self.initialize(x)
        log_scale, shift, pixels = self._columns(x)
        return x * log_scale.exp() + shift, (pixels * self.log_scale.sum()).expand(len(x))

    def inverse(self, z, context=None):
        expect(z, (len(self.shift), ...), "z")
        log_scale, shift, pixels = self._columns(z)
        return (z - shift) * (-log_scale).exp(), -(pixels * self.log_scale.sum()).expand(len(z))


class InvertibleConv1x1(Transform):
    """The same square matrix W at every pixel, z = W x; log-det = h * w * log|det W|. W starts as a random rotation.

    Args:
        n: number of channels.
        lu: if True W = P L (U + diag(s)) with a fixed permutation P, which makes the log-det a sum over log|s|, and an
            inverse out of two triangular systems; log|s| is the parameter, so that W cannot become singular.
    """

    def __init__(self, n, lu=False):
        super().__init__()
        self.n, self.lu = n, lu
        rotation = torch.linalg.qr(torch.randn(n, n))[0]
        if not lu:
            self.weight = nn.Parameter(rotation)
            return
        p, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", p)
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(diagonal.abs().log())

    def factors(self):
        """L and U with their diagonals (for `lu=True`)."""
        eye = torch.eye(self.n, dtype=self.lower.dtype, device=self.lower.device)
        return self.lower.tril(-1) + eye, self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())

    def matrix(self):
        """W `(n, n)`."""
        if not self.lu:
            return self.weight
        lower, upper = self.factors()
        return self.permutation @ lower @ upper

    def _log_det(self, x):
        one = self.log_s.sum() if self.lu else torch.linalg.slogdet(self.weight).logabsdet
        if not bool(torch.isfinite(one)):
            raise RuntimeError(f"the 1x1 convolution is singular: log|det W| = {one.item():g}")
        return (x.shape[2:].numel() * one).expand(len(x))

    def forward(self, x, context=None):
        expect(x, (self.n, ...))
        z = torch.einsum("ij,bj...->bi...", self.matrix(), x)
        return z, self._log_det(x)

    def inverse(self, z, context=None):
        expect(z, (self.n, ...), "z")
        log_det = self._log_det(z)  # raises where W is singular, before the solve
        columns = z.transpose(0, 1).flatten(1)
        if self.lu:
            lower, upper = self.factors()
            columns = torch.linalg.solve_triangular(
                lower, self.permutation.T @ columns, upper=False, unitriangular=True
            )
            columns = torch.linalg.solve_triangular(upper, columns, upper=True)
        else:
            columns = torch.linalg.solve(self.weight, columns)  # more exact than a product with the inverse matrix
        return columns.unflatten(1, (len(z), *z.shape[2:])).transpose(0, 1), -log_det
