"""PixelCNN: a convolutional network in which no pixel sees itself or those after it.

References:
    Pixel Recurrent Neural Networks, van den Oord, Kalchbrenner, Kavukcuoglu, 2016, sections 3.3 to 3.5, table 1.
"""

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.autoregressive.pixels import PixelModel


class MaskedConv2d(nn.Conv2d):
    """Convolution that keeps the size and sees the rows above, the pixels to the left, and some of the pixel itself.

    With colours, channel number f belongs to colour f mod `groups`. Of the pixel itself, colour g sees the colours
    before it (type A, for the first layer) and its own too (type B, for all others). The mask multiplies the weight in
    every call; the weight itself is never touched.

    Args:
        c_in, c_out: channels; both multiples of `groups`.
        kernel_size: odd number, or a pair of odd numbers.
        kind: "A" or "B".
        groups: number of colours.
    """

    def __init__(self, c_in, c_out, kernel_size, kind="B", groups=1):
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        if kind not in ("A", "B"):
            raise ValueError(f'kind must be "A" or "B", got {kind!r}')
        if c_in % groups or c_out % groups:
            raise ValueError(f"channels must be multiples of the {groups} colours, got {c_in} and {c_out}")
        super().__init__(c_in, c_out, (height, width), padding=(height // 2, width // 2))
        mask = torch.zeros_like(self.weight)
        mask[:, :, : height // 2] = 1
        mask[:, :, height // 2, : width // 2] = 1
        to, come = torch.arange(c_out)[:, None] % groups, torch.arange(c_in) % groups
        mask[:, :, height // 2, width // 2] = (come < to if kind == "A" else come <= to).to(mask)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class ByPixel:
    """A `MaskedConv2d` for sampling: one pixel `(n, c_in)` in, the same pixel `(n, c_out)` out.

    It keeps the pixels that it was given, and computes what the convolution does at one place alone.

    Args:
        conv: the layer.
        n: images.
        size: (height, width) of an image.
        at: list [i, j], the place. Whoever samples moves it.

    Attributes:
        inputs: what is known of the input, `(n, height, width, c_in)`, height 1 (the present row) where the kernel has
            one row; may be written to.
    """

    def __init__(self, conv, n, size, at):
        (rows, columns), (self.up, self.left) = conv.kernel_size, conv.padding
        # Channels last, the taps that are not masked come first, up to the pixel itself.
        self.taps = (self.up * columns + self.left + 1) * conv.in_channels
        weight = (conv.weight * conv.mask).permute(0, 2, 3, 1).flatten(1)
        self.weight, self.bias, self.at = weight[:, : self.taps].contiguous(), conv.bias, at
        # A kernel of one row needs one row only, and what it sees at each place is a view of it.
        height = size[0] + self.up if self.up else 1
        self.padded = weight.new_zeros(n, height, size[1] + 2 * self.left, conv.in_channels)
        self.inputs = self.padded[:, self.up :, self.left : self.left + size[1]]
        self.places = self.inputs[:, 0].unbind(1)
        self.views = [self.padded[:, 0, j : j + self.left + 1].flatten(1) for j in range(size[1])]
        self.columns, self.single = columns, rows == columns == 1

    def __call__(self, pixel=None):
        """Output at the place `at`, where the input is `pixel`, or what stands in `inputs`."""
        if self.single:
            return F.linear(pixel, self.weight, self.bias)
        i, j = self.at
        if self.up == 0:
            if pixel is not None:
                self.places[j].copy_(pixel)
            return F.linear(self.views[j], self.weight, self.bias)
        if pixel is not None:
            self.inputs[:, i, j] = pixel
        patch = self.padded[:, i : i + self.up + 1, j : j + self.columns].flatten(1)
        return F.linear(patch[:, : self.taps], self.weight, self.bias)


def head(hidden, width, levels, colours):
    """The last two layers, of 1x1 convolutions: `hidden` channels to `levels` for each colour."""
    return nn.Sequential(
        nn.ReLU(),
        MaskedConv2d(hidden, width, 1, "B", colours),
        nn.ReLU(),
        MaskedConv2d(width, levels * colours, 1, "B", colours),
    )


def head_by_pixel(layers, n, size, at):
    """The cached counterpart of `head`."""
    first, last = (ByPixel(layers[k], n, size, at) for k in (1, 3))
    return lambda pixel: last(first(pixel.relu()).relu())


def pixel_by_pixel(model, blocks, n, size, at):
    """`by_pixel` of a model of a masked convolution `first`, then `blocks`, here of one pixel each, then `head`."""
    first, last = ByPixel(model.first, n, size, at), head_by_pixel(model.head, n, size, at)

    def predict(x, i, j):
        at[:] = i, j
        new = slice(max(i - 1, 0), i + 1)  # the last pixel of the row above may just have been drawn
        first.inputs[:, new] = model.scale(x[:, :, new]).movedim(1, -1)
        h = first()
        for block in blocks:
            h = block(h)
        return last(h).unflatten(1, (model.levels, model.shape[0]))

    return predict


class ResidualBlock(nn.Module):
    """2h channels to h, a masked 3x3 convolution, back to 2h, added to the input; `context` shifts the h channels."""

    def __init__(self, hidden, colours=1, context_dim=0):
        super().__init__()
        self.narrow = MaskedConv2d(2 * hidden, hidden, 1, "B", colours)
        self.conv = MaskedConv2d(hidden, hidden, 3, "B", colours)
        self.widen = MaskedConv2d(hidden, 2 * hidden, 1, "B", colours)
        self.shift = nn.Linear(context_dim, hidden, bias=False) if context_dim else None

    def forward(self, x, context=None):
        shift = 0 if context is None else self.shift(context)[:, :, None, None]
        return self.step(x, shift, self.narrow, self.conv, self.widen)

    @staticmethod
    def step(x, shift, narrow, conv, widen):
        return x + widen((conv(narrow(x.relu()).relu()) + shift).relu())

    def by_pixel(self, n, context, size, at):
        shift = 0 if context is None else self.shift(context)
        layers = [ByPixel(layer, n, size, at) for layer in (self.narrow, self.conv, self.widen)]
        return lambda pixel: self.step(pixel, shift, *layers)


class PixelCNN(PixelModel):
    """PixelCNN: a masked convolution of type A, residual blocks of type B, two 1x1 layers, softmax.

    Part of what lies above and to the right stays unseen, the blind spot: one row up, the first layer sees `kernel//2`
    pixels to the right, and every block sees one more only by going one more row up.

    Cached sampling computes one column of every layer for each pixel.

    Args:
        shape: `(channels, height, width)`.
        levels: values of a channel.
        hidden: h; blocks have 2h channels outside, h inside. A multiple of the channels of the image.
        blocks: number of residual blocks.
        kernel: size of the first convolution.
        context_dim: entries of `context`; 0 for none.
    """

    def __init__(self, shape, levels=256, hidden=32, blocks=7, kernel=7, context_dim=0):
        super().__init__(shape, levels, context_dim)
        colours = shape[0]
        self.first = MaskedConv2d(colours, 2 * hidden, kernel, "A", colours)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, colours, context_dim) for _ in range(blocks))
        self.head = head(2 * hidden, 2 * hidden, levels, colours)

    def forward(self, image, context=None):
        h = self.first(image)
        for block in self.blocks:
            h = block(h, context)
        return self.head(h).unflatten(1, (self.levels, self.shape[0]))

    def by_pixel(self, n, context=None):
        size, at = self.shape[1:], [0, 0]
        return pixel_by_pixel(self, [block.by_pixel(n, context, size, at) for block in self.blocks], n, size, at)

    def field(self, i, j):
        """Pixels that pixel (i, j) sees, `(h, w)` of bool, by the arithmetic of the kernels."""
        up, right = self.offsets(i, j)
        near, reach = self.first.padding[0], self.first.padding[0] + len(self.blocks)
        limit = torch.where(up == 0, -1, near + (up - 1).clamp(max=len(self.blocks)))
        return (up >= 0) & (up <= reach) & (right >= -reach) & (right <= limit)
