"""Recipes: which model on which data, how long, and how it is judged. `dgm train NAME` follows one.

`RECIPES` is the whole table. A new vector flow is one row of `FLOWS`; any other model is one `Recipe`, with a loss and
an evaluation of its own where likelihood is not the measure.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch

from dgm_course import data as datasets
from dgm_course import flows, metrics, training
from dgm_course.transforms import Compose, Cubic, Logit, Standardize


@dataclasses.dataclass(frozen=True)
class Data:
    """Three splits and the convention that makes x of them.

    Attributes:
        name: what they are, in words.
        train, valid, test: tensors `(n, ...)` on their own scale, or pairs `(data, context)`; valid may be None, and
            then the parameters of the last step count.
        convention: how data become the x of the model.
    """

    name: str
    train: torch.Tensor | tuple
    valid: torch.Tensor | tuple | None
    test: torch.Tensor | tuple
    convention: metrics.Convention

    def x(self, split="train"):
        """One split as the model sees it, always with the same noise."""
        rows = getattr(self, split)
        return self.convention.prepare(rows[0] if isinstance(rows, tuple) else rows, torch.Generator().manual_seed(0))

    def first(self, n):
        """The same with the first n examples of each split."""

        def cut(rows):
            return tuple(part[:n] for part in rows) if isinstance(rows, tuple) else rows if rows is None else rows[:n]

        splits = {split: cut(getattr(self, split)) for split in ("train", "valid", "test")}
        return dataclasses.replace(self, name=f"{self.name}, the first {n}", **splits)


def likelihood(model, data):
    """Negative log-likelihood of the test split on the scale of the data: what `Recipe.evaluate` returns.

    Returns:
        Name of each number to a dict of value, unit, standard_error, n (examples) and kind (exact, lower bound or
        estimate). "NLL" is in nats per example; for discrete data "bits/dim" says the same in other units.
    """
    x, context = data.test if isinstance(data.test, tuple) else (data.test, None)
    found = metrics.evaluate(model, x, data.convention, context)

    def number(value, unit, error, kind):
        return {"value": value, "unit": unit, "standard_error": error, "n": found.n, "kind": kind}

    error = found.standard_error
    numbers = {"NLL": number(-found.nats - found.log_volume, "nats", error, found.kind)}
    if found.convention.discrete:
        kind = "lower bound" if found.convention.noise else found.kind  # by Jensen's inequality
        numbers["bits/dim"] = number(found.bits_per_dim, "bits/dim", error / (found.dims * math.log(2)), kind)
    return numbers


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train one model on one data set.

    `steps`, `batch_size` and `lr` are one value, or a dict from a budget's name to one (without "gpu": as "cpu").

    Attributes:
        model: `model(data, small)` builds it; `small` (at budget smoke) asks for a tiny one.
        data: `data()` gives the `Data`.
        about: the model in words, with its sizes.
        table: the table of results that it belongs to.
        steps, batch_size, lr, seed: as in `training.fit`.
        loss: `loss(model, x)` or `loss(model, x, context)`, a scalar; None for `model.loss`.
        evaluate: `evaluate(model, data)` gives named numbers, in the form that `likelihood` describes.
        fit: trains the model; called as `training.fit` is, which suits every model with one loss.
        options: more arguments for `fit`.
    """

    model: Callable
    data: Callable
    about: str
    table: str
    steps: int | dict
    batch_size: int | dict = 512
    lr: float | dict = 1e-3
    seed: int = 0
    loss: Callable | None = None
    evaluate: Callable = likelihood
    fit: Callable = training.fit
    options: dict = dataclasses.field(default_factory=dict)

    def at(self, budget):
        """Steps, batch size and learning rate at a `training.Budget`, as a dict."""
        values = {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr}
        return {key: budget.pick(**value) if isinstance(value, dict) else value for key, value in values.items()}

    def build(self, data, budget, seed=None):
        """The untrained model for the budget of that name; its initialization follows from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed if seed is None else seed)
            return self.model(data, budget == "smoke")


@functools.cache
def toy(name):
    """10,000 points to train on and 10,000 to test on, as the libraries in the table of peers had."""
    train, test = (datasets.toy(name, 10_000, seed) for seed in (0, 1))
    return Data(f"toy {name}, 10,000 / 10,000 points", train, None, test, metrics.continuous())


@functools.cache
def shipped(name, levels):
    """A shipped set of images, dequantized; 8x8 digits as vectors of 64."""
    splits = [datasets.load(name, split) for split in ("train", "valid", "test")]
    if name == "digits8":
        splits = [x.flatten(1) for x in splits]
    sizes = " / ".join(f"{len(x):,}" for x in splits)
    return Data(f"{name}, shipped part, {sizes} images", *splits, metrics.dequantized(levels))


DATA = {
    "moons": functools.partial(toy, "moons"),
    "checkerboard": functools.partial(toy, "checkerboard"),
    "digits8": functools.partial(shipped, "digits8", 17),
}

WIDE = (128, 128)
# Constructor and sizes, those of the comparison with other libraries where it has the model; and whether data are
# standardized first. Affine and spline flows take data as they are, as there: RealNVP and MAF gained by it, mostly on
# the checkerboard, while splines and IAF lost a little on the moons.
FLOWS = {
    "nice": (flows.nice, {"layers": 8, "hidden": WIDE}, True),
    "realnvp": (flows.realnvp, {"layers": 8, "hidden": WIDE}, False),
    "maf": (flows.maf, {"layers": 5, "hidden": WIDE}, False),
    # By maximum likelihood on its slow side, one pass for each entry: the data have no density to sample against.
    "iaf": (flows.iaf, {"layers": 5, "hidden": WIDE}, False),
    "spline": (flows.spline, {"layers": 5, "hidden": WIDE}, False),
    "spline-ar": (flows.spline, {"layers": 5, "hidden": WIDE, "kind": "autoregressive"}, False),
    "cubic": (flows.spline, {"layers": 5, "hidden": WIDE, "law": Cubic}, False),
    "naf": (flows.naf, {"layers": 3, "hidden": WIDE}, True),
    "sos": (flows.sos, {"layers": 3, "hidden": WIDE}, True),
    "umnn": (flows.umnn, {"layers": 3, "hidden": WIDE, "nodes": 24}, True),
    # These are built for sampling; their density takes a bisection in each layer (radial: a square root).
    "planar": (flows.planar, {"layers": 16}, True),
    "radial": (flows.radial, {"layers": 16}, True),
    "sylvester": (flows.sylvester, {"layers": 8, "rank": 8}, True),
}
SMALL = {"layers": 2, "hidden": (16, 16), "nodes": 6}
# Steps at budget cpu where 2,000 would take far more than three minutes on one core.
CPU_STEPS = {"iaf-digits8": 200, "umnn-digits8": 250, "sylvester-digits8": 500}


def vector_flow(make, sizes, standardize, data, small):
    """A flow of vectors; dequantized data in [0, 1) go through a logit first."""
    x, before = data.x(), []
    if data.convention.discrete:
        before.append(Logit(0.05))
        x = before[0](x)[0]
    before += [Standardize(x)] if standardize else []
    dim, sizes = x.shape[1], {key: SMALL.get(key, value) if small else value for key, value in sizes.items()}
    if "rank" in sizes:
        sizes["rank"] = min(sizes["rank"], dim)
    flow = make(dim, **sizes)
    return flows.Flow(flow.base, Compose(*before, flow.transform))


def image_flow(make, sizes, tiny, data, small):
    """A flow of images behind a logit."""
    flow = make(tuple(data.train.shape[1:]), **(tiny if small else sizes))
    return flows.Flow(flow.base, Compose(Logit(0.05), flow.transform))


def words(name, sizes):
    """`spline(layers=5, hidden=(128, 128), law=Cubic)`."""
    text = ", ".join(f"{key}={getattr(value, '__name__', value)}" for key, value in sizes.items())
    return f"{name}({text})"


def flow_recipe(flow, name):
    """The recipe of a row of `FLOWS` on a row of `DATA`."""
    make, sizes, standardize = FLOWS[flow]
    model = functools.partial(vector_flow, make, sizes, standardize)
    about = ("standardized, " if standardize else "") + words(make.__name__, sizes)
    steps = {"smoke": 10, "cpu": CPU_STEPS.get(f"{flow}-{name}", 2000), "gpu": 2000}
    if name == "digits8":  # few images: without a choice on the validation split every model here overfits
        options = {"ema": 0.99, "eval_every": 25, "patience": 8}
        return Recipe(model, DATA[name], f"logit, {about}", "flows", steps, 256, options=options)
    return Recipe(model, DATA[name], about, "flows", steps)


def image_recipe(make, sizes, tiny, steps, **more):
    """The recipe of a flow of images on the shipped part of Fashion-MNIST."""
    model, about = functools.partial(image_flow, make, sizes, tiny), words(make.__name__, sizes)
    return Recipe(model, functools.partial(shipped, "fashion_mnist", 256), f"logit, {about}", "flows", steps, **more)


# 28 pixels divide by four, so that two levels take the images as they are.
IMAGE = {"batch_size": {"smoke": 16, "cpu": 64, "gpu": 128}, "options": {"schedule": "cosine", "ema": 0.999}}
RECIPES = {f"{flow}-{name}": flow_recipe(flow, name) for name in DATA for flow in FLOWS} | {
    "glow-fashion": image_recipe(
        flows.glow, {"levels": 2, "steps": 8, "hidden": 32}, {"levels": 2, "steps": 1, "hidden": 8},
        {"smoke": 5, "cpu": 2000, "gpu": 20_000}, **IMAGE,
    ),
    "realnvp-fashion": image_recipe(
        flows.realnvp_image, {"levels": 3, "hidden": 32, "blocks": 2}, {"levels": 2, "hidden": 8, "blocks": 1},
        {"smoke": 5, "cpu": 1500, "gpu": 20_000}, **IMAGE,
    ),
}  # fmt: skip


def get(name):
    """The recipe of that name.

    Raises:
        ValueError: unknown name; the message has the names that come close.
    """
    if name not in RECIPES:
        close = [other for other in RECIPES if set(other.split("-")) & set(name.split("-"))] or list(RECIPES)
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(close)} (all: dgm train --list)")
    return RECIPES[name]
