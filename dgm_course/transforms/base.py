"""Invertible transforms: the common face, composition, and turning one round."""

from contextlib import contextmanager

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


def random_signs(x, generator=None):
    """Entries -1 or 1 with probability 1/2 each, in x's shape, dtype and device: the noise of Hutchinson's trace."""
    return 2 * torch.randint(0, 2, x.shape, generator=generator, device=x.device).to(x.dtype) - 1


@contextmanager
def tracked(x):
    """For derivatives inside a transform: yields x with gradient, and whether the caller wants gradients himself.

    Inside, gradients are on even under `no_grad`.
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        yield x if keep and x.requires_grad else x.detach().requires_grad_(), keep


def dense_jacobian(y, x, keep=False):
    """Jacobian `(batch, n, n)` of y with respect to x, both of n entries each; examples must not see one another.

    Args:
        keep: whether the Jacobian is to have a gradient.
    """
    rows = [torch.autograd.grad(column.sum(), x, retain_graph=True, create_graph=keep)[0] for column in y.flatten(1).mT]
    return torch.stack(rows, 1).flatten(2)
