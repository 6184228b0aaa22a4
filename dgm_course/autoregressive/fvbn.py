"""Fully visible belief network: each entry is a logistic regression on the entries before it."""

import torch
from torch import nn

from dgm_course.autoregressive.vectors import Shift, VectorModel, permutation
from dgm_course.nn import check_context


class FVBN(VectorModel):
    """p(x_i = 1 | entries before i) = sigmoid(b_i + sum over j before i of W_ij x_j).

    With more classes a softmax regression, with Gaussian entries a linear one. O(dim^2) weights, none shared.

    Args:
        shape, output: see `VectorModel`.
        order: permutation of 0 ... dim-1, the entry that comes first standing first; natural order if not given.
        context_dim: entries of `context`, which shifts b; 0 for none.

    References:
        Connectionist learning of belief networks, Neal, 1992; Does the wake-sleep algorithm produce good density
        estimators?, Frey, Hinton, Dayan, 1996.
    """

    def __init__(self, shape, output=None, order=None, context_dim=0):
        super().__init__(shape, output)
        n_params = self.output.n_params
        self.context_dim = context_dim
        self.register_buffer("order", permutation(order, self.dim))
        self.weight = nn.Parameter(torch.zeros(self.dim, n_params, self.dim))
        self.bias = nn.Parameter(torch.zeros(self.dim, n_params))
        self.shift = Shift(context_dim, self.dim * n_params)

    def start(self, batch, context):
        """Parameters of all entries before any entry is known, `(batch, dim, n_params)`."""
        check_context(context, self.context_dim, batch)
        return (self.bias.flatten() + self.shift(context)).expand(batch, -1).unflatten(1, self.bias.shape)

    def params(self, v, context=None):
        rank = torch.argsort(self.order)
        before = (rank[None, :] < rank[:, None])[:, None]  # (dim, 1, dim)
        return self.start(len(v), context) + torch.einsum("bj,ipj->bip", v, self.weight * before)

    def sequential(self, choose, batch, context=None):
        # A new entry adds its share to all sums at once; what it adds to entries before it is never read.
        sums = self.start(batch, context).clone()
        for i in self.order.tolist():
            sums += choose(i, sums[:, i])[:, None, None] * self.weight[:, :, i]
