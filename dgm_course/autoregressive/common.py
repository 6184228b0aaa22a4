"""What all samplers and likelihoods share: checks of input, one draw from logits, and the start of a completion."""

import torch
from tqdm.auto import tqdm

from dgm_course.transforms.base import expect


def check_classes(x, shape, levels, name="x"):
    """Checks that `x` holds integers in 0 ... levels-1 of shape `(batch, *shape)`; a None in `shape` fits any size.

    Returns:
        x as int64.

    Raises:
        TypeError: x is no tensor of integers.
        ValueError: wrong shape, or values outside the alphabet.
    """
    if not isinstance(x, torch.Tensor) or x.is_floating_point() or x.is_complex():
        came = f"dtype {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a tensor of integers in 0 ... {levels - 1}, got {came}")
    fits = x.dim() == len(shape) + 1 and all(w in (None, s) for w, s in zip(shape, x.shape[1:], strict=True))
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape (batch, {wanted}), got {tuple(x.shape)}")
    if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < levels:
        raise ValueError(f"{name} must lie in 0 ... {levels - 1}, got values from {int(x.min())} to {int(x.max())}")
    return x.long()


def draw(logits, temperature=1.0, generator=None):
    """Draws classes from softmax(logits / temperature) over the last dimension, `(..., levels)` to `(...)`.

    At temperature 0 the likeliest class. The draw is argmax(logits / temperature + Gumbel noise), so the same
    generator gives the same classes wherever logits agree but for rounding.

    Raises:
        ValueError: negative temperature.
    """
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    if temperature == 0:
        return logits.argmax(-1)
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits / temperature - noise.log()).argmax(-1)


def known_entries(n, shape, levels, known=None, mask=None, device=None):
    """The start of a completion: entries that are given, and where they are.

    Args:
        n: samples.
        shape: shape of one sample, e.g. `(1, 28, 28)`.
        levels: size of the alphabet; None for real numbers, then all entries are floating-point.
        known: entries `(n, *shape)`, or `(*shape)` for all samples alike; None for nothing given.
        mask: True where `known` is kept, of any shape that broadcasts to `(n, *shape)`.
        device: where the samples are made.

    Returns:
        Entries `(n, *shape)`, zero where nothing is given, and a mask `(n, *shape)`.

    Raises:
        TypeError: known holds integers where reals are wanted, or the other way round.
        ValueError: only one of the two given, or wrong shapes or values.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if (known is None) != (mask is None):
        raise ValueError("completion needs both: known (the entries) and mask (True where they are kept)")
    if known is None:
        zeros = torch.zeros(n, *shape, dtype=torch.long if levels else None, device=device)
        return zeros, zeros.bool()
    if known.dim() == len(shape):
        known = known.expand(n, *known.shape)
    if levels:
        known = check_classes(known, shape, levels, "known")
    else:
        expect(known, shape, "known")
    if len(known) != n:
        raise ValueError(f"known must hold {n} samples, got {len(known)}")
    mask = torch.as_tensor(mask)
    try:
        mask = mask.bool().to(device).expand(n, *shape)
    except RuntimeError:
        raise ValueError(f"mask must broadcast to {(n, *shape)}, got {tuple(mask.shape)}") from None
    return torch.where(mask, known.to(device), 0), mask


def steps(n, progress):
    """`range(n)`, with a progress bar if wanted."""
    return tqdm(range(n), leave=False) if progress else range(n)
