"""Networks that several families share."""

from itertools import pairwise

import torch
from torch import nn

from dgm_course.transforms.base import expect


class MLP(nn.Module):
    """Fully connected network, called as `net(x, context=None)`.

    The last layer starts at zero, so that a transform steered by the network starts as the identity.

    Args:
        n_in: entries of x.
        n_out: entries of the output.
        hidden: widths of the hidden layers.
        context_dim: entries of `context`, which is appended to x; 0 for none.
        activation: class of the nonlinearity.
    """

    def __init__(self, n_in, n_out, hidden=(64, 64), context_dim=0, activation=nn.ReLU):
        super().__init__()
        self.n_in, self.context_dim = n_in, context_dim
        widths = [n_in + context_dim, *hidden]
        layers = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), activation()]
        self.layers = nn.Sequential(*layers, zero_(nn.Linear(widths[-1], n_out)))

    def forward(self, x, context=None):
        expect(x, (self.n_in,), "input of the network")
        check_context(context, self.context_dim, x.shape[0])
        return self.layers(x if context is None else torch.cat([x, context], dim=1))


class ResidualConvNet(nn.Module):
    """Small residual convolutional network that keeps height and width, called as `net(x, context=None)`.

    Pre-activation blocks of a 3x3 and a 1x1 convolution; the last layer starts at zero.

    Args:
        c_in, c_out: channels of input and output.
        hidden: channels inside.
        blocks: number of residual blocks.
        context_dim: entries of `context`, which shifts the hidden channels; 0 for none.
    """

    def __init__(self, c_in, c_out, hidden=32, blocks=2, context_dim=0):
        super().__init__()
        self.context_dim = context_dim
        self.first = nn.Conv2d(c_in, hidden, 3, padding=1)
        self.shift = nn.Linear(context_dim, hidden) if context_dim else None
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 1))
            for _ in range(blocks)
        )
        self.last = zero_(nn.Conv2d(hidden, c_out, 3, padding=1))

    def forward(self, x, context=None):
        check_context(context, self.context_dim, x.shape[0])
        h = self.first(x)
        if context is not None:
            h = h + self.shift(context)[:, :, None, None]
        for block in self.blocks:
            h = h + block(h)
        return self.last(h.relu())


def zero_(layer):
    """Sets weight and bias of a layer to zero and returns it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def check_context(context, context_dim, batch):
    """Checks that `context` has shape `(batch, context_dim)`, or is None where the model takes none."""
    if context is None and context_dim:
        raise ValueError(f"this model needs a context of shape (batch, {context_dim}), got none")
    if context is not None and not context_dim:
        raise ValueError("this model takes no context; build it with context_dim to condition it")
    if context is not None and tuple(context.shape) != (batch, context_dim):
        raise ValueError(f"context must have shape ({batch}, {context_dim}), got {tuple(context.shape)}")
