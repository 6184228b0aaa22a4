"""Recipes: which model on which data, how long, and how it is judged. `dgm train NAME` follows one.

`RECIPES` is the whole table. A new vector flow is one row of `FLOWS`; any other model is one `Recipe`, with a loss and
an evaluation of its own where likelihood is not the measure. Autoregressive models, VAEs, and what is judged by its
samples have files of their own.
"""

import dataclasses
import functools
import math

import torch

from dgm_course import flows, metrics, recipes_autoregressive, recipes_latent, recipes_samplers, training
from dgm_course.dequantization import Dequantized, VariationalNoise
from dgm_course.recipe import Recipe, shipped, toy
from dgm_course.transforms import Compose, Cubic, Logit, Standardize

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
    steps = {"smoke": 10, "cpu": 2000, "gpu": 2000}
    if name == "digits8":  # few images: without a choice on the validation split every model here overfits
        options = {"ema": 0.99, "eval_every": 25, "patience": 8}
        return Recipe(model, DATA[name], f"logit, {about}", "flows", steps, 256, options=options)
    return Recipe(model, DATA[name], about, "flows", steps)


def image_recipe(make, sizes, tiny, steps, **more):
    """The recipe of a flow of images on the shipped part of Fashion-MNIST."""
    model, about = functools.partial(image_flow, make, sizes, tiny), words(make.__name__, sizes)
    return Recipe(model, functools.partial(shipped, "fashion_mnist", 256), f"logit, {about}", "flows", steps, **more)


def pixels():
    """The shipped part of Fashion-MNIST as integers; the model adds the noise."""
    return dataclasses.replace(shipped("fashion_mnist", 256), convention=metrics.discrete("integers 0 to 255"))


def dequantized_model(make, sizes, tiny, noise, data, small):
    """A flow of images with noise of its own; `noise` are sizes of `VariationalNoise`, or None for uniform noise."""
    shape = tuple(data.train.shape[1:])
    noise = None if noise is None else VariationalNoise(shape, **({"layers": 1, "hidden": 4} if small else noise))
    return Dequantized(image_flow(make, sizes, tiny, data, small), shape, noise=noise)


def dequantized_bounds(model, data):
    """Bits/dim by the ELBO, with one draw of noise for each image, and by the importance-weighted bound with k."""
    k = training.budget().pick(smoke=2, cpu=16, gpu=64)
    scores = {"ELBO": model.elbo, f"IWAE, k = {k}": functools.partial(model.log_prob_estimate, k=k)}
    results = {}
    for name, score in scores.items():
        noise = torch.Generator(model.like.device).manual_seed(0)  # the same each time
        score = functools.partial(score, generator=noise)
        found = metrics.evaluate(model, data.test, data.convention, None, score, "lower bound", batch_size=100)
        results[name] = {
            "value": found.bits_per_dim, "unit": "bits/dim", "n": found.n, "kind": found.kind,
            "standard_error": found.standard_error / (found.dims * math.log(2)),
        }  # fmt: skip
    return results


def dequantized_recipe(noise):
    """Uniform or variational noise with one and the same flow."""
    sizes, tiny = {"levels": 2, "steps": 4, "hidden": 32}, {"levels": 2, "steps": 1, "hidden": 8}
    about = "uniform noise" if noise is None else words("VariationalNoise", noise)
    return Recipe(
        functools.partial(dequantized_model, flows.glow, sizes, tiny, noise), pixels,
        f"{about}, logit, {words('glow', sizes)}", "dequantization", {"smoke": 5, "cpu": 1500, "gpu": 20_000},
        {"smoke": 16, "cpu": 32, "gpu": 128}, 2e-3, evaluate=dequantized_bounds,
        options={"schedule": "cosine", "ema": 0.999, "eval_every": 250},
    )  # fmt: skip


# 28 pixels divide by four, so that two levels take the images as they are.
IMAGE = {"batch_size": {"smoke": 16, "cpu": 32, "gpu": 128}, "options": {"schedule": "cosine", "ema": 0.999}}
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
RECIPES |= {
    "dequantization-uniform-fashion": dequantized_recipe(None),
    "dequantization-variational-fashion": dequantized_recipe({"layers": 4, "hidden": 16}),
}
RECIPES |= recipes_autoregressive.RECIPES | recipes_latent.RECIPES | recipes_samplers.RECIPES


def get(name):
    """The recipe of that name.

    Raises:
        ValueError: unknown name; the message has the names that come close.
    """
    if name not in RECIPES:
        close = [other for other in RECIPES if set(other.split("-")) & set(name.split("-"))] or list(RECIPES)
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(close)} (all: dgm train --list)")
    return RECIPES[name]
