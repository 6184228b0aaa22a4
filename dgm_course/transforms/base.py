"""Invertible transforms: the common face, composition, and turning one round."""

import torch
from torch import nn


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


def expect(x, shape, name="x"):
    """Checks that `x` is a floating-point tensor of shape `(batch, *shape)`.

    A `None` in `shape` allows any size, a last `...` any further dimensions.

    Raises:
        TypeError: not a tensor, or not of a floating-point dtype.
        ValueError: another shape. The message says what was wanted and what came.
    """
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        came = f"dtype {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {came}")
    sizes, known = tuple(x.shape[1:]), tuple(n for n in shape if n is not ...)
    right_length = len(sizes) >= len(known) if ... in shape else len(sizes) == len(known)
    if x.dim() == 0 or not right_length or any(n not in (None, m) for n, m in zip(known, sizes, strict=False)):
        want = ", ".join(["batch", *({None: "any", ...: "..."}.get(n, str(n)) for n in shape)])
        raise ValueError(f"{name} must have shape ({want}), got {tuple(x.shape)}")


def check_context(context, context_dim, batch):
    """Checks that `context` has shape `(batch, context_dim)`, or is None where the model takes none."""
    if context is None and context_dim:
        raise ValueError(f"this model needs a context of shape (batch, {context_dim}), got none")
    if context is not None and not context_dim:
        raise ValueError("this model takes no context; build it with context_dim to condition it")
    if context is not None and tuple(context.shape) != (batch, context_dim):
        raise ValueError(f"context must have shape ({batch}, {context_dim}), got {tuple(context.shape)}")


def sum_event(x):
    """Sums over every dimension but the first: `(batch, ...)` to `(batch,)`."""
    return x.flatten(1).sum(1)
