"""Networks that several families share."""

from collections import deque
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.transforms.base import check_context, expect


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


class MaskedLinear(nn.Linear):
    """Linear layer whose weight is multiplied by a mask of zeros and ones, `(n_out, n_in)`, in every call.

    The weight itself is never touched, so the optimizer keeps its own values and a new mask may take over at any time.
    """

    def __init__(self, mask):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight))

    def masked_weight(self):
        return self.weight * self.mask

    def forward(self, x):
        return F.linear(x, self.masked_weight(), self.bias)


class MaskedMLP(nn.Module):
    """MADE: the parameters of entry i come from the entries before it in `order` (and from the context) alone.

    Called as `net(x, context=None)`; `(batch, dim)` gives `(batch, n_params * dim)`, all entries' first parameters
    before all second ones, so that `chunk(n_params, dim=1)` or `unflatten(1, (n_params, dim))` takes them apart. A
    hidden unit of degree d sees the first d entries of the order. The last layer starts at zero.

    Args:
        dim: entries of x.
        n_params: outputs for each entry.
        hidden: widths of the hidden layers; none for a linear model.
        context_dim: entries of `context`, seen by every unit; 0 for none.
        order: permutation of 0 ... dim-1, the entry that comes first standing first; natural order if not given.
        activation: class of the nonlinearity.

    References:
        MADE: Masked Autoencoder for Distribution Estimation, Germain, Gregor, Murray, Larochelle, 2015, equations 8
        to 13.
    """

    def __init__(self, dim, n_params, hidden=(64, 64), context_dim=0, order=None, activation=nn.ReLU):
        super().__init__()
        self.dim, self.n_params, self.context_dim = dim, n_params, context_dim
        widths = [dim + context_dim, *hidden, n_params * dim]
        self.linears = nn.ModuleList(MaskedLinear(torch.ones(b, a)) for a, b in pairwise(widths))
        self.activation = activation()
        self.register_buffer("order", torch.arange(dim))
        for i, width in enumerate(hidden):
            self.register_buffer(f"degrees_{i}", torch.zeros(width, dtype=torch.long))
        self.reorder(torch.arange(dim) if order is None else order)
        zero_(self.linears[-1])

    @torch.no_grad()
    def reorder(self, order, degrees=None, generator=None):
        """Sets a new order of the entries and new masks; weights stay.

        Training with a new order each step is order-agnostic, with new degrees connectivity-agnostic (section 4.2).

        Args:
            order: permutation of 0 ... dim-1.
            degrees: one list of integers for each hidden layer, between 0 and dim-1; if not given they are spread
                evenly, or, with a generator, drawn uniformly from the least degree of the layer before to dim-1.
            generator: for random degrees.
        """
        order = torch.as_tensor(order).cpu()
        if sorted(order.tolist()) != list(range(self.dim)):
            raise ValueError(f"order must be a permutation of 0 ... {self.dim - 1}, got {order.tolist()}")
        rank = torch.argsort(order) + 1
        # Only with a context has a unit that sees no entry something to say.
        least, most = min(0 if self.context_dim else 1, self.dim - 1), self.dim - 1
        below = torch.cat([rank, torch.zeros(self.context_dim, dtype=torch.long)])
        if degrees is not None and [len(d) for d in degrees] != [m.out_features for m in self.linears[:-1]]:
            wanted = [m.out_features for m in self.linears[:-1]]
            raise ValueError(f"degrees must have lengths {wanted}, got {[len(d) for d in degrees]}")
        for i, linear in enumerate(self.linears[:-1]):
            width = linear.out_features
            if degrees is not None:
                degree = torch.as_tensor(degrees[i]).cpu()
                if degree.numel() and not 0 <= int(degree.min()) <= int(degree.max()) <= most:
                    raise ValueError(f"degrees must lie between 0 and {most}, got {degree.tolist()}")
            elif generator is not None:
                degree = torch.randint(least, most + 1, (width,), generator=generator)
                least = int(degree.min())
            else:
                degree = least + torch.arange(width) * (most - least + 1) // width
            linear.mask.copy_(degree[:, None] >= below)
            getattr(self, f"degrees_{i}").copy_(degree)
            below = degree
        self.linears[-1].mask.copy_(rank.repeat(self.n_params)[:, None] > below)
        self.order.copy_(order)

    def forward(self, x, context=None):
        expect(x, (self.dim,), "input of the network")
        check_context(context, self.context_dim, x.shape[0])
        h = x if context is None else torch.cat([x, context], dim=1)
        for linear in self.linears[:-1]:
            h = self.activation(linear(h))
        return self.linears[-1](h)

    @torch.no_grad()
    def sequential(self, choose, batch, context=None):
        """Builds x entry by entry, `x[:, i] = choose(i, parameters of entry i)`, and returns `(batch, dim)`.

        `choose` gets the number i and `(batch, n_params)`. All entries together cost about one pass, not one each:
        masked weights are taken once, and every hidden unit is computed once, when all that it sees is known. No
        gradients.
        """
        check_context(context, self.context_dim, batch)
        degrees = [getattr(self, f"degrees_{i}") for i in range(len(self.linears) - 1)]
        # Sorted by degree, the known inputs of every layer are its first ones: slices, no gathers, in the loop.
        seen = torch.arange(self.dim + self.context_dim, device=self.order.device)
        sort = [torch.cat([seen[self.dim :], self.order]), *(torch.argsort(d, stable=True) for d in degrees)]
        layers = [
            (m.masked_weight()[rows][:, cols], m.bias[rows])
            for m, rows, cols in zip(self.linears, sort[1:], sort, strict=False)
        ]
        last = self.linears[-1]
        out_weight = last.masked_weight()[:, sort[-1]].unflatten(0, (self.n_params, self.dim)).unbind(1)
        out_bias = last.bias.unflatten(0, (self.n_params, self.dim)).unbind(1)
        ends = [torch.bincount(d, minlength=self.dim).cumsum(0).tolist() for d in degrees]
        h = [last.weight.new_zeros(batch, len(s)) for s in sort]
        if context is not None:
            h[0][:, : self.context_dim] = context
        for t, i in enumerate(self.order.tolist()):
            known = self.context_dim + t
            for (weight, bias), end, below, units in zip(layers, ends, h[:-1], h[1:], strict=True):
                begin, stop = (end[t - 1] if t else 0), end[t]
                if stop > begin:
                    new = F.linear(below[:, :known], weight[begin:stop, :known], bias[begin:stop])
                    units[:, begin:stop] = self.activation(new)
                known = stop
            h[0][:, self.context_dim + t] = choose(i, F.linear(h[-1][:, :known], out_weight[i][:, :known], out_bias[i]))
        return h[0][:, self.context_dim :][:, torch.argsort(self.order)]


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


