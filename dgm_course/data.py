"""Data sets that ship with the course, 2-D toys with known densities, energies and moving digits.

`load` reads real data, `toy` draws points in the plane, `energy` gives the potentials of Rezende and Mohamed, and
`moving_digits` makes short films. Sources, licences and checksums of the shipped files: `data/README.md`.
"""

import functools
import json
import math
import os
from pathlib import Path

import numpy as np
import torch

from . import full_sets

SPLITS = ("train", "valid", "test", "all")
ONLY_FULL = ("fsdd", "frey_faces")  # sets of which no part ships


def folder() -> Path:
    """The folder of the shipped data sets: `data/` of the checkout (or `DGM_DATA`, if that holds an `index.json`).

    Raises:
        FileNotFoundError: no folder `data/` with an `index.json` above this file or the current folder.
    """
    starts = [Path(__file__).resolve().parent, Path.cwd()]
    candidates = [parent / "data" for start in starts for parent in (start, *start.parents)]
    if os.environ.get("DGM_DATA"):
        candidates.insert(0, Path(os.environ["DGM_DATA"]))
    for candidate in candidates:
        if (candidate / "index.json").is_file():
            return candidate
    raise FileNotFoundError(
        "the course's data folder was not found above this file or the current folder: "
        "run inside a checkout of the course, or set DGM_DATA to its data folder"
    )


@functools.cache
def _index(path: Path) -> dict:
    return json.loads((path / "index.json").read_text())


def index() -> dict:
    """The cards of the shipped sets by name: file, about, source, licence, sha256, splits (see `data/index.json`)."""
    return _index(folder())


def _choose(what: str, got, choices):
    """`got` if it is among `choices`, else an error that lists them."""
    if got not in choices:
        raise ValueError(f"{what} must be one of {', '.join(map(str, choices))}; got {got!r}")
    return got


def load(name: str, split: str = "train", labels: bool | str = False, full: bool = False):
    """Load a data set as tensors.

    | name             | x, shape              | dtype   | range    | train / valid / test | labels         |
    |------------------|-----------------------|---------|----------|----------------------|----------------|
    | mnist            | (n, 1, 28, 28)        | uint8   | 0 to 255 | 4000 / 500 / 500     | digit          |
    | digits8          | (n, 1, 8, 8)          | uint8   | 0 to 16  | 1200 / 200 / 397     | digit          |
    | fashion_mnist    | (n, 1, 28, 28)        | uint8   | 0 to 255 | 10000 / 1000 / 2000  | class          |
    | textures         | (3, 1, 512, w)        | uint8   | 0 to 255 | w = 384 / 64 / 64    | texture        |
    | photos           | (4, 3, 256, w)        | uint8   | 0 to 255 | w = 256 / 64 / 64    | photo          |
    | speech           | (n, 1, 4096), 8 kHz   | float32 | -1 to 1  | 160 / 40 / 40        | digit, voice   |
    | speech_phrases   | (n, 1, 12288), 8 kHz  | float32 | -1 to 1  | 16 / 4 / 4           | phrase, voice  |
    | tiny_shakespeare | (characters,)         | int64   | 0 to 64  | 90% / 5% / 5%        |                |
    | full sets (`dgm data fetch NAME`), with `full=True`:                                                  |
    | mnist            | (n, 1, 28, 28)        | uint8   | 0 to 255 | 55000 / 5000 / 10000 | digit          |
    | fashion_mnist    | (n, 1, 28, 28)        | uint8   | 0 to 255 | 55000 / 5000 / 10000 | class          |
    | fsdd             | (n, 1, 8192), 8 kHz   | float32 | -1 to 1  | 2400 / 300 / 300     | digit, speaker |
    | frey_faces       | (n, 1, 28, 20)        | uint8   | 0 to 255 | 1565 / 200 / 200     |                |
    | tiny_shakespeare | (characters,)         | int64   | 0 to 64  | 90% / 5% / 5%        |                |

    Images are exact integers: dequantize or scale them where the model needs it, and say so beside the number.
    Speech is 16-bit sound divided by 32,768, so `(x * 32768).short()` gives the exact samples back.
    `split="all"` joins the three splits: along the examples, or, for textures and photos, back to whole images.
    The splits of the shipped part of Fashion-MNIST lie inside the same splits of the full set.

    Args:
        name: a name from the table.
        split: "train", "valid", "test" or "all". Splits are fixed and disjoint; choose models on valid.
        labels: True for the first kind of label in the table, or the name of a kind.
        full: read the full set instead of the shipped part. Sets that do not ship are found without it.

    Returns:
        x, or (x, y) with y int64 of shape (n,) if `labels`.

    Raises:
        ValueError: unknown name, split or kind of label; the message lists the choices.
        FileNotFoundError: the file is not there; the message says how to get it.
    """
    _choose("split", split, SPLITS)
    if full:
        _choose("name of a full set", name, full_sets.FULL)
    else:
        _choose("name", name, [*index(), *ONLY_FULL])
    full = full or name in ONLY_FULL
    card = {} if full else index()[name]
    kinds = full_sets.FULL[name].labels if full else tuple(card.get("labels", ()))
    if labels and not kinds:
        raise ValueError(f"{name} has no labels")
    kind = kinds[0] if labels is True else labels and _choose(f"labels of {name}", labels, (*kinds, True, False))

    if name == "tiny_shakespeare":
        return _codes(_text(name, full), split)
    parts = ("train", "valid", "test") if split == "all" else (split,)
    if full:
        xs, ys = zip(*(full_sets.read(name, part) for part in parts), strict=True)
        ys = [y[kind] for y in ys] if kind else None
        axis = 0
    else:
        with np.load(folder() / card["file"]) as file:
            xs = [file[f"{part}_x"] for part in parts]
            ys = [file[f"{part}_{kind}"] for part in parts] if kind else None
        axis = -1 if card.get("join") == "columns" else 0
    x = torch.from_numpy(np.concatenate(xs, axis))
    if x.dtype == torch.int16:
        x = x.float() / 32768
    if not kind:
        return x
    return x, torch.from_numpy(np.concatenate(ys) if axis == 0 else ys[0])


