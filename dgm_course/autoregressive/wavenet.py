"""WaveNet: dilated causal convolutions over raw audio.

References:
    WaveNet: A Generative Model for Raw Audio, van den Oord et al., 2016.
    Fast Wavenet Generation Algorithm, Paine et al., 2016: a queue for each layer instead of a new pass for each entry.
    Parallel WaveNet, van den Oord et al., 2018: mixture-of-logistics output; the student.
"""

import math
from itertools import repeat

import torch
from torch import nn

from dgm_course.autoregressive.sequences import SequenceModel, Softmax
from dgm_course.distributions import DiscretizedLogisticMixture, LogisticMixture
from dgm_course.nn import CausalConv1d, Conv1x1, check_context, receptive_field, zero_
from dgm_course.transforms.base import expect


def mu_law_encode(x, levels=256):
    """From values in [-1, 1] to classes 0 ... levels-1, with finer steps near zero.

    The line is bent to sign(x) ln(1 + mu |x|) / ln(1 + mu) with mu = levels - 1, and cut into even steps (van den Oord
    et al., 2016, section 2.2).

    Raises:
        ValueError: values outside [-1, 1].
    """
    if x.numel() and not -1 <= float(x.min()) <= float(x.max()) <= 1:
        raise ValueError(f"x must lie in [-1, 1], got values from {float(x.min()):.4g} to {float(x.max()):.4g}")
    mu = levels - 1
    bent = x.sign() * (mu * x.abs()).log1p() / math.log1p(mu)
    return ((bent + 1) / 2 * mu).round().long()


def mu_law_decode(classes, levels=256, dtype=torch.float32):
    """From classes to the values in [-1, 1] at the middle of their steps: the inverse of `mu_law_encode`."""
    mu = levels - 1
    bent = 2 * classes.to(dtype) / mu - 1
    return (bent.sign() * (bent.abs() * math.log1p(mu)).expm1() / mu).clamp(-1, 1)


class GatedBlock(nn.Module):
    """z = tanh(W_f * h + V_f y) sigmoid(W_g * h + V_g y), then 1x1 convolutions to the residual and to the skip.

    Equations 2 and 3 of the paper; V y stands for both contexts, global and local.
    """

    def __init__(self, channels, skip, kernel, dilation, condition_dim):
        super().__init__()
        self.conv = CausalConv1d(channels, 2 * channels, kernel, dilation)
        self.condition = Conv1x1(condition_dim, 2 * channels, bias=False) if condition_dim else None
        self.out = Conv1x1(channels, channels + skip)
        self.channels = channels

    def forward(self, h, condition=None, queue=None):
        a = self.conv(h, queue)
        if condition is not None:
            a = a + self.condition(condition)
        signal, gate = a.chunk(2, dim=1)
        residual, skip = self.out(signal.tanh() * gate.sigmoid()).tensor_split([self.channels], dim=1)
        return h + residual, skip


class GatedStack(nn.Module):
    """A causal convolution, stacks of gated blocks with dilations 1, 2, 4, ..., and two 1x1 layers on their skips.

    Args:
        c_in, c_out: channels of input and output, `(batch, channels, length)`.
        channels, skip: channels of the residual and the skip path.
        layers: blocks of each stack; the last has dilation 2^(layers-1).
        stacks: how often the dilations start anew.
        kernel: filter width.
        condition_dim: channels of the condition; 0 for none.
    """

    def __init__(self, c_in, c_out, channels=32, skip=64, layers=8, stacks=2, kernel=2, condition_dim=0):
        super().__init__()
        dilations = [2**i for i in range(layers)] * stacks
        self.first = CausalConv1d(c_in, channels, kernel)
        self.blocks = nn.ModuleList(GatedBlock(channels, skip, kernel, d, condition_dim) for d in dilations)
        self.head = nn.Sequential(nn.ReLU(), Conv1x1(skip, skip), nn.ReLU(), Conv1x1(skip, c_out))
        self.reach = receptive_field(kernel, [1, *dilations])

    def new_cache(self, batch):
        return [conv.queue(batch) for conv in (self.first, *(block.conv for block in self.blocks))]

    def forward(self, h, condition=None, cache=None):
        queues = iter(cache) if cache else repeat(None)
        h, total = self.first(h, next(queues)), 0
        for block in self.blocks:
            h, skip = block(h, condition, next(queues))
            total = total + skip
        return self.head(total)


