"""Video Pixel Network: p(film) as a product over frames, and in each frame over pixels.

    log p(x) = sum_t sum_i log p(x_{t,i} | x_{t,1}, ..., x_{t,i-1}, frames before t)

References:
    Video Pixel Networks, Kalchbrenner, van den Oord, Simonyan, Danihelka, Vinyals, Graves, Kavukcuoglu, 2016.
"""

import torch
from torch import nn

from dgm_course.autoregressive.common import check_classes, draw, steps
from dgm_course.autoregressive.pixel_cnn import MaskedConv2d
from dgm_course.nn import check_context


def plain_conv(c_in, c_out, kernel):
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)


class MultiplicativeUnit(nn.Module):
    """MU(h) = g1 tanh(g2 h + g3 u), with gates g and an update u from one convolution of h (equation 3)."""

    def __init__(self, c, conv):
        super().__init__()
        self.conv = conv(c, 4 * c, 3)

    def forward(self, h):
        g1, g2, g3, u = self.conv(h).chunk(4, dim=1)
        return g1.sigmoid() * (g2.sigmoid() * h + g3.sigmoid() * u.tanh()).tanh()


class ResidualMultiplicativeBlock(nn.Module):
    """Two multiplicative units on half the channels, between 1x1 convolutions, added to the input (equation 4)."""

    def __init__(self, c, conv):
        super().__init__()
        half = c // 2
        self.layers = nn.Sequential(
            nn.Conv2d(c, half, 1), MultiplicativeUnit(half, conv), MultiplicativeUnit(half, conv), nn.Conv2d(half, c, 1)
        )

    def forward(self, h):
        return h + self.layers(h)


class ConvLSTM(nn.Module):
    """LSTM over frames whose gates are convolutions of the frame and of its own last output."""

    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(2 * c, 4 * c, 3, padding=1)

    def forward(self, x, state):
        """One frame, `(batch, c, h, w)`, and the state (output, cell) to the next state; each as large as the frame."""
        output, cell = state
        i, f, o, g = self.conv(torch.cat([x, output], dim=1)).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell


