"""Recipes of samplers, judged by their samples; and of the small classifier whose features compare images.

References:
    Generative Adversarial Networks, Goodfellow et al., 2014.
    Improved Training of Wasserstein GANs, Gulrajani et al., 2017.
    Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020.
"""

import functools
import math
import time

import torch

from dgm_course import data as datasets
from dgm_course import metrics, training
from dgm_course.diffusion import DDPM, TimeMLP, linear_schedule
from dgm_course.gan import GAN, mlp_critic, mlp_generator, train_gan
from dgm_course.recipe import Data, Recipe, toy
from dgm_course.two_sample import FeatureClassifier, mmd_test, precision_recall


@functools.cache
def clothes():
    """The shipped part of Fashion-MNIST with its classes as context."""
    splits = [datasets.load("fashion_mnist", split, labels=True) for split in ("train", "valid", "test")]
    sizes = " / ".join(f"{len(x):,}" for x, _ in splits)
    convention = metrics.Convention("integers 0 to 255, divided by 255", discrete=True, scale=255.0)
    return Data(f"fashion_mnist, shipped part, with class, {sizes} images", *splits, convention)


def classifier(data, small):
    """Small: made for its features, not for a record."""
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


def against_test(model, data):
    """Samples against as many test points: MMD^2 with the p-value of its permutation test, precision and recall."""
    n, device = training.budget().pick(smoke=50, cpu=1000), next(model.parameters()).device
    real, made = data.test[:n], model.sample(n, generator=torch.Generator(device).manual_seed(0)).cpu()
    test = mmd_test(real, made, generator=torch.Generator().manual_seed(0))
    share = precision_recall(real, made)
    values = {
        "MMD^2": (1000 * test.statistic, "1e-3"), "p-value": (test.p_value, "p-value"),
        "precision": (100 * share.precision, "%"), "recall": (100 * share.recall, "%"),
    }  # fmt: skip
    return {name: {"value": value, "unit": unit, "n": n} for name, (value, unit) in values.items()}


def gan(kind, penalty, data, small):
    """Generator and critic of points; z has 4 entries."""
    dim, hidden = data.train.shape[1], (8,) if small else (128, 128)
    return GAN(mlp_generator(4, dim, hidden), mlp_critic(dim, hidden), 4, kind, penalty)


def fit_gan(model, x, *, steps, batch_size, lr, seed, context, valid, loss, checkpoint, progress, **options):
    """`train_gan`, called as `training.fit` is. It keeps no checkpoint: a run that was stopped starts anew."""
    began, budget = time.perf_counter(), training.budget()
    losses = train_gan(model.to(budget.device), x, steps, batch_size, lr, seed=seed, **options)
    where = {"budget": budget.name, "device": str(budget.device), "seed": seed}
    return training.History(losses["generator"], seconds=time.perf_counter() - began, **where)


def ddpm(data, small):
    """Diffusion of points, 50 steps of noise."""
    shape = data.train.shape[1:]
    return DDPM(TimeMLP(*shape, (8,) if small else (128, 128, 128)), shape, linear_schedule(50))


MOONS = {"data": functools.partial(toy, "moons"), "table": "samplers", "evaluate": against_test}
RECIPES = {
    "gan-moons": Recipe(
        functools.partial(gan, "non-saturating", 0.0), steps={"smoke": 2, "cpu": 4000}, batch_size=256, lr=1e-3,
        about="GAN(non-saturating, latent=4, hidden=(128, 128))", fit=fit_gan, **MOONS,
    ),
    "wgan-moons": Recipe(
        functools.partial(gan, "wasserstein", 1.0), steps={"smoke": 2, "cpu": 1000}, batch_size=256, lr=1e-3,
        about="GAN(wasserstein, penalty=1, latent=4, hidden=(128, 128))", fit=fit_gan,
        options={"critic_steps": 5, "betas": (0.0, 0.9)}, **MOONS,
    ),
    "ddpm-moons": Recipe(
        ddpm, steps={"smoke": 2, "cpu": 3000}, about="DDPM(50 steps, TimeMLP(hidden=(128, 128, 128)))", lr=2e-3,
        options={"schedule": "cosine", "ema": 0.99}, **MOONS,
    ),
    "features-fashion": Recipe(
        classifier, clothes, "FeatureClassifier(dim=32, hidden=16)", "features", {"smoke": 5, "cpu": 1200}, 128, 3e-3,
        evaluate=accuracy, options={"schedule": "cosine", "weight_decay": 1e-2, "eval_every": 100},
    ),
}  # fmt: skip
