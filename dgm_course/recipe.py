"""What a recipe is: which model on which data, how long, and how it is judged. The recipes are in `recipes.py`.

Data that several files of recipes share are here too.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import torch

from dgm_course import data as datasets
from dgm_course import metrics, training


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


def likelihood(model, data, first=None, batch_size=1000):
    """Negative log-likelihood of the test split on the scale of the data: what `Recipe.evaluate` returns.

    Args:
        model, data: what was trained on what.
        first: how many test examples are taken; None for all.
        batch_size: examples at a time.

    Returns:
        Name of each number to a dict of value, unit, standard_error, n (examples) and kind (exact, lower bound or
        estimate). "NLL" is in nats per example; for discrete data "bits/dim" says the same in other units.
    """
    x, context = data.test if isinstance(data.test, tuple) else (data.test, None)
    context = context if context is None else context[:first]
    found = metrics.evaluate(model, x[:first], data.convention, context, batch_size=batch_size)

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
