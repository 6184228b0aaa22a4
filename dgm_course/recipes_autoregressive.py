"""Recipes of autoregressive models: digits in black and white, clothes, textures, speech, text, moving digits."""

import functools
import math

import torch
from torch.nn import functional as F

from dgm_course import data as datasets
from dgm_course import metrics
from dgm_course.autoregressive.bytenet import ByteNet
from dgm_course.autoregressive.fvbn import FVBN
from dgm_course.autoregressive.gated_pixel_cnn import GatedPixelCNN
from dgm_course.autoregressive.made import MADE
from dgm_course.autoregressive.nade import NADE
from dgm_course.autoregressive.pixel_cnn import PixelCNN
from dgm_course.autoregressive.pixel_rnn import PixelRNN
from dgm_course.autoregressive.sparse_transformer import SparseTransformer
from dgm_course.autoregressive.texture import NextPixel
from dgm_course.autoregressive.video_pixel_network import VideoPixelNetwork
from dgm_course.autoregressive.wavenet import WaveNet, mu_law_encode
from dgm_course.recipe import Data, Recipe, likelihood

SPLITS = ("train", "valid", "test")


def integers(name, train, valid, test, how):
    """`Data` of integers, given to the model as they are."""
    sizes = [len(x[0] if isinstance(x, tuple) else x) for x in (train, valid, test)]
    name = f"{name}, {' / '.join(f'{n:,}' for n in sizes)}"
    return Data(name, train, valid, test, metrics.discrete(how))


def images(name, to_integers, classes, how):
    """A shipped set of images; with the class, one-hot, as context."""
    splits = []
    for split in SPLITS:
        x, y = datasets.load(name, split, labels=True)
        x = to_integers(x)
        splits.append((x, F.one_hot(y.long(), 10).float()) if classes else x)
    return integers(f"{name}, shipped part{', with class' if classes else ''}", *splits, how)


@functools.cache
def digits(classes=False):
    """Shipped part of MNIST, one where a pixel is above 127; with the class, one-hot, as context."""
    return images("mnist", lambda x: (x > 127).long(), classes, "binarized: pixel above 127")


@functools.cache
def clothes():
    """Shipped part of Fashion-MNIST in its 256 grey levels, with the class, one-hot, as context."""
    return images("fashion_mnist", torch.Tensor.long, True, "256 grey levels")


@functools.cache
def texture(levels=8, size=24):
    """Patches of a texture: of the upper part to train on, of the lower part to validate and to test."""
    image = datasets.load("textures")[:1].long() * levels // 256
    parts = [(image[:, :, :384], 2000, 0), (image[:, :, 384:], 200, 1), (image[:, :, 384:], 200, 2)]
    splits = [datasets.patches(part, size, n, seed) for part, n, seed in parts]
    return integers(f"a texture, patches of {size}x{size}", *splits, f"{levels} grey levels")


@functools.cache
def speech(length=1024):
    """Pieces of the shipped digits that were spoken, 8-bit mu-law."""
    splits = [mu_law_encode(datasets.load("speech", split)[:, 0]).unfold(1, length, length) for split in SPLITS]
    return integers(f"speech, pieces of {length}", *(x.reshape(-1, length) for x in splits), "8-bit mu-law")


