"""Gated PixelCNN: two stacks of convolutions instead of one masked, so that no pixel before is out of sight.

References:
    Conditional Image Generation with PixelCNN Decoders, van den Oord, Kalchbrenner, Vinyals et al., 2016, equations 2
    to 4, figures 1 and 2.
"""

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.autoregressive.pixel_cnn import ByPixel, MaskedConv2d, head, head_by_pixel
from dgm_course.autoregressive.pixels import PixelModel


def gate(x):
    """tanh(a) * sigmoid(b), where a and b are the two halves of the channels."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks: `vertical, horizontal = layer(vertical, horizontal, context)`.

    The vertical stack sees its row and those above, whole. The horizontal one sees its row up to the pixel, and the
    vertical one a row higher, so that nothing of its own row comes in that way.

    Args:
        c_in, hidden: channels in and out.
        kernel: odd; the vertical convolution has kernel//2 + 1 rows.
        kind: "A" for the first layer (which has no residual connection), "B" for the others.
        colours: channels of the image.
        context_dim: entries of `context`, which shifts both stacks (equation 4); 0 for none.
    """

    def __init__(self, c_in, hidden, kernel=3, kind="B", colours=1, context_dim=0):
        super().__init__()
        self.residual, self.side = kind == "B", kernel // 2
        self.across = MaskedConv2d(c_in, 2 * hidden, (1, kernel), kind, colours)
        self.down = nn.Conv2d(c_in, 2 * hidden, (self.side + 1, kernel))
        self.link = nn.Conv2d(2 * hidden, 2 * hidden, 1)
        self.out = MaskedConv2d(hidden, hidden, 1, "B", colours)
        self.shift = nn.Linear(context_dim, 4 * hidden, bias=False) if context_dim else None

    def shifts(self, context):
        """What the context adds to the stacks: two tensors `(batch, 2 * hidden, 1, 1)`, or zeros."""
        return (0, 0) if context is None else self.shift(context)[:, :, None, None].chunk(2, dim=1)

    def forward(self, vertical, horizontal, context=None):
        shift_v, shift_h = self.shifts(context)
        v = self.down(F.pad(vertical, (self.side, self.side, self.side, 0))) + shift_v
        above = F.pad(self.link(v), (0, 0, 1, 0))[:, :, :-1] + shift_h
        return gate(v), self.step(horizontal, above, self.across, self.out)

    def step(self, h, above, across, out):
        """The horizontal stack, on a map or on one pixel."""
        new = out(gate(across(h) + above))
        return h + new if self.residual else new

    def rows(self, n, context, size):
        """The vertical stack for sampling, a row at a time.

        Returns:
            A function from i and row i of the input, `(n, width, c_in)`, to that row of the gated output and to what
            pixels of the row below get, `(width, n, 2 * hidden)`; and what those of the first row get.
        """
        height, width = size
        shift_v, shift_h = (shift if context is None else shift[:, None, :, 0, 0] for shift in self.shifts(context))
        weight, link = self.down.weight.permute(0, 2, 3, 1).flatten(1), self.link.weight[:, :, 0, 0]
        kept = weight.new_zeros(n, height + self.side, width + 2 * self.side, self.down.in_channels)

        def row(i, vertical):
            kept[:, i + self.side, self.side : self.side + width] = vertical
            patches = kept[:, i : i + self.side + 1].unfold(2, 2 * self.side + 1, 1)  # (n, rows, width, c, columns)
            v = F.linear(patches.permute(0, 2, 1, 4, 3).flatten(2), weight, self.down.bias) + shift_v
            below = F.linear(v, link, self.link.bias) + shift_h
            return gate(v.transpose(1, 2)).transpose(1, 2), below.transpose(0, 1).contiguous()

        return row, (kept.new_zeros(n, width, len(link)) + shift_h).transpose(0, 1)


class GatedPixelCNN(PixelModel):
    """Gated PixelCNN, conditional on a context where there is one.

    Cached sampling computes the vertical stack once for each row and the horizontal one once for each pixel.

    Args:
        shape: `(channels, height, width)`.
        levels: values of a channel.
        hidden: channels of each stack, a multiple of the channels of the image.
        layers: number of layers; the first has size `kernel`, the others 3.
        kernel: size of the first convolution, odd.
        context_dim: entries of `context`; 0 for none.
    """

    def __init__(self, shape, levels=256, hidden=64, layers=7, kernel=7, context_dim=0):
        super().__init__(shape, levels, context_dim)
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        colours = shape[0]
        self.layers = nn.ModuleList(
            GatedLayer(hidden if k else colours, hidden, 3 if k else kernel, "B" if k else "A", colours, context_dim)
            for k in range(layers)
        )
        self.head = head(hidden, hidden, levels, colours)

    def forward(self, image, context=None):
        vertical = horizontal = image
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, context)
        return self.head(horizontal).unflatten(1, (self.levels, self.shape[0]))

    def by_pixel(self, n, context=None):
        size, at = self.shape[1:], [0, 0]
        rows, above = map(list, zip(*(layer.rows(n, context, size) for layer in self.layers), strict=True))
        convs = [[ByPixel(conv, n, size, at) for conv in (layer.across, layer.out)] for layer in self.layers]
        inputs = convs[0][0].inputs
        last = head_by_pixel(self.head, n, size, at)

        def predict(x, i, j):
            if i > at[0]:
                v = self.scale(x[:, :, i - 1]).transpose(1, 2)
                for k, row in enumerate(rows):
                    v, above[k] = row(i - 1, v)
            at[:] = i, j
            inputs[:, 0] = self.scale(x[:, :, i]).transpose(1, 2)
            h = None
            for layer, seen, (across, out) in zip(self.layers, above, convs, strict=True):
                h = layer.step(h, seen[j], across, out)
            return last(h).unflatten(1, (self.levels, self.shape[0]))

        return predict

    def field(self, i, j):
        """Pixels that pixel (i, j) sees, `(h, w)` of bool, by the arithmetic of the kernels."""
        up, right = self.offsets(i, j)
        reach = self.layers[0].side + len(self.layers) - 1
        before = torch.where(up == 0, right < 0, (up > 0) & (right <= reach))
        return before & (up <= reach + 1) & (right >= -reach)
