"""Recipes of VAEs whose posterior is a flow: the tables of Rezende, Mohamed (2015) and of van den Berg et al. (2018).

The settings at budget gpu are those of the code of the Sylvester paper: z of 64, Adamax with 5e-4, batches of 100, KL
warm-up over 100 epochs, 5,000 importance samples. Omniglot and Caltech 101 do not ship; digits in black
and white stand in.

References:
    Variational inference with normalizing flows, Rezende, Mohamed, 2015.
    Sylvester normalizing flows for variational inference, van den Berg et al., 2018, section 6.
"""

import functools
import math

from dgm_course import data as datasets
from dgm_course import metrics, training
from dgm_course.likelihoods import Bernoulli, Categorical
from dgm_course.recipe import Recipe
from dgm_course.recipes_autoregressive import digits, integers
from dgm_course.vae import vae

SPLITS = ("train", "valid", "test")


@functools.cache
def frey_faces():
    """Frey Faces, 28 x 20 pixels, 256 grey levels. The set does not ship: `dgm data fetch frey_faces`."""
    return integers("frey_faces", *(datasets.load("frey_faces", split) for split in SPLITS), "256 grey levels")


def bounds(model, data):
    """-ELBO, and the negative log-likelihood by importance sampling: in nats, for grey levels in bits/dim too."""
    k = training.budget().pick(smoke=5, cpu=200, gpu=5000)
    at_once = 100 if model.likelihood.levels == 2 else 4  # 256 logits for each pixel of each sample take room
    values = {
        "-ELBO": metrics.evaluate(model, data.test, data.convention, score=model.elbo, kind="lower bound"),
        "NLL": metrics.evaluate(
            model, data.test, data.convention, score=functools.partial(model.log_prob_estimate, k=k),
            kind="lower bound", batch_size=at_once,
        ),
    }  # fmt: skip
    units = {"nats": 1.0} | ({} if model.likelihood.levels == 2 else {"bits/dim": values["NLL"].dims * math.log(2)})
    return {
        name if unit == "nats" else f"{name} per dim": {
            "value": -found.nats / size, "unit": unit, "standard_error": found.standard_error / size, "n": found.n,
            "kind": "lower bound",
        }
        for name, found in values.items() for unit, size in units.items()
    }  # fmt: skip


def built(posterior, layers, data, small):
    """The VAE of a row; grey levels have a convolutional decoder with one logit for each."""
    grey = "grey" in data.convention.name
    sizes = {"channels": 4 if small else 32} if grey else {"hidden": (8,) if small else (256, 256)}
    dim = 4 if small else training.budget().pick(smoke=4, cpu=32, gpu=64)
    likelihood = Categorical(256) if grey else Bernoulli()
    warm_up = len(data.train) // 100 * training.budget().pick(smoke=1, cpu=10, gpu=100)
    return vae(data.train.shape[1:], dim, likelihood, posterior, layers, warm_up=warm_up, **sizes)


def row(posterior, layers, data):
    """A recipe: 2,000 epochs of Frey Faces are 30,000 steps. An image there costs far more time than a digit."""
    about = f"VAE, posterior {posterior}" + (f" x {layers}" if posterior != "gaussian" else "")
    options = {"optimizer": "Adamax", "eval_every": 200, "patience": 100}
    steps = {"smoke": 2, "cpu": 3000 if data is frey_faces else 2000, "gpu": 30_000}
    batch_size = {"smoke": 100, "cpu": 10 if data is frey_faces else 100, "gpu": 100}
    lr = {"smoke": 5e-4, "cpu": 2e-3, "gpu": 5e-4}
    return Recipe(functools.partial(built, posterior, layers), data, about, "latent", steps, batch_size, lr,
                  evaluate=bounds, options=options)  # fmt: skip


SIX = {"": "gaussian", "-planar": "planar", "-iaf": "iaf", "-o-snf": "orthogonal", "-h-snf": "householder",
       "-t-snf": "triangular"}  # fmt: skip
RECIPES = {
    f"vae{name}-{where}": row(posterior, 4, data)
    for where, data in {"digits": digits, "frey": frey_faces}.items()
    for name, posterior in SIX.items()
} | {f"vae-planar{layers}-digits": row("planar", layers, digits) for layers in (10, 20, 40, 80)}
