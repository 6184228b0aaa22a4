"""NADE and RNADE: one hidden layer for each entry, with weights shared so that all layers cost O(dim * hidden)."""

import torch
from torch import nn

from dgm_course.autoregressive.vectors import GaussianMixture, Shift, VectorModel, permutation
from dgm_course.nn import check_context


class NADE(VectorModel):
    """Neural autoregressive distribution estimator.

    With a_i = c + sum over j before i of W_j x_j and h_i = sigmoid(a_i), the parameters of entry i are
    b_i + V_i h_i. The a_i are running sums: each adds one column of W to the one before.

    Args:
        shape, output: see `VectorModel`. The paper's entries are binary.
        hidden: hidden units.
        order: permutation of 0 ... dim-1, the entry that comes first standing first; natural order if not given.
        context_dim: entries of `context`, which shifts b and c; 0 for none.

    References:
        The Neural Autoregressive Distribution Estimator, Larochelle, Murray, 2011.
    """

    def __init__(self, shape, output=None, hidden=64, order=None, context_dim=0):
        super().__init__(shape, output)
        n_params = self.output.n_params
        self.context_dim = context_dim
        self.register_buffer("order", permutation(order, self.dim))
        self.weight = nn.Parameter(torch.randn(self.dim, hidden) / self.dim**0.5)
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.out_weight = nn.Parameter(0.1 * torch.randn(self.dim, n_params, hidden) / hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(self.dim, n_params))
        self.hidden_shift = Shift(context_dim, hidden)
        self.shift = Shift(context_dim, self.dim * n_params)

    def units(self, a, i):
        """Hidden units of the entries i, one or several, `(..., hidden)` to the same."""
        return a.sigmoid()

    def start(self, batch, context):
        """a of the first entry `(batch, hidden)`, and b with what the context adds, `(batch, dim, n_params)`."""
        check_context(context, self.context_dim, batch)
        bias = (self.bias.flatten() + self.shift(context)).expand(batch, -1).unflatten(1, self.bias.shape)
        return (self.hidden_bias + self.hidden_shift(context)).expand(batch, -1), bias

    def params(self, v, context=None):
        first, bias = self.start(len(v), context)
        shares = v[:, self.order[:-1], None] * self.weight[self.order[:-1]]
        a = torch.cat([first[:, None], shares], 1).cumsum(1)  # (batch, dim in order, hidden)
        in_order = torch.einsum("bth,tph->btp", self.units(a, self.order), self.out_weight[self.order])
        return bias + in_order[:, torch.argsort(self.order)]

    def sequential(self, choose, batch, context=None):
        a, bias = self.start(batch, context)
        for i in self.order.tolist():
            x_i = choose(i, bias[:, i] + self.units(a, i) @ self.out_weight[i].T)
            a = a + x_i[:, None] * self.weight[i]


class RNADE(NADE):
    """Real-valued NADE: mixtures of Gaussians, and hidden units relu(rho_i a_i) with a learned factor for each entry.

    The factor keeps the sums, which grow with i, in the range of the nonlinearity. Standardize the data.

    Args:
        components: Gaussians in each mixture.
        shape, hidden, order, context_dim: see `NADE`.

    References:
        RNADE: The real-valued neural autoregressive density-estimator, Uria, Murray, Larochelle, 2013.
    """

    def __init__(self, shape, components=5, hidden=64, order=None, context_dim=0):
        super().__init__(shape, GaussianMixture(components), hidden, order, context_dim)
        self.rho = nn.Parameter(torch.ones(self.dim, 1))

    def units(self, a, i):
        return (self.rho[i] * a).relu()
