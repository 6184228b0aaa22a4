"""Autoregressive flows: entry i is mapped by a law whose parameters come from the entries before it.

    z_i = tau(x_i, c_i(x_1, ..., x_{i-1}))

The Jacobian is triangular. MAF runs it this way, so a density takes one pass and a sample one step for each entry; IAF
is its `Inverse`, with a sample in one pass. Any coupling law will do (`Affine`, splines, monotone networks).

References:
    Masked Autoregressive Flow for Density Estimation, Papamakarios, Pavlakou, Murray, 2017, equations 3 to 5.
    Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, equations 10 to 12.
"""

import torch

from dgm_course.transforms.base import Transform, expect


class Autoregressive(Transform):
    """Autoregressive transform of a vector: `forward` in one pass, `inverse` entry by entry.

    Args:
        net: a `MaskedMLP` with `law.n_params` outputs for each entry.
        law: a coupling law, e.g. `Affine()`.
    """

    def __init__(self, net, law):
        super().__init__()
        if net.n_params != law.n_params:
            raise ValueError(
                f"the law takes {law.n_params} parameters for each entry, the network gives {net.n_params}"
            )
        self.net, self.law = net, law

    def forward(self, x, context=None):
        expect(x, (self.net.dim,))
        return self.law.forward(x, self.net(x, context))

    def inverse(self, z, context=None):
        """Costs `dim` passes where gradients are wanted; without them every hidden unit is computed only once."""
        expect(z, (self.net.dim,), "z")
        return self.inverse_plain(z, context) if torch.is_grad_enabled() else self.inverse_fast(z, context)

    def inverse_plain(self, z, context=None):
        """The inverse as it is written in the papers: one pass of the whole network for each entry."""
        columns, total = [z.new_zeros(len(z))] * self.net.dim, z.new_zeros(len(z))
        for i in self.net.order.tolist():
            params = self.net(torch.stack(columns, dim=1), context).unflatten(1, (self.law.n_params, self.net.dim))
            entry, log_det = self.law.inverse(z[:, i : i + 1], params[:, :, i])
            columns[i], total = entry[:, 0], total + log_det
        return torch.stack(columns, dim=1), total

    def inverse_fast(self, z, context=None):
        """The same numbers without gradients, in about the work of one pass (`MaskedMLP.sequential`)."""
        total = z.new_zeros(len(z))

        def choose(i, params):
            entry, log_det = self.law.inverse(z[:, i : i + 1], params)
            total.add_(log_det)
            return entry[:, 0]

        return self.net.sequential(choose, len(z), context), total