@functools.cache
def text(length=256):
    """Tiny Shakespeare in pieces of `length` characters."""
    splits = [datasets.load("tiny_shakespeare", split) for split in SPLITS]
    splits = [x[: len(x) // length * length].reshape(-1, length).long() for x in splits]
    return integers(f"tiny_shakespeare, pieces of {length} characters", *splits, "65 characters")


@functools.cache
def films(frames=6, size=32):
    """One moving digit in black and white."""
    sizes = {"train": 500, "valid": 50, "test": 100}
    splits = [(datasets.moving_digits(n, frames, k, size, 1, split) > 127).long()
              for k, (split, n) in enumerate(sizes.items())]  # fmt: skip
    return integers(f"one moving digit, {frames} frames of {size}x{size}", *splits, "binarized: pixel above 127")


def shuffled_made(shape, **sizes):
    """A `MADE` whose order is drawn once, with its first parameters.

    In raster order the left neighbour of a pixel, its best witness, reaches it only through hidden units of one degree,
    and 500 units leave many of 783 degrees without. In a random order what is near comes long before, or after.
    """
    return MADE(shape, order=torch.randperm(math.prod(shape)), **sizes)


def built(make, sizes, tiny, data, small):
    """`Recipe.model` of a model whose sizes do not follow from the data."""
    return make(**(sizes | tiny if small else sizes))


def row(make, sizes, tiny, data, steps, batch_size, lr=1e-3, first=None, at_once=100, every=50, **options):
    """A recipe: steps at budget cpu, ten times as many at gpu, and the parameters that validate best."""
    about = f"{make.__name__}({', '.join(f'{k}={v}' for k, v in sizes.items())})"
    return Recipe(
        functools.partial(built, make, sizes, tiny), data, about, "autoregressive",
        {"smoke": 2, "cpu": steps, "gpu": 10 * steps}, {"smoke": 4, "cpu": batch_size}, lr,
        evaluate=functools.partial(likelihood, first=first, batch_size=at_once),
        options={"schedule": "cosine", "eval_every": every} | options,
    )  # fmt: skip


IMAGE = {"shape": (1, 28, 28)}
BINARY = IMAGE | {"levels": 2}
FEW = {"hidden": 4, "layers": 1}
RECIPES = {
    "fvbn-digits": row(FVBN, IMAGE, {}, digits, 1500, 128, 1e-2),
    "nade-digits": row(NADE, IMAGE | {"hidden": 128}, {"hidden": 4}, digits, 600, 64, 2e-2),
    "made-digits": row(
        shuffled_made, IMAGE | {"hidden": (500, 500), "direct": True}, {"hidden": (8,)}, digits, 1000, 128, 5e-3,
        ema=0.998,
    ),
    "pixelcnn-digits": row(
        PixelCNN, BINARY | {"hidden": 16, "blocks": 5}, {"hidden": 4, "blocks": 1}, digits, 600, 32, 2e-3
    ),
    "gated-pixelcnn-digits": row(
        GatedPixelCNN, BINARY | {"hidden": 32, "layers": 5, "context_dim": 10}, FEW,
        functools.partial(digits, True), 1000, 32, 2e-3,
    ),
    "gated-pixelcnn-fashion": row(
        GatedPixelCNN, IMAGE | {"levels": 256, "hidden": 32, "layers": 5, "context_dim": 10}, FEW, clothes, 6000, 16,
        2e-3, ema=0.999, every=300,
    ),
    "rowlstm-digits": row(PixelRNN, BINARY | {"hidden": 16, "layers": 2}, FEW, digits, 300, 32, 3e-3, first=200),
    "diagonal-digits": row(
        PixelRNN, BINARY | {"hidden": 16, "layers": 2, "kind": "diagonal"}, FEW, digits, 200, 32, 3e-3, first=200
    ),
    "nextpixel-texture": row(NextPixel, {"shape": (1, 24, 24), "levels": 8}, {}, texture, 1000, 32),
    "wavenet-speech": row(
        WaveNet, {"channels": 32, "skip": 64, "layers": 8, "stacks": 2}, {"channels": 4, "skip": 4, "layers": 2},
        speech, 300, 8, 2e-3, at_once=20, every=100,
    ),
    "bytenet-text": row(
        ByteNet, {"levels": 65, "d": 48, "layers": 5, "sets": 2}, {"d": 4, "layers": 2}, text, 500, 16, 2e-3,
        every=250,
    ),
    "sparse-transformer-text": row(
        SparseTransformer, {"levels": 65, "length": 256, "width": 64, "layers": 4, "pattern": "fixed"},
        {"width": 8, "heads": 2, "layers": 1}, text, 500, 16, 2e-3, every=250,
    ),
    "vpn-films": row(
        VideoPixelNetwork, {"size": (32, 32), "channels": 16}, {"channels": 2, "encoder": 1, "decoder": 1}, films,
        150, 8, 2e-3, at_once=10,
    ),
}  # fmt: skip
