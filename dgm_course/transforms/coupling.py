"""Coupling layers: one part of x stays as it is and steers an elementwise map of the other part.

    z_a = x_a,    z_b = tau(x_b, c(x_a))

`tau` is the coupling law (invertible in its first argument), `c` the coupling function (any network). Density and
sampling both take one pass. The Jacobian is block triangular, so its log-det is the sum of log|d tau / d x_b|.

References:
    NICE: Non-linear Independent Components Estimation, Dinh, Krueger, Bengio, 2015, section 3.2.
    Density estimation using Real NVP, Dinh, Sohl-Dickstein, Bengio, 2017, equations 4 to 9.
"""

import torch

from dgm_course.transforms.base import Transform, expect, sum_event


class Additive:
    """Coupling law tau(x, c) = x + c. It preserves volume: log-det 0."""

    n_params = 1

    def forward(self, x, c):
        return x + c, x.new_zeros(x.shape[0])

    def inverse(self, z, c):
        return z - c, z.new_zeros(z.shape[0])


class Affine:
    """Coupling law tau(x, (s, t)) = x * exp(s) + t; log-det = sum(s).

    Args:
        bound: s is softly clamped to (-bound, bound), so that no input can overflow the exponential.
    """

    n_params = 2

    def __init__(self, bound=3.0):
        self.bound = bound

    def split(self, c):
        """Log-scale s and translation t from the output of the coupling function."""
        s, t = c.chunk(2, dim=1)
        return self.bound * torch.tanh(s / self.bound), t

    def forward(self, x, c):
        s, t = self.split(c)
        return x * s.exp() + t, sum_event(s)

    def inverse(self, z, c):
        s, t = self.split(c)
        return (z - t) * (-s).exp(), -sum_event(s)


class Coupling(Transform):
    """Coupling layer that splits along dimension 1: entries of a vector or channels of an image.

    Args:
        n: number of entries (channels); the first `n - n // 2` are one part, the rest the other.
        conditioner: the coupling function c, called as `conditioner(x_a, context)`. For a transformed part of m entries
            it must return `law.n_params * m` of them.
        law: `Additive()` or `Affine()`.
        swap: if True the second part is kept and the first is transformed.
    """

    def __init__(self, n, conditioner, law, swap=False):
        super().__init__()
        if n < 2:
            raise ValueError(f"a coupling layer needs at least two entries to split, got {n}")
        self.sizes = [n - n // 2, n // 2]
        self.conditioner, self.law, self.swap = conditioner, law, swap

    def _apply_law(self, tau, x, context):
        first, second = x.split(self.sizes, dim=1)
        if self.swap:
            first, log_det = tau(first, self.conditioner(second, context))
        else:
            second, log_det = tau(second, self.conditioner(first, context))
        return torch.cat([first, second], dim=1), log_det

    def forward(self, x, context=None):
        expect(x, (sum(self.sizes), ...))
        return self._apply_law(self.law.forward, x, context)

    def inverse(self, z, context=None):
        expect(z, (sum(self.sizes), ...), "z")
        return self._apply_law(self.law.inverse, z, context)


class MaskedCoupling(Transform):
    """Coupling layer with a binary mask b (1 = kept), the form of RealNVP for images:

        z = b * x + (1 - b) * (x * exp(s(b * x)) + t(b * x)),    log-det = sum((1 - b) * s)

    It allows any partition (a checkerboard, say), at the price of computing the law for the kept entries too.

    Args:
        mask: tensor of zeros and ones of the event's shape, or one that broadcasts to it, e.g. `(1, h, w)`.
        conditioner: called as `conditioner(b * x, context)`; returns 2 times as many channels as x.
        bound: as in `Affine`.
    """

    def __init__(self, mask, conditioner, bound=3.0):
        super().__init__()
        mask = torch.as_tensor(mask, dtype=torch.get_default_dtype())
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError("mask must hold zeros and ones only")
        self.register_buffer("mask", mask)
        self.shape = tuple(None if n == 1 else n for n in mask.shape)
        self.conditioner, self.law = conditioner, Affine(bound)

    def _params(self, kept, context):
        s, t = self.law.split(self.conditioner(kept, context))
        return s * (1 - self.mask), t * (1 - self.mask)

    def forward(self, x, context=None):
        expect(x, self.shape)
        s, t = self._params(self.mask * x, context)
        return x * s.exp() + t, sum_event(s)  # s = t = 0 where the mask is 1

    def inverse(self, z, context=None):
        expect(z, self.shape, "z")
        s, t = self._params(self.mask * z, context)
        return (z - t) * (-s).exp(), -sum_event(s)