class VideoPixelNetwork(nn.Module):
    """Encoder of full resolution, convolutional LSTM over frames, PixelCNN decoder; films `(batch, frames, 1, h, w)`.

    Args:
        size: (h, w) of a frame.
        levels: grey levels of a pixel.
        channels: channels inside, an even number.
        encoder, decoder: residual multiplicative blocks of each; 8 and 12 in the paper.
        context_dim: entries of a context for the whole film, such as an action; 0 for none.
    """

    def __init__(self, size, levels=2, channels=16, encoder=2, decoder=3, context_dim=0):
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.size, self.levels, self.channels, self.context_dim = tuple(size), levels, channels, context_dim
        self.encoder = nn.Sequential(
            plain_conv(1, channels, 3), *(ResidualMultiplicativeBlock(channels, plain_conv) for _ in range(encoder))
        )
        self.lstm = ConvLSTM(channels)
        self.first = MaskedConv2d(1, channels, 7, "A")
        self.condition = nn.Conv2d(channels + context_dim, channels, 1)
        self.decoder = nn.Sequential(
            *(ResidualMultiplicativeBlock(channels, MaskedConv2d) for _ in range(decoder)),
            nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, levels, 1),
        )  # fmt: skip
        self.reach = 3 + 2 * decoder  # how far the decoder sees, in rows and in columns

    def check(self, x, name="x"):
        return check_classes(x, (None, 1, *self.size), self.levels, name)

    def pixels(self, x):
        return 2 * x.to(self.first.weight) / (self.levels - 1) - 1

    def start(self, batch):
        """The state before the first frame."""
        zeros = self.first.weight.new_zeros(batch, self.channels, *self.size)
        return zeros, zeros

    def remember(self, frame, state):
        """The state after a frame `(batch, 1, h, w)`."""
        return self.lstm(self.encoder(self.pixels(frame)), state)

    def decode(self, frame, seen):
        """Logits `(batch, levels, h, w)` of a frame, from its own earlier pixels and from what was seen before it."""
        return self.decoder(self.first(self.pixels(frame)) + self.condition(seen))

    def seen(self, state, context):
        """Output of the LSTM with the context beside it."""
        check_context(context, self.context_dim, len(state[0]))
        if context is None:
            return state[0]
        return torch.cat([state[0], context[:, :, None, None].expand(-1, -1, *self.size)], dim=1)

    def logits(self, x, context=None):
        """Logits `(batch, frames, levels, h, w)` of all pixels; the decoder judges all frames at once."""
        x = self.check(x)
        if x.shape[1] == 0:
            raise ValueError(f"films must have at least one frame, got shape {tuple(x.shape)}")
        features = self.encoder(self.pixels(x[:, :-1]).flatten(0, 1)).unflatten(0, (len(x), x.shape[1] - 1))
        state = self.start(len(x))
        seen = [self.seen(state, context)]
        for feature in features.unbind(1):
            state = self.lstm(feature, state)
            seen.append(self.seen(state, context))
        return self.decode(x.flatten(0, 1), torch.stack(seen, 1).flatten(0, 1)).unflatten(0, x.shape[:2])

    def log_prob(self, x, context=None):
        """Exact log-probability of films in nats, integers `(batch, frames, 1, h, w)` to `(batch,)`.

        Raises:
            TypeError, ValueError: wrong dtype, shapes or values.
        """
        return self.logits(x, context).log_softmax(2).gather(2, x.long()).flatten(1).sum(1)

    def loss(self, x, context=None):
        """Mean negative log-likelihood of a film in nats, a scalar."""
        if len(x) == 0:
            raise ValueError("the batch is empty; its mean loss is not defined")
        return -self.log_prob(x, context).mean()

    @torch.no_grad()
    def sample(
        self, n, length, prefix=None, context=None, temperature=1.0, generator=None, progress=False, cached=True
    ):
        """Draws films `(n, length, 1, h, w)`, pixel by pixel.

        Args:
            n: films, all drawn at once.
            length: frames, those of the prefix included.
            prefix: first frames, `(n, p, 1, h, w)`, or `(p, 1, h, w)` for all alike; they are kept.
            context: `(n, context_dim)`.
            temperature: flattens (above 1) or sharpens (below 1) each draw.
            generator: for the draws.
            progress: shows a bar.
            cached: keeps the state of the LSTM, and decodes only the part of a frame that a pixel can see; False runs
                the whole model for each pixel. Both make the same draws.
        """
        if n < 1 or length < 1:
            raise ValueError(f"n and length must be at least 1, got {n} and {length}")
        (height, width), begin = self.size, 0
        x = torch.zeros(n, length, 1, height, width, dtype=torch.long, device=self.first.weight.device)
        if prefix is not None:
            prefix = self.check(prefix.expand(n, *prefix.shape) if prefix.dim() == 4 else prefix, "prefix")
            begin = prefix.shape[1]
            if len(prefix) != n or not 1 <= begin <= length:
                wanted = f"({n}, 1 to {length}, 1, {height}, {width})"
                raise ValueError(f"prefix must have shape {wanted}, got {tuple(prefix.shape)}")
            x[:, :begin] = prefix
        state = self.start(n)
        for t in steps(length, progress):
            if cached and t:
                state = self.remember(x[:, t - 1], state)
            seen = self.seen(state, context)
            for r, c in torch.cartesian_prod(torch.arange(height), torch.arange(width)).tolist() if t >= begin else ():
                top, left = max(0, r - self.reach), max(0, c - self.reach)
                part = (..., slice(top, r + 1), slice(left, c + self.reach + 1))
                if cached:
                    logits = self.decode(x[:, t][part], seen[part])[:, :, r - top, c - left]
                else:
                    logits = self.logits(x[:, : t + 1], context)[:, t, :, r, c]
                x[:, t, 0, r, c] = draw(logits, temperature, generator)
        return x
