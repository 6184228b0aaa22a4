"""PixelRNN: LSTMs over the rows or the diagonals of an image, with masks, so that no pixel sees those after it.

References:
    Pixel Recurrent Neural Networks, van den Oord, Kalchbrenner, Kavukcuoglu, 2016, sections 3.1 to 3.3, equation 3,
    figures 3 to 5, table 1.
"""

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.autoregressive.pixel_cnn import ByPixel, MaskedConv2d, head, pixel_by_pixel
from dgm_course.autoregressive.pixels import PixelModel


def cell(gates, c):
    """One step of an LSTM (equation 3): gates `(n, 4h, ...)` and memory c `(n, h, ...)` to new state and memory."""
    o, f, i, g = gates.chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def skew(x):
    """Shifts row i by i to the right, `(n, c, h, w)` to `(n, c, h, w + h - 1)`: a column is then a diagonal of x."""
    height, width = x.shape[2:]
    return F.pad(x, (0, height)).flatten(2)[..., :-height].unflatten(2, (height, width + height - 1))


def unskew(x):
    """Undoes `skew`."""
    height, width = x.shape[2], x.shape[3] - x.shape[2] + 1
    return F.pad(x.flatten(2), (0, height)).unflatten(2, (height, width + height))[..., :width]


class RowLSTM(nn.Module):
    """A row at a time, from the top: the state of a row comes from three neighbours in the row above.

    So a pixel sees a triangle above it. `lstm(x, context)` maps `(n, 2h, height, width)` to `(n, h, height, width)`.
    """

    def __init__(self, hidden, colours=1, context_dim=0):
        super().__init__()
        self.from_input = MaskedConv2d(2 * hidden, 4 * hidden, (1, 3), "B", colours)
        self.from_state = nn.Conv1d(hidden, 4 * hidden, 3, padding=1)
        self.shift = nn.Linear(context_dim, 4 * hidden, bias=False) if context_dim else None

    def forward(self, x, context=None):
        inputs = self.from_input(x)
        if context is not None:
            inputs = inputs + self.shift(context)[:, :, None, None]
        h = c = x.new_zeros(len(x), x.shape[1] // 2, x.shape[3])
        states = []
        for row in inputs.unbind(2):
            h, c = cell(row + self.from_state(h), c)
            states.append(h)
        return torch.stack(states, dim=2)

    def by_pixel(self, n, context, size, at):
        """The part of the state above is computed once for each row, the rest once for each pixel."""
        conv = ByPixel(self.from_input, n, size, at)
        shift = 0 if context is None else self.shift(context)[:, :, None]
        h, c = conv.weight.new_zeros(2, n, self.from_state.in_channels, size[1])
        above, c_above, row = self.from_state(h) + shift, c.clone(), 0

        def step(pixel):
            nonlocal above, c_above, row
            i, j = at
            if i > row:
                above, c_above, row = self.from_state(h) + shift, c.clone(), i
            h[:, :, j], c[:, :, j] = cell(conv(pixel) + above[:, :, j], c_above[:, :, j])
            return h[:, :, j]

        return step


class DiagonalLSTM(nn.Module):
    """A diagonal at a time, from the top left: the state of a pixel comes from the left and from above.

    On the skewed map this is a convolution with two rows over a whole column, so that an image takes
    height + width - 1 steps. Maps `(n, 2h, height, width)` to `(n, h, height, width)`. With `mirror` it runs from the
    top right.
    """

    def __init__(self, hidden, mirror=False, colours=1, context_dim=0):
        super().__init__()
        self.mirror = mirror
        self.from_input = MaskedConv2d(2 * hidden, 4 * hidden, 1, "B", colours)
        self.from_state = nn.Conv1d(hidden, 4 * hidden, 2)
        self.shift = nn.Linear(context_dim, 4 * hidden, bias=False) if context_dim else None

    def forward(self, x, context=None):
        inputs = self.from_input(x.flip(3) if self.mirror else x)
        if context is not None:
            inputs = inputs + self.shift(context)[:, :, None, None]
        inside = skew(torch.ones_like(x[:1, :1]))
        h = c = x.new_zeros(len(x), x.shape[1] // 2, x.shape[2])
        states = []
        for gates, place in zip(skew(inputs).unbind(3), inside.unbind(3), strict=True):
            h, c = cell(gates + self.from_state(F.pad(h, (1, 0))), c)
            h, c = h * place, c * place  # the state outside the image is zero
            states.append(h)
        h = unskew(torch.stack(states, dim=3))
        return h.flip(3) if self.mirror else h

    def by_pixel(self, n, context):
        """For sampling: a function of an input pixel `(n, 2h)`, and h above, h and c beside, each `(n, h)`."""
        conv = ByPixel(self.from_input, n, (1, 1), None)
        above, beside = self.from_state.weight.unbind(2)
        bias = self.from_state.bias + (0 if context is None else self.shift(context))

        def step(pixel, h_above, h_beside, c_beside):
            return cell(conv(pixel) + F.linear(h_above, above) + F.linear(h_beside, beside) + bias, c_beside)

        return step


class DiagonalBiLSTM(nn.Module):
    """Two diagonal LSTMs, from the top left and the top right, so that a pixel sees all above it and to the left.

    The one from the right is moved down by a row before the two are added, or it would bring pixels from the right.
    """

    def __init__(self, hidden, colours=1, context_dim=0):
        super().__init__()
        self.left = DiagonalLSTM(hidden, False, colours, context_dim)
        self.right = DiagonalLSTM(hidden, True, colours, context_dim)

    def forward(self, x, context=None):
        return self.left(x, context) + F.pad(self.right(x, context), (0, 0, 1, 0))[:, :, :-1]

    def by_pixel(self, n, context, size, at):
        """The LSTM from the left moves with the pixels, the other one goes through a row when the row is complete."""
        width, hidden = size[1], self.left.from_state.in_channels
        left, right = self.left.by_pixel(n, context), self.right.by_pixel(n, context)
        weight, row = self.left.from_state.weight, 0
        inputs = weight.new_zeros(width, n, 2 * hidden)
        # States of a row, with a zero at the end where nothing is beside the first pixel (index -1, or width).
        h, h_above, c, right_row = weight.new_zeros(4, width + 1, n, hidden)

        def step(pixel):
            nonlocal h, h_above, row
            i, j = at
            if i > row:
                h, h_above, row = h_above, h, i
                h[-1] = c_right = torch.zeros_like(c[0])
                for k in reversed(range(width)):
                    right_row[k], c_right = right(inputs[k], right_row[k], right_row[k + 1], c_right)
            inputs[j] = pixel
            h[j], c[j] = left(pixel, h_above[j], h[j - 1], c[j - 1])
            return h[j] + right_row[j]

        return step


class PixelRNN(PixelModel):
    """PixelRNN: a masked convolution of type A, LSTM layers with residual connections, two 1x1 layers, softmax.

    Cached sampling takes one step of every LSTM for each pixel; what depends on the row above alone is computed once
    for each row.

    Args:
        shape: `(channels, height, width)`.
        levels: values of a channel.
        hidden: h; the LSTMs have h units, the map between them 2h channels. A multiple of the channels of the image.
        layers: number of LSTM layers.
        kind: "row" for row LSTMs, "diagonal" for diagonal BiLSTMs.
        kernel: size of the first convolution.
        context_dim: entries of `context`, which shifts the gates; 0 for none.
    """

    def __init__(self, shape, levels=256, hidden=32, layers=7, kind="row", kernel=7, context_dim=0):
        super().__init__(shape, levels, context_dim)
        if kind not in ("row", "diagonal"):
            raise ValueError(f'kind must be "row" or "diagonal", got {kind!r}')
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        lstm, colours = RowLSTM if kind == "row" else DiagonalBiLSTM, shape[0]
        self.kind = kind
        self.first = MaskedConv2d(colours, 2 * hidden, kernel, "A", colours)
        self.lstms = nn.ModuleList(lstm(hidden, colours, context_dim) for _ in range(layers))
        self.widen = nn.ModuleList(MaskedConv2d(hidden, 2 * hidden, 1, "B", colours) for _ in range(layers))
        self.head = head(2 * hidden, 2 * hidden, levels, colours)

    def forward(self, image, context=None):
        x = self.first(image)
        for lstm, widen in zip(self.lstms, self.widen, strict=True):
            x = x + widen(lstm(x, context))
        return self.head(x).unflatten(1, (self.levels, self.shape[0]))

    def by_pixel(self, n, context=None):
        size, at = self.shape[1:], [0, 0]

        def block(lstm, widen):
            lstm, widen = lstm.by_pixel(n, context, size, at), ByPixel(widen, n, size, at)
            return lambda pixel: pixel + widen(lstm(pixel))

        return pixel_by_pixel(self, list(map(block, self.lstms, self.widen)), n, size, at)

    def field(self, i, j):
        """Pixels that pixel (i, j) sees, `(h, w)` of bool: those in a triangle, or all before it but for one.

        The diagonal BiLSTM may miss the last pixel of the row above. The LSTM from the right ends there, and its input
        at that place, after a layer of type A, knows the pixels before it alone.
        """
        up, right = self.offsets(i, j)
        near = self.first.padding[0]
        if self.kind == "diagonal":
            missed = (up == 1) & (right == self.shape[2] - 1 - j) & (right > near)
            return ((up > 0) | ((up == 0) & (right < 0))) & ~missed
        before = torch.where(up == 0, right < 0, (up > 0) & (right < up + near))
        return before & (right >= -(up + near + len(self.lstms)))
