"""What PixelCNN, Gated PixelCNN and PixelRNN share: likelihood, sampling, and what a pixel sees."""

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.autoregressive.common import check_classes, draw, known_entries, steps
from dgm_course.nn import check_context


class PixelModel(nn.Module):
    """An image as a sequence: rows from the top, pixels from the left, channels in order (R, G, B).

        p(x) = prod_i p(x_i | x_<i),  each factor a softmax over the values of one channel of one pixel

    A model has `forward(image, context=None)`, from images scaled to [-1, 1] to logits `(batch, levels, c, h, w)`;
    `by_pixel(n, context)`, which returns the cached counterpart: a function of `(x, i, j)` that gives the logits
    `(n, levels, c)` of one pixel and is called for the pixels in their order; and `field(i, j)`, what it sees.

    Args:
        shape: `(channels, height, width)` of an image.
        levels: values of a channel, 0 ... levels-1.
        context_dim: entries of `context`, e.g. classes in one-hot code; 0 for none.

    References:
        Pixel Recurrent Neural Networks, van den Oord, Kalchbrenner, Kavukcuoglu, 2016, equations 1 and 2.
    """

    def __init__(self, shape, levels=256, context_dim=0):
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be (channels, height, width), got {tuple(shape)}")
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.shape, self.levels, self.context_dim = tuple(shape), levels, context_dim

    def scale(self, x):
        """Integers 0 ... levels-1 to numbers from -1 to 1, in the model's precision."""
        return x.to(next(self.parameters()).dtype) * (2 / (self.levels - 1)) - 1

    def class_logits(self, x, context):
        x = check_classes(x, self.shape, self.levels)
        check_context(context, self.context_dim, len(x))
        return self(self.scale(x), context), x

    def logits(self, x, context=None):
        """Logits `(batch, c, h, w, levels)` of every entry given those before it, for integers `(batch, c, h, w)`."""
        return self.class_logits(x, context)[0].movedim(1, -1)

    def log_prob(self, x, context=None):
        """log p(x) in nats, `(batch,)`, of integers `(batch, c, h, w)`."""
        logits, x = self.class_logits(x, context)
        return -F.cross_entropy(logits, x, reduction="none").flatten(1).sum(1)

    def loss(self, x, context=None):
        """Mean negative log-likelihood of an image in nats."""
        return -self.log_prob(x, context).mean()

    @torch.no_grad()
    def sample(
        self,
        n,
        context=None,
        known=None,
        mask=None,
        temperature=1.0,
        generator=None,
        progress=False,
        cached=True,
    ):
        """Draws images, entry by entry in the model's order; completes them where `known` and `mask` are given.

        An entry that is drawn knows all entries before it, given ones too, but no given ones that come after it.

        Args:
            n: number of images.
            context: `(n, context_dim)`.
            known: integers `(n, c, h, w)` or `(c, h, w)`.
            mask: True where `known` is kept; of any shape that broadcasts to `(n, c, h, w)`.
            temperature: divides the logits; 0 takes the likeliest value.
            generator: source of the noise.
            progress: show a bar.
            cached: False for one pass of the whole network for each entry. The same generator gives the same images.

        Returns:
            Integers `(n, c, h, w)`.

        Raises:
            ValueError: wrong shapes, values outside 0 ... levels-1, or a negative temperature.
        """
        device = next(self.parameters()).device
        x, mask = known_entries(n, self.shape, self.levels, known, mask, device)
        check_context(context, self.context_dim, n)
        channels, height, width = self.shape
        predict = self.by_pixel(n, context) if cached else lambda x, i, j: self(self.scale(x), context)[..., i, j]
        for step in steps(height * width, progress):
            i, j = divmod(step, width)
            for k in range(channels):
                new = draw(predict(x, i, j)[:, :, k].contiguous(), temperature, generator)
                x[:, k, i, j] = torch.where(mask[:, k, i, j], x[:, k, i, j], new)
        return x

    def offsets(self, i, j):
        """How many rows above pixel (i, j) each pixel lies, `(h, 1)`, and how many columns to its right, `(1, w)`."""
        _, height, width = self.shape
        if not (0 <= i < height and 0 <= j < width):
            raise ValueError(f"pixel must lie in {height} x {width}, got ({i}, {j})")
        return i - torch.arange(height)[:, None], torch.arange(width)[None] - j


def sees(model, i, j, channel=0, context=None, images=16, generator=None):
    """What one entry of an image depends on, measured: gradients of its logits on random images.

    Args:
        model: a `PixelModel`.
        i, j, channel: row, column and channel of the entry.
        context: `(images, context_dim)`.
        images: number of random images. The largest gradient among them counts.
        generator: source of the images.

    Returns:
        Largest size of a derivative by every entry, `(c, h, w)`; exactly 0 where there is no path.
    """
    like = next(model.parameters())
    image = 2 * torch.rand(images, *model.shape, generator=generator, dtype=like.dtype, device=like.device) - 1
    with torch.enable_grad():
        image.requires_grad_()
        logits = model(image, context)[:, :, channel, i, j]
        # A random mix of the logits: their sum may have no gradient where each of them has.
        mix = torch.randn(logits.shape, generator=generator, dtype=like.dtype, device=like.device)
        (slope,) = torch.autograd.grad((mix * logits).sum(), image)
    return slope.abs().amax(0)