def class_names(name: str, kind: str | None = None) -> list[str]:
    """What the labels of a shipped set stand for: `class_names("fashion_mnist")[9]` is "Ankle boot"."""
    labels = index()[_choose("name of a set with labels", name, [key for key in index() if "labels" in index()[key]])]
    kinds = list(labels["labels"])
    return labels["labels"][_choose(f"labels of {name}", kind or kinds[0], kinds)]


def _text(name: str, full: bool = False) -> str:
    path = full_sets.folder(name) / "input.txt" if full else folder() / index()[name]["file"]
    return path.read_text(encoding="utf-8")


def _codes(text: str, split: str) -> torch.Tensor:
    """The characters of one split as int64 positions in the sorted alphabet of the whole text."""
    alphabet = np.array(sorted(set(text)))
    codes = torch.from_numpy(np.searchsorted(alphabet, np.array(list(text))))
    first, second = int(0.9 * len(codes)), int(0.95 * len(codes))
    return {"train": codes[:first], "valid": codes[first:second], "test": codes[second:], "all": codes}[split]


def vocabulary(name: str = "tiny_shakespeare") -> str:
    """The alphabet of a text, sorted: code i stands for character `vocabulary()[i]`."""
    _choose("name of a text", name, ["tiny_shakespeare"])
    return "".join(sorted(set(_text(name))))


def encode(text: str, alphabet: str) -> torch.Tensor:
    """Characters to int64 codes, shape (len(text),). Raises ValueError for a character outside `alphabet`."""
    strange = sorted(set(text) - set(alphabet))
    if strange:
        raise ValueError(f"characters {strange} are not in the alphabet of {len(alphabet)} characters")
    return torch.tensor([alphabet.index(character) for character in text], dtype=torch.int64)


def decode(codes: torch.Tensor, alphabet: str) -> str:
    """Int64 codes of shape (length,) to characters."""
    return "".join(alphabet[code] for code in codes.tolist())


def patches(images: torch.Tensor, size: int, n: int, seed: int = 0) -> torch.Tensor:
    """`n` random square cuts of images (m, channels, height, width): shape (n, channels, size, size), same dtype."""
    m, _, height, width = images.shape
    if not 0 < size <= min(height, width):
        raise ValueError(f"size must be from 1 to {min(height, width)} for images of {height}x{width}, got {size}")
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(height - size + 1, size=n), rng.integers(width - size + 1, size=n)
    cuts = zip(rng.integers(m, size=n), rows, columns, strict=True)
    return torch.stack([images[i, :, r : r + size, c : c + size] for i, r, c in cuts])


