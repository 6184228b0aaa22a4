"""Recipes of samplers, judged by their samples; and of the small classifier whose features compare images.

References:
    Generative Adversarial Networks, Goodfellow et al., 2014.
    Improved Training of Wasserstein GANs, Gulrajani et al., 2017.
    Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020.
"""

import functools
import math

import torch

from dgm_course import data as datasets
from dgm_course import metrics
from dgm_course.recipe import Data, Recipe
from dgm_course.two_sample import FeatureClassifier


@functools.cache
def clothes():
    """The shipped part of Fashion-MNIST with its classes as context."""
    splits = [datasets.load("fashion_mnist", split, labels=True) for split in ("train", "valid", "test")]
    sizes = " / ".join(f"{len(x):,}" for x, _ in splits)
    convention = metrics.Convention("integers 0 to 255, divided by 255", discrete=True, scale=255.0)
    return Data(f"fashion_mnist, shipped part, with class, {sizes} images", *splits, convention)


def classifier(data, small):
    """A tenth of a million weights at most: enough for features, not for a record."""
    return FeatureClassifier(data.train[0].shape[1:], **({"dim": 8, "hidden": 4} if small else {}))


@torch.no_grad()
def accuracy(model, data):
    """Share of the test images that are put into their class."""
    x, labels = data.x("test"), data.test[1]
    device = next(model.parameters()).device
    found = torch.cat([model(part.to(device)).argmax(1).cpu() for part in x.split(500)])
    share = (found == labels).double().mean().item()
    error = 100 * math.sqrt(share * (1 - share) / len(x))
    return {"accuracy": {"value": 100 * share, "unit": "%", "standard_error": error, "n": len(x), "kind": "exact"}}


RECIPES = {
    "features-fashion": Recipe(
        classifier, clothes, "FeatureClassifier(dim=32, hidden=16)", "features", {"smoke": 5, "cpu": 1200}, 128, 3e-3,
        evaluate=accuracy, options={"schedule": "cosine", "weight_decay": 1e-2, "eval_every": 100},
    ),
}  # fmt: skip
