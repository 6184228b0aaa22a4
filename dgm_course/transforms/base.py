"""Invertible transforms: the common face, composition, and turning one round."""

from torch import nn

from dgm_course.nn import expect


class Transform(nn.Module):
    """An invertible map from data x to latent z.

    `z, log_det = transform(x)` and `x, log_det = transform.inverse(z)`, where `log_det` of shape `(batch,)` is log|det|
    of the Jacobian of the map that was called, in nats. So a density reads log p(x) = log p(z) + log|det dz/dx|.
    """

    def forward(self, x, context=None):
        raise TypeError(f"{type(self).__name__} does not define forward")

    def inverse(self, z, context=None):
        raise TypeError(f"{type(self).__name__} does not define inverse")


class Compose(Transform):
    """Applies transforms from first to last; the log-dets add up (chain rule)."""

    def __init__(self, *transforms):
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x, context=None):
        expect(x, (...,))
        total = x.new_zeros(x.shape[0])
        for transform in self.transforms:
            x, log_det = transform(x, context)
            total = total + log_det
        return x, total

    def inverse(self, z, context=None):
        expect(z, (...,), "z")
        total = z.new_zeros(z.shape[0])
        for transform in reversed(self.transforms):
            z, log_det = transform.inverse(z, context)
            total = total + log_det
        return z, total


class Inverse(Transform):
    """Turns a transform round: its `forward` is the given transform's `inverse`."""

    def __init__(self, transform):
        super().__init__()
        self.transform = transform

    def forward(self, x, context=None):
        return self.transform.inverse(x, context)

    def inverse(self, z, context=None):
        return self.transform(z, context)


def sum_event(x):
    """Sums over every dimension but the first: `(batch, ...)` to `(batch,)`."""
    return x.flatten(1).sum(1)
