"""ByteNet decoder: dilated masked convolutions over characters, all positions scored in parallel.

References:
    Neural Machine Translation in Linear Time, Kalchbrenner et al., 2016, section 3 and figure 3 (left).
"""

from itertools import repeat

from torch import nn

from dgm_course.autoregressive.sequences import SequenceModel
from dgm_course.nn import CausalConv1d, Conv1x1, receptive_field


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each position alone: over time, too, it would see the future."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ByteNetBlock(nn.Module):
    """Residual block on 2d channels: 1x1 down to d, masked dilated convolution, 1x1 back, each after norm and ReLU."""

    def __init__(self, d, kernel, dilation):
        super().__init__()
        self.down = nn.Sequential(ChannelNorm(2 * d), nn.ReLU(), Conv1x1(2 * d, d), ChannelNorm(d), nn.ReLU())
        self.conv = CausalConv1d(d, d, kernel, dilation)
        self.up = nn.Sequential(ChannelNorm(d), nn.ReLU(), Conv1x1(d, 2 * d))

    def forward(self, h, queue=None):
        return h + self.up(self.conv(self.down(h), queue))


class ByteNet(SequenceModel):
    """ByteNet decoder as a language model over characters `(batch, length)`.

    The local context is what an encoder makes of a source text, one column for each target position (figure 1: the
    decoder stands on top of the encoder); it is added to the embedded characters.

    Args:
        levels: size of the alphabet.
        d: half the channels of the residual path.
        layers: blocks of each set, with dilations 1, 2, 4, ...; 5 in the paper.
        sets: how often the dilations start anew; 6 in the paper.
        kernel: filter width; 3 in the paper.
        context_dim, local_dim: as in `SequenceModel`.
    """

    def __init__(self, levels, d=32, layers=5, sets=2, kernel=3, context_dim=0, local_dim=0):
        super().__init__(levels, context_dim, local_dim)
        dilations = [2**i for i in range(layers)] * sets
        self.embed = nn.Embedding(levels + 1, 2 * d)
        self.source = Conv1x1(context_dim + local_dim, 2 * d) if context_dim + local_dim else None
        self.blocks = nn.ModuleList(ByteNetBlock(d, kernel, dilation) for dilation in dilations)
        self.head = nn.Sequential(
            ChannelNorm(2 * d), nn.ReLU(), Conv1x1(2 * d, 2 * d), nn.ReLU(), Conv1x1(2 * d, levels)
        )
        self.reach = receptive_field(kernel, dilations)

    def new_cache(self, batch, length):
        return [block.conv.queue(batch) for block in self.blocks]

    def forward(self, previous, condition=None, cache=None):
        h = self.embed(previous).transpose(1, 2)
        if condition is not None:
            h = h + self.source(condition)
        for block, queue in zip(self.blocks, cache or repeat(None), strict=False):
            h = block(h, queue)
        return self.head(h).transpose(1, 2)
