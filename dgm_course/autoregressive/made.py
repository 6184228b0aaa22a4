"""MADE as a density model: any order, training over all orders and masks, and ensembles of orders."""

import math

import torch
from torch import nn

from dgm_course.autoregressive.fvbn import FVBN
from dgm_course.autoregressive.vectors import VectorModel
from dgm_course.nn import MaskedMLP


class MADE(VectorModel):
    """Masked autoencoder: one pass of a masked network gives the parameters of all conditionals.

    Args:
        shape, output: see `VectorModel`.
        hidden: widths of the hidden layers.
        order: permutation of 0 ... dim-1, the entry that comes first standing first; natural order if not given.
        context_dim: entries of `context`, seen by every unit; 0 for none.
        activation: class of the nonlinearity.
        direct: adds connections from the input straight to the output, under the strictly triangular mask of an
            `FVBN`. The hidden layers then only have to say what a linear model does not.

    References:
        MADE: Masked Autoencoder for Distribution Estimation, Germain, Gregor, Murray, Larochelle, 2015. The authors'
        code names the direct connections `direct_input_connect="Output"`.
    """

    def __init__(
        self, shape, output=None, hidden=(500, 500), order=None, context_dim=0, activation=nn.ReLU, direct=False
    ):
        super().__init__(shape, output)
        self.net = MaskedMLP(self.dim, self.output.n_params, hidden, context_dim, order, activation)
        self.direct = FVBN(shape, output, order) if direct else None

    @property
    def order(self):
        """The order in which entries follow each other, `(dim,)`; `reorder` changes it."""
        return self.net.order

    def params(self, v, context=None):
        params = self.net(v, context).unflatten(1, (self.output.n_params, self.dim)).mT
        return params + self.direct.params(v) if self.direct else params

    def sequential(self, choose, batch, context=None):
        if not self.direct:
            return self.net.sequential(choose, batch, context)
        sums = self.direct.start(batch, None).clone()

        def choose_with_direct(i, params):
            x_i = choose(i, params + sums[:, i])
            sums.add_(x_i[:, None, None] * self.direct.weight[:, :, i])
            return x_i

        return self.net.sequential(choose_with_direct, batch, context)

    def reorder(self, order, degrees=None, generator=None):
        """Sets another order of the entries and new masks; weights stay. See `MaskedMLP.reorder`."""
        self.net.reorder(order, degrees, generator)
        if self.direct:
            self.direct.order.copy_(self.order)

    def agnostic_loss(self, x, context=None, orders=True, masks=True, generator=None):
        """Mean negative log-likelihood in nats under a new random order, or new random masks, or both.

        Order-agnostic and connectivity-agnostic training (section 4.2): `fit(model, x, loss=MADE.agnostic_loss)`. The
        model keeps the last order and masks. Take gradients before the next call, which changes the masks in place.

        Args:
            x, context: see `log_prob`.
            orders: draw a new order, else keep the present one.
            masks: draw new degrees of the hidden units, else spread them evenly.
            generator: of the draws, on the CPU.
        """
        generator = generator or torch.default_generator
        order = torch.randperm(self.dim, generator=generator) if orders else self.order
        self.reorder(order, generator=generator if masks else None)
        return self.loss(x, context)

    @torch.no_grad()
    def ensemble_log_prob(self, x, orders, context=None, generator=None):
        """Log of the mean probability over several orders in nats, `(batch,)`. No gradients; order and masks stay.

        The average of distributions is one; the average of their logs is not, and is never larger.

        Args:
            x, context: see `log_prob`.
            orders: permutations, at least one.
            generator: draws new degrees for each, for a model trained so; spread evenly if not given.
        """
        if not len(orders):
            raise ValueError("orders must hold at least one permutation, got none")
        before = [buffer.clone() for buffer in self.buffers()]
        try:
            log_probs = []
            for order in orders:
                self.reorder(order, generator=generator)
                log_probs.append(self.log_prob(x, context))
        finally:
            for buffer, old in zip(self.buffers(), before, strict=True):
                buffer.copy_(old)
        return torch.stack(log_probs).logsumexp(0) - math.log(len(orders))