def moving_digits(
    n: int, frames: int = 20, seed: int = 0, size: int = 64, digits: int = 2, split: str = "train"
) -> torch.Tensor:
    """Films of handwritten digits that move straight on and bounce off the edges.

    Each digit starts anywhere, with a speed of 2 to 5 pixels per frame in a random direction; where digits overlap
    the brighter pixel is shown.

    Args:
        n: number of films.
        frames: length of each.
        seed: same seed, same films.
        size: side of the square picture in pixels, above 28.
        digits: digits in each film.
        split: the split of `mnist` that the digits come from.

    Returns:
        uint8 tensor of shape (n, frames, 1, size, size), 0 to 255.

    References:
        Srivastava, Mansimov and Salakhutdinov, Unsupervised Learning of Video Representations using LSTMs, 2015.
    """
    if size <= 28:
        raise ValueError(f"size must be above 28, the side of a digit, got {size}")
    images = load("mnist", split)[:, 0].numpy()
    rng = np.random.default_rng(seed)
    which = rng.integers(len(images), size=(n, digits))
    room = size - 28
    start = rng.uniform(0, room, (n, digits, 1, 2))
    speed, angle = rng.uniform(2, 5, (n, digits)), rng.uniform(0, 2 * np.pi, (n, digits))
    velocity = speed[..., None, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)[:, :, None]
    unfolded = start + velocity * np.arange(frames)[:, None]
    corner = np.rint(room - np.abs(unfolded % (2 * room) - room)).astype(int)  # (n, digits, frames, 2): a triangle wave
    films = np.zeros((n, frames, 1, size, size), dtype=np.uint8)
    for i, d, t in np.ndindex(n, digits, frames):
        row, column = corner[i, d, t]
        window = films[i, t, 0, row : row + 28, column : column + 28]
        np.maximum(window, images[which[i, d]], out=window)
    return torch.from_numpy(films)


def _moons(n, rng):
    angle, lower = rng.uniform(0, np.pi, n), rng.random(n) < 0.5
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle)), np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    return 2 * (np.stack(x, 1) + 0.1 * rng.standard_normal((n, 2))) + [-1.0, -0.2]


def _circles(n, rng):
    angle, radius = rng.uniform(0, 2 * np.pi, n), rng.choice([1.0, 0.5], n)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return 3 * (x + 0.08 * rng.standard_normal((n, 2)))


def _pinwheel(n, rng):
    radial, tangential = 1 + 0.3 * rng.standard_normal(n), 0.1 * rng.standard_normal(n)
    angle = 2 * np.pi * rng.integers(5, size=n) / 5 + 0.25 * np.exp(radial)
    cos, sin = np.cos(angle), np.sin(angle)
    return 2 * np.stack([radial * cos + tangential * sin, tangential * cos - radial * sin], 1)


def _eight_gaussians(n, rng):
    angle = 2 * np.pi * rng.integers(8, size=n) / 8
    centre = 4 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return (centre + 0.5 * rng.standard_normal((n, 2))) / 1.414


def _checkerboard(n, rng):
    row, column = rng.integers(4, size=n), 2 * rng.integers(2, size=n)
    corner = np.stack([row, column + row % 2], 1) - 2
    inside = rng.integers(2**20, size=(n, 2)) / 2**20  # exact in float32, so that no point rounds into the next square
    return 2.0 * (corner + inside)


def _spirals(n, rng):
    angle = 3 * np.pi * np.sqrt(rng.random(n))
    arm = np.stack([-angle * np.cos(angle), angle * np.sin(angle)], 1) + 0.5 * rng.random((n, 2))
    return rng.choice([-1.0, 1.0], (n, 1)) * arm / 3 + 0.1 * rng.standard_normal((n, 2))


def _parabola(n, rng):
    x2 = 2 * rng.standard_normal(n)
    return np.stack([x2**2 / 4 + rng.standard_normal(n), x2], 1) / 40


TOYS = {
    "moons": _moons,
    "circles": _circles,
    "pinwheel": _pinwheel,
    "eight_gaussians": _eight_gaussians,
    "checkerboard": _checkerboard,
    "spirals": _spirals,
    "parabola": _parabola,
}
# Differential entropy in nats: no model can reach a lower expected negative log-likelihood.
TOY_ENTROPY = {
    "moons": 2.400,
    "eight_gaussians": 2.832,
    "checkerboard": math.log(32),
    "parabola": math.log(2 * math.pi * math.e * 2 / 40**2),
}


