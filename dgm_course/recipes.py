"""Recipes: which model on which data, how long, and how it is judged. `dgm train NAME` follows one.

`RECIPES` is the whole table. A new vector flow is one row of `FLOWS`; any other model is one `Recipe`, with a loss and
an evaluation of its own where likelihood is not the measure. Autoregressive
models and VAEs have files of their own.
"""

import functools

from dgm_course import data as datasets
from dgm_course import flows, metrics, recipes_autoregressive, recipes_latent
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
    # These are built for sampling; their density solves an equation in each layer (radial: by a square root).
    "planar": (flows.planar, {"layers": 16}, True),
    "radial": (flows.radial, {"layers": 16}, True),
    "sylvester": (flows.sylvester, {"layers": 8, "rank": 8}, True),
    "residual": (flows.residual, {"blocks": 8, "hidden": WIDE}, True),
    "ffjord": (flows.ffjord, {"hidden": WIDE, "solver": "rk4", "steps": 8}, True),
}
SMALL = {"layers": 2, "hidden": (16, 16), "nodes": 6, "blocks": 2, "steps": 2}
# In 64 dimensions the exact trace takes 64 backward passes; these are unbiased estimates of the log-density.
ESTIMATED = {"residual-digits8": {"log_det": "roulette"}, "ffjord-digits8": {"trace": "hutchinson"}}
# Steps at budget cpu where 2,000 would take far more than three minutes on one core.
CPU_STEPS = {
    "iaf-digits8": 200, "umnn-digits8": 250, "sylvester-digits8": 500, "residual-digits8": 500, "ffjord-digits8": 500,
}  # fmt: skip


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
    sizes = sizes | ESTIMATED.get(f"{flow}-{name}", {})
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
RECIPES |= recipes_autoregressive.RECIPES | recipes_latent.RECIPES


def get(name):
    """The recipe of that name.

    Raises:
        ValueError: unknown name; the message has the names that come close.
    """
    if name not in RECIPES:
        close = [other for other in RECIPES if set(other.split("-")) & set(name.split("-"))] or list(RECIPES)
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(close)} (all: dgm train --list)")
    return RECIPES[name]
