"""Recipes: which model on which data, how long, and how it is judged. `dgm train NAME` follows one.

`RECIPES` is the whole table. A new vector flow is one row of `FLOWS`; any other model is one `Recipe`, with a loss and
an evaluation of its own where likelihood is not the measure. Autoregressive models have a file of their own.
"""

import functools

from dgm_course import data as datasets
from dgm_course import flows, metrics, recipes_autoregressive
from dgm_course.recipe import Data, Recipe
from dgm_course.transforms import Compose, Cubic, Logit, Standardize


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
# Name, constructor, and sizes as in the comparison with other libraries, where that has the model.
FLOWS = {
    "nice": (flows.nice, {"layers": 8, "hidden": WIDE}),
    "realnvp": (flows.realnvp, {"layers": 8, "hidden": WIDE}),
    "maf": (flows.maf, {"layers": 5, "hidden": WIDE}),
    # By maximum likelihood on its slow side, one pass for each entry: the data have no density to sample against.
    "iaf": (flows.iaf, {"layers": 5, "hidden": WIDE}),
    "spline": (flows.spline, {"layers": 5, "hidden": WIDE}),
    "spline-ar": (flows.spline, {"layers": 5, "hidden": WIDE, "kind": "autoregressive"}),
    "cubic": (flows.spline, {"layers": 5, "hidden": WIDE, "law": Cubic}),
    "naf": (flows.naf, {"layers": 3, "hidden": WIDE}),
    "sos": (flows.sos, {"layers": 3, "hidden": WIDE}),
    "umnn": (flows.umnn, {"layers": 3, "hidden": WIDE, "nodes": 24}),
    # These are built for sampling; their density takes a bisection in each layer (radial: a square root).
    "planar": (flows.planar, {"layers": 16}),
    "radial": (flows.radial, {"layers": 16}),
    "sylvester": (flows.sylvester, {"layers": 8, "rank": 8}),
}
SMALL = {"layers": 2, "hidden": (16, 16), "nodes": 6}
# Steps at budget cpu where 2,000 would take far more than three minutes on one core.
CPU_STEPS = {"iaf-digits8": 200, "umnn-digits8": 250, "sylvester-digits8": 500}


def vector_flow(make, sizes, data, small):
    """A flow of vectors behind a fixed standardization; dequantized data in [0, 1) go through a logit first."""
    x, before = data.x(), []
    if data.convention.discrete:
        before.append(Logit(0.05))
        x = before[0](x)[0]
    before.append(Standardize(x))
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
    make, sizes = FLOWS[flow]
    model, about = functools.partial(vector_flow, make, sizes), words(make.__name__, sizes)
    steps = {"smoke": 10, "cpu": CPU_STEPS.get(f"{flow}-{name}", 2000), "gpu": 2000}
    if name == "digits8":  # few images: without a choice on the validation split every model here overfits
        options = {"eval_every": 50, "patience": 10}
        return Recipe(model, DATA[name], f"logit, standardized, {about}", "flows", steps, 256, options=options)
    return Recipe(model, DATA[name], f"standardized, {about}", "flows", steps)


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
RECIPES |= recipes_autoregressive.RECIPES


def get(name):
    """The recipe of that name.

    Raises:
        ValueError: unknown name; the message has the names that come close.
    """
    if name not in RECIPES:
        close = [other for other in RECIPES if set(other.split("-")) & set(name.split("-"))] or list(RECIPES)
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(close)} (all: dgm train --list)")
    return RECIPES[name]