class CausalConv1d(nn.Conv1d):
    """Convolution over time that sees the present and the past, `(batch, c_in, length)` to `(batch, c_out, length)`.

    Output t takes the inputs t, t - dilation, ..., t - (kernel - 1) dilation; before the first input stand zeros. With
    a queue it goes one step at a time, at a cost that does not depend on the dilation.

    Args:
        c_in, c_out: channels.
        kernel: number of inputs that an output sees.
        dilation: their distance.

    References:
        WaveNet, van den Oord et al., 2016, section 2.1; Fast Wavenet Generation Algorithm, Paine et al., 2016.
    """

    def __init__(self, c_in, c_out, kernel=2, dilation=1):
        super().__init__(c_in, c_out, kernel, dilation=dilation)
        self.past = (kernel - 1) * dilation

    def queue(self, batch):
        """The inputs before the first: as many zeros as an output looks back."""
        return deque([self.weight.new_zeros(batch, self.in_channels, 1)] * self.past)

    def forward(self, x, queue=None):
        if queue is None:
            return super().forward(F.pad(x, (self.past, 0)))
        if x.shape[2] != 1:
            raise ValueError(f"with a queue one step is taken at a time, got {x.shape[2]}")
        queue.append(x)
        seen = torch.cat([queue[k * self.dilation[0]] for k in range(self.kernel_size[0])], dim=2)
        queue.popleft()
        return F.linear(seen.flatten(1), self.weight.flatten(1), self.bias)[:, :, None]


class Conv1x1(nn.Conv1d):
    """1x1 convolution, `(batch, c_in, length)` to `(batch, c_out, length)`; a single step is a plain matrix product."""

    def __init__(self, c_in, c_out, bias=True):
        super().__init__(c_in, c_out, 1, bias=bias)

    def forward(self, x):
        if x.shape[2] > 1:
            return super().forward(x)
        return F.linear(x[:, :, 0], self.weight[:, :, 0], self.bias)[:, :, None]  # a convolution takes 10 times as long


def receptive_field(kernel, dilations):
    """How many inputs, the present one included, an output of a stack of causal convolutions sees: 1 + (k-1) sum d."""
    return 1 + (kernel - 1) * sum(dilations)


def zero_(layer):
    """Sets weight and bias of a layer to zero and returns it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