class WaveNet(SequenceModel):
    """WaveNet over sequences `(batch, length)`.

    Args:
        output: `softmax`, over classes without order (8-bit mu-law in the paper); `mixture`, discretized logistics
            over integers (16 bits in Parallel WaveNet); `logistic`, a continuous mixture of logistics over real
            values, with a gradient in x: a teacher for `distillation_loss`.
        levels: size of the alphabet (without meaning for `logistic`).
        channels, skip, layers, stacks, kernel: as in `GatedStack`.
        components: of the mixtures.
        context_dim, local_dim: as in `SequenceModel`: a speaker; linguistic features.
    """

    def __init__(
        self, output="softmax", levels=256, channels=32, skip=64, layers=8, stacks=2, kernel=2, components=5,
        context_dim=0, local_dim=0,
    ):  # fmt: skip
        super().__init__(levels, context_dim, local_dim)
        if output not in ("softmax", "mixture", "logistic"):
            raise ValueError(f"output must be softmax, mixture or logistic, got {output!r}")
        self.output = output
        self.embed = nn.Embedding(levels + 1, channels) if output == "softmax" else None
        c_in, c_out = (channels, levels) if output == "softmax" else (1, 3 * components)
        self.net = GatedStack(c_in, c_out, channels, skip, layers, stacks, kernel, context_dim + local_dim)
        self.reach = self.net.reach

    def check(self, x, name="x"):
        if self.output != "logistic":
            return super().check(x, name)
        expect(x, (None,), name)
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name} has {int((~torch.isfinite(x)).sum())} entries that are NaN or infinite")
        return x

    def start(self, batch):
        if self.output != "logistic":
            return super().start(batch)
        return next(self.parameters()).new_zeros(batch, 1)  # silence

    def distribution(self, params):
        if self.output == "softmax":
            return Softmax(params)
        logits, mean, log_scale = params.chunk(3, dim=-1)
        log_scale = log_scale.clamp(min=-7)  # as in PixelCNN++: no spike on a value that comes often
        if self.output == "logistic":
            return LogisticMixture(logits, mean, log_scale)
        return DiscretizedLogisticMixture(logits, mean, log_scale, self.levels)

    def new_cache(self, batch, length):
        return self.net.new_cache(batch)

    def forward(self, previous, condition=None, cache=None):
        if self.output == "softmax":
            h = self.embed(previous).transpose(1, 2)
        else:
            h = previous[:, None].to(self.net.first.weight)
            h = h if self.output == "logistic" else 2 * h / (self.levels - 1) - 1
        return self.net(h, condition, cache).transpose(1, 2)


class WaveNetConditioner(nn.Module):
    """A WaveNet in place of a `MaskedMLP`: the parameters of entry t of an `Autoregressive` transform.

    `Flow(base, Compose(*(Inverse(Autoregressive(WaveNetConditioner(length), Affine())) for _ in range(4))))` is the
    student of Parallel WaveNet: an IAF, all entries of a sample in one pass. The last layer starts at zero.

    Args:
        dim: length of the sequences.
        n_params: parameters of each entry.
        context_dim: entries of `context`; 0 for none.
        sizes: `channels`, `skip`, `layers`, `stacks` and `kernel` of a `GatedStack`.
    """

    def __init__(self, dim, n_params=2, context_dim=0, **sizes):
        super().__init__()
        self.dim, self.n_params, self.context_dim = dim, n_params, context_dim
        self.net = GatedStack(1, n_params, condition_dim=context_dim, **sizes)
        self.register_buffer("order", torch.arange(dim))
        zero_(self.net.head[-1])

    def forward(self, x, context=None):
        check_context(context, self.context_dim, len(x))
        previous = torch.cat([x.new_zeros(len(x), 1), x[:, :-1]], dim=1)
        condition = None if context is None else context[:, :, None].expand(-1, -1, self.dim)
        return self.net(previous[:, None], condition).flatten(1)

    @torch.no_grad()
    def sequential(self, choose, batch, context=None):
        """Builds x entry by entry, `x[:, i] = choose(i, parameters of entry i)`, by queues; as `MaskedMLP` does."""
        check_context(context, self.context_dim, batch)
        cache, condition = self.net.new_cache(batch), None if context is None else context[:, :, None]
        x = [self.net.first.weight.new_zeros(batch)]
        for i in range(self.dim):
            x.append(choose(i, self.net(x[-1][:, None, None], condition, cache)[:, :, 0]))
        return torch.stack(x[1:], dim=1)
