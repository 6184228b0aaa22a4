"""Pixels one after the other: texture synthesis by copying, colours as classes, and a network for the next pixel."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.autoregressive.common import check_classes, draw, known_entries, steps
from dgm_course.nn import MLP, check_context


@torch.no_grad()
def synthesize(
    texture, size, window=11, seed=3, epsilon=0.1, known=None, mask=None, generator=None, progress=False,
    temperature=1.0, n=None,
):  # fmt: skip
    """Grows new textures pixel by pixel, without any model: p(pixel | neighbours) is read off the example.

    The pixel with most known neighbours is next. Its neighbourhood is compared with every neighbourhood of the
    example, by squared differences over the known pixels with Gaussian weights of standard deviation window / 6.4; the
    new pixel is the centre of one drawn from those within a factor 1 + temperature * epsilon of the nearest.

    Args:
        texture: the example, `(channels, height, width)`, of any dtype; 64x64 is enough for most.
        size: (height, width) of the result.
        window: side of the square neighbourhood, odd; larger than the largest regular structure of the texture.
        seed: side of the square cut of the example from which the result grows, placed in its middle.
        epsilon: how much worse than the nearest a candidate may be; 0 copies the nearest.
        known, mask: completion instead of a seed: images `(n, channels, *size)`, or one `(channels, *size)` for all
            alike; and True where they are kept, `size`.
        generator: of the draws, on the CPU.
        progress: show a bar.
        temperature: sharpness of the choice among candidates: the tolerance is temperature * epsilon, so 1 is the
            paper's rule, 0 takes the nearest (of several as near, one at random).
        n: textures grown side by side, in one order of the pixels; None for one without the first dimension.

    Returns:
        Textures `(n, channels, *size)`, of the dtype of the example; every new pixel is one of the example.

    Raises:
        ValueError: window or seed that does not fit, nothing known to grow from, a negative temperature or epsilon, no
            textures wanted, or wrong shapes.

    References:
        Texture Synthesis by Non-parametric Sampling, Efros, Leung, 1999. Its limit on the distance of a match is left
        out.
    """
    if texture.dim() != 3:
        raise ValueError(f"texture must have shape (channels, height, width), got {tuple(texture.shape)}")
    shortest, r = min(texture.shape[1:]), window // 2
    if window % 2 == 0 or not 1 < window <= shortest:
        raise ValueError(f"window must be odd and from 3 to {shortest}, the side of the texture, got {window}")
    if epsilon < 0 or temperature < 0:
        raise ValueError(f"epsilon and temperature must be at least 0, got {epsilon} and {temperature}")
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    many, channels, (height, width) = n or 1, len(texture), size
    image = texture.new_zeros(many, channels, height, width)
    filled = torch.zeros(height, width, dtype=torch.bool)
    if (known is None) != (mask is None):
        raise ValueError("completion needs both: known (an image) and mask (True where it is kept)")
    if known is None:
        if not 1 <= seed <= min(shortest, height, width):
            raise ValueError(f"seed must be from 1 to {min(shortest, height, width)}, got {seed}")
        middle = (slice((height - seed) // 2, (height + seed) // 2), slice((width - seed) // 2, (width + seed) // 2))
        for one in image:
            top, left = (int(torch.randint(s - seed + 1, (), generator=generator)) for s in texture.shape[1:])
            one[:, *middle] = texture[:, top : top + seed, left : left + seed]
        filled[middle] = True
    else:
        if known.shape not in (image.shape, image.shape[1:]) or mask.shape != filled.shape:
            wanted = f"known must have shape {tuple(image.shape[known.dim() == 3 :])} and mask {tuple(filled.shape)}"
            raise ValueError(f"{wanted}, got {tuple(known.shape)} and {tuple(mask.shape)}")
        filled = mask.bool().cpu().clone()
        if not filled.any():
            raise ValueError("mask must be True somewhere, so that there is something to grow from")
        image = torch.where(filled.to(known.device), known, 0).to(texture).expand_as(image)

    axis = torch.arange(-r, r + 1) / (window / 6.4)
    weights = torch.exp(-0.5 * (axis[:, None] ** 2 + axis**2)).to(texture.device)
    # (window^2, channels, neighbourhoods): the known pixels of a neighbourhood are whole rows.
    cuts = F.unfold(texture.float()[None], window)[0].unflatten(0, (channels, window**2)).transpose(0, 1).contiguous()
    colours = texture[:, r : texture.shape[1] - r, r : texture.shape[2] - r].flatten(1)
    image, filled = F.pad(image, (r, r, r, r)), F.pad(filled, (r, r, r, r))
    inside = F.pad(torch.ones(height, width), (r, r, r, r)).bool()
    ones = torch.ones(1, 1, window, window)
    neighbours = F.conv2d(filled[None, None].float(), ones, padding=r)[0, 0]
    neighbours += 0.5 * torch.rand(neighbours.shape, generator=generator)  # ties are broken at random
    neighbours[filled | ~inside] = -math.inf
    for _ in steps(height * width - int(filled.sum()), progress):
        y, x = divmod(int(neighbours.argmax()), neighbours.shape[1])
        around = (slice(y - r, y + r + 1), slice(x - r, x + r + 1))
        rows = filled[around].flatten().nonzero()[:, 0].to(texture.device)
        near = weights.flatten()[rows]
        for one, patch in zip(image, image[..., *around].float().flatten(2)[..., rows], strict=True):
            # Not by the square of a sum: its rounding would hide that a distance is exactly zero.
            distance = torch.einsum("k,kcn->n", near, (cuts[rows] - patch.T[..., None]).square_())
            candidates = (distance <= (1 + temperature * epsilon) * distance.min()).nonzero()[:, 0]
            one[:, y, x] = colours[:, candidates[int(torch.randint(len(candidates), (), generator=generator))]]
        filled[y, x] = True
        neighbours[around] += 1
        neighbours[y, x] = -math.inf
    image = image[..., r : r + height, r : r + width]
    return image[0] if n is None else image


class SoftmaxRegression(nn.Module):
    """p(y = k | context) = softmax(W context + b)_k: colours as classes, with linear logits.

    Minimizing the cross-entropy with one-hot targets is maximum likelihood. With one-hot positions as context every
    position gets its own table of colours; with no context b alone holds the frequencies of the colours.

    Args:
        levels: number of classes.
        context_dim: features, or 0.
    """

    def __init__(self, levels, context_dim=0):
        super().__init__()
        self.levels, self.context_dim = levels, context_dim
        self.weight = nn.Parameter(torch.zeros(levels, context_dim)) if context_dim else None
        self.bias = nn.Parameter(torch.zeros(levels))

    def logits(self, batch, context=None):
        """Scores of all classes, `(batch, levels)`."""
        check_context(context, self.context_dim, batch)
        return self.bias.expand(batch, -1) if context is None else F.linear(context, self.weight, self.bias)

    def log_prob(self, y, context=None):
        """Log-probability in nats of the classes y `(batch,)`, given features `(batch, context_dim)`."""
        y = check_classes(y, (), self.levels, "y")
        return -F.cross_entropy(self.logits(len(y), context), y, reduction="none")

    def loss(self, y, context=None):
        """Mean negative log-likelihood in nats: the cross-entropy."""
        return -self.log_prob(y, context).mean()

    @torch.no_grad()
    def sample(self, n, context=None, temperature=1.0, generator=None):
        """n classes `(n,)`, one for each row of the context."""
        return draw(self.logits(n, context), temperature, generator)


class NextPixel(nn.Module):
    """A network that predicts the class of the next pixel from the pixels before it within `radius`, in raster order.

    It sees `radius` rows above, from `radius` to the left to `radius` to the right, and `radius` pixels to the left,
    each as one class of `levels + 1`: the last one says "outside the image". The same network serves every position,
    so images may have any size.

    Args:
        shape: `(1, height, width)` of samples.
        levels: colours, each a class.
        radius: of the neighbourhood.
        hidden: widths of the hidden layers.
        context_dim: entries of `context`, seen at every pixel; 0 for none.
    """

    def __init__(self, shape, levels=2, radius=3, hidden=(64, 64), context_dim=0):
        super().__init__()
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(f"shape must be (1, height, width), for a colour is one class, got {tuple(shape)}")
        if radius < 1:
            raise ValueError(f"radius must be at least 1, got {radius}")
        self.shape, self.levels, self.radius, self.context_dim = tuple(shape), levels, radius, context_dim
        self.n_seen = 2 * radius * (radius + 1)
        self.net = MLP(self.n_seen * (levels + 1), levels, hidden, context_dim)

    def pad(self, x):
        """Adds a frame of the class "outside": above, to the left and to the right."""
        return F.pad(x, (self.radius, self.radius, self.radius, 0), value=self.levels)

    def predict(self, seen, context=None):
        """Logits `(batch, levels)` from the `(batch, n_seen)` classes of the pixels before, in raster order."""
        one_hot = F.one_hot(seen, self.levels + 1).flatten(1)
        return self.net(one_hot.to(next(self.parameters()).dtype), context)

    def logits(self, x, context=None):
        """Logits of all pixels at once, `(batch, 1, height, width)` to `(batch, height, width, levels)`."""
        x = check_classes(x, (1, None, None), self.levels)
        check_context(context, self.context_dim, len(x))
        height, width = x.shape[2:]
        cuts = self.pad(x)[:, 0].unfold(1, self.radius + 1, 1).unfold(2, 2 * self.radius + 1, 1)
        seen = cuts.flatten(3)[..., : self.n_seen].flatten(0, 2)
        if context is not None:
            context = context.repeat_interleave(height * width, 0)
        return self.predict(seen, context).view(len(x), height, width, self.levels)

    def log_prob(self, x, context=None):
        """Log-probability in nats of images of any size, integers `(batch, 1, height, width)` to `(batch,)`."""
        logits = self.logits(x, context)
        return -F.cross_entropy(logits.movedim(-1, 1), x[:, 0].long(), reduction="none").sum((1, 2))

    def loss(self, x, context=None):
        """Mean negative log-likelihood of an image in nats."""
        return -self.log_prob(x, context).mean()

    @torch.no_grad()
    def sample(
        self, n, known=None, mask=None, temperature=1.0, generator=None, progress=False, cached=True, context=None,
        shape=None,
    ):  # fmt: skip
        """Images `(n, *shape)`, pixel by pixel in raster order.

        Args:
            n: number of images, drawn side by side.
            known, mask: completion: pixels `(n, *shape)` or `(*shape)` that are kept where `mask` is True. Only
                those before a pixel have a say in it.
            temperature: below 1 favours the likely; 0 takes the likeliest class.
            generator: of the noise.
            progress: show a bar.
            cached: False runs the network at every pixel for each pixel, instead of at that pixel alone.
            context: `(n, context_dim)`, if the model takes one.
            shape: `(1, height, width)`, if not that of the model.
        """
        _, height, width = shape = tuple(shape or self.shape)
        known, mask = known_entries(n, shape, self.levels, known, mask, next(self.parameters()).device)
        check_context(context, self.context_dim, n)
        x, r = self.pad(known), self.radius
        for i in steps(height * width, progress):
            row, column = divmod(i, width)
            if cached:
                cut = x[:, 0, row : row + r + 1, column : column + 2 * r + 1]
                logits = self.predict(cut.flatten(1)[:, : self.n_seen], context)
            else:
                logits = self.logits(x[:, :, r:, r : r + width], context)[:, row, column]
            drawn = draw(logits, temperature, generator)
            given = mask[:, 0, row, column]
            x[:, 0, row + r, column + r] = torch.where(given, known[:, 0, row, column], drawn)
        return x[:, :, r:, r : r + width].contiguous()