def toy(name: str, n: int, seed: int = 0) -> torch.Tensor:
    """`n` independent points of a 2-D toy distribution: float32, shape (n, 2).

    Names (`TOYS`): moons, circles, pinwheel, eight_gaussians, checkerboard and spirals, as in FFJORD (coordinates
    about -4 to 4), and parabola: x2 ~ N(0, 4), x1 ~ N(x2^2 / 4, 1), N(mean, variance), both divided by 40.
    FFJORD spaces the points of moons and circles evenly; here angles are uniform, so that points are independent.

    Raises:
        ValueError: unknown name, or n below 0.

    References:
        Grathwohl et al., FFJORD, 2019 (`lib/toy_data.py` of its code); parabola: Papamakarios, Pavlakou and Murray,
        Masked Autoregressive Flow for Density Estimation, 2017, Figure 1.
    """
    _choose("toy", name, TOYS)
    return torch.from_numpy(TOYS[name](n, np.random.default_rng(seed)).astype(np.float32))


def toy_log_prob(name: str, x: torch.Tensor) -> torch.Tensor:
    """Exact log-density in nats of eight_gaussians, checkerboard or parabola at x (n, 2): shape (n,), dtype of x.

    The checkerboard is uniform on eight squares of side 2 and has log-density -inf elsewhere.
    """
    _choose("toy with a closed-form density", name, ("eight_gaussians", "checkerboard", "parabola"))
    if x.ndim != 2 or x.shape[1] != 2:
        raise ValueError(f"x must have shape (n, 2), got {tuple(x.shape)}")
    if name == "eight_gaussians":
        angle = torch.arange(8, dtype=x.dtype, device=x.device) * (math.pi / 4)
        centre, scale = 4 / 1.414 * torch.stack([angle.cos(), angle.sin()], 1), 0.5 / 1.414
        square = ((x[:, None] - centre) / scale).square().sum(-1)  # (n, 8)
        return torch.logsumexp(-square / 2, 1) - math.log(8 * 2 * math.pi * scale**2)
    if name == "checkerboard":
        square = torch.floor(x / 2)
        inside = (square.abs() <= 2).all(1) & (square < 2).all(1) & (square.sum(1) % 2 == 0)
        return torch.where(inside, -math.log(32), -math.inf).to(x)
    x1, x2 = (40 * x).unbind(1)
    return -((x2 / 2).square() + (x1 - x2.square() / 4).square()) / 2 - math.log(2 * math.pi * 2) + 2 * math.log(40)


def energy(name: str, z: torch.Tensor) -> torch.Tensor:
    """The energy U(z) of a test density p(z) proportional to exp(-U(z)), z of shape (n, 2): shape (n,).

    U1 is a ring with two modes; U2 a sine wave; U3 and U4 sine waves that split in two. U2 to U4 do not fall off
    along z1, so their densities are taken on a box, usually |z1| <= 4.

    References:
        Rezende and Mohamed, Variational Inference with Normalizing Flows, 2015, Table 1.
    """
    _choose("energy", name, ("U1", "U2", "U3", "U4"))
    if z.ndim != 2 or z.shape[1] != 2:
        raise ValueError(f"z must have shape (n, 2), got {tuple(z.shape)}")
    z1, z2 = z.unbind(1)

    def bump(a, width):
        return -0.5 * (a / width).square()  # log of an unnormalized Gaussian

    w1 = torch.sin(2 * math.pi * z1 / 4)
    if name == "U1":
        return -bump(z.norm(dim=1) - 2, 0.4) - torch.logaddexp(bump(z1 - 2, 0.6), bump(z1 + 2, 0.6))
    if name == "U2":
        return -bump(z2 - w1, 0.4)
    if name == "U3":
        w2 = 3 * bump(z1 - 1, 0.6).exp()
        return -torch.logaddexp(bump(z2 - w1, 0.35), bump(z2 - w1 + w2, 0.35))
    w3 = 3 * torch.sigmoid((z1 - 1) / 0.3)
    return -torch.logaddexp(bump(z2 - w1, 0.4), bump(z2 - w1 + w3, 0.35))
