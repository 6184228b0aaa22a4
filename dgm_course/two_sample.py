"""Do two sets of samples come from one distribution? Tests with p-values, and measures on features."""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.nn import MLP
from dgm_course.training import fit
from dgm_course.transforms.base import expect


class TwoSampleResult(NamedTuple):
    """What a test measured, and how likely so much (or more) is if both samples have one distribution."""

    statistic: float
    p_value: float


class PrecisionRecall(NamedTuple):
    """Share of generated points among the real ones, and of real points among the generated ones."""

    precision: float
    recall: float


def classifier_test(x, y, classifier=None, steps=500, batch_size=128, lr=1e-3, seed=0):
    """Classifier two-sample test: can a classifier, trained on half of the points, tell the other half apart?

    The statistic is its accuracy on the other half: 1/2 in expectation if the distributions are the same.

    Args:
        x, y: two samples `(n, ...)` of the same size, so that guessing is right half of the time.
        classifier: module, `(batch, ...)` to a logit `(batch, 1)`, which is trained; if not given an `MLP` of vectors.
        steps, batch_size, lr: of its training.
        seed: of the split, of the training, and of the weights of the `MLP`.

    Returns:
        `TwoSampleResult`, with the p-value of a normal approximation to the binomial distribution.

    References:
        Revisiting Classifier Two-Sample Tests, Lopez-Paz, Oquab, 2017, section 3.
    """
    _check_samples(x, y)
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(f"the samples must have the same size, at least 4, got {len(x)} and {len(y)}")
    if classifier is None:
        x, y = x.flatten(1), y.flatten(1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            classifier = MLP(x.shape[1], 1).to(x)
    order, half = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)), len(x) // 2
    train, test = (torch.cat([x[rows], y[rows]]) for rows in (order[:half], order[half:]))
    target, truth = (torch.arange(len(rows), device=x.device) < len(rows) // 2 for rows in (train, test))

    def loss(model, rows, context):
        return F.binary_cross_entropy_with_logits(model(rows), context)

    fit(
        classifier, train, context=target[:, None].to(x), loss=loss, steps=steps, batch_size=batch_size, lr=lr,
        seed=seed, progress=False, device=x.device,
    )  # fmt: skip
    with torch.no_grad():
        accuracy = ((classifier(test)[:, 0] > 0) == truth).double().mean().item()
    z = (accuracy - 0.5) * 2 * math.sqrt(len(test))
    return TwoSampleResult(accuracy, 0.5 * math.erfc(z / math.sqrt(2)))


def mmd_test(x, y, permutations=500, bandwidth=None, generator=None):
    """Maximum mean discrepancy with the kernel exp(-|x - y|^2 / (2 bandwidth^2)), and its permutation test.

    The statistic is the unbiased estimate of MMD^2, 0 in expectation if the distributions are the same (so it may be
    negative). The p-value is exact: at level a the test is wrong with probability at most a, at any sample size.
    Memory grows with the square of the number of points.

    Args:
        x, y: samples `(n, ...)` and `(m, ...)`.
        permutations: random relabellings; the smallest p-value is 1 / (permutations + 1).
        bandwidth: of the kernel; None for the median of all distances (median heuristic).
        generator: of the permutations, on the CPU.

    Returns:
        `TwoSampleResult`.

    References:
        A Kernel Two-Sample Test, Gretton et al., 2012, lemma 6.
    """
    _check_samples(x, y)
    n, m = len(x), len(y)
    if min(n, m) < 2 or permutations < 1:
        raise ValueError(f"at least 2 points in each sample and 1 permutation needed, got {n}, {m} and {permutations}")
    both = torch.cat([x, y]).flatten(1).double()
    distance = torch.cdist(both, both)
    if bandwidth is None:
        rows, cols = torch.triu_indices(n + m, n + m, 1)
        bandwidth = distance[rows, cols].median().item()
    if not bandwidth > 0:
        raise ValueError(f"the bandwidth must be positive, got {bandwidth} (are most of the points equal?)")
    kernel = (-0.5 * (distance / bandwidth) ** 2).exp().fill_diagonal_(0)
    # Row 0 is the labelling as it came, every other row a random one; 1 stands for x.
    noise = torch.rand(permutations, n + m, generator=generator).to(both.device)
    first = torch.cat([torch.arange(n + m, device=both.device)[None], noise.argsort(dim=1)]).argsort(dim=1) < n
    first = first.to(both)
    to_first = first @ kernel
    xx, x_all = (to_first * first).sum(1), to_first.sum(1)
    yy = kernel.sum() - 2 * x_all + xx
    value = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * (x_all - xx) / (n * m)
    # Equal labellings must count as equal in spite of rounding.
    as_large = (value[1:] >= value[0] - 1e-12).sum().item()
    return TwoSampleResult(value[0].item(), (1 + as_large) / (1 + permutations))


def precision_recall(real, generated, k=3):
    """Improved precision and recall, from balls around each point that reach to its k-th nearest neighbour.

    Precision is the share of generated points inside some real point's ball (quality), recall the share of real points
    inside some generated point's ball (variety).

    Args:
        real, generated: features `(n, ...)` and `(m, ...)`, more than k of each.
        k: neighbours.

    Returns:
        `PrecisionRecall`.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models, Kynkäänniemi et al., 2019, section 2.
    """
    _check_samples(real, generated, "real", "generated")
    if not 1 <= k < min(len(real), len(generated)):
        raise ValueError(f"k must lie between 1 and the number of points less one, got {k}")
    real, generated = real.flatten(1), generated.flatten(1)

    def inside(points, of):
        # The point itself, at distance 0, is the first of the k + 1 smallest.
        radius = torch.cdist(of, of).kthvalue(k + 1, dim=1).values
        return (torch.cdist(points, of) <= radius).any(1).double().mean().item()

    return PrecisionRecall(inside(generated, real), inside(real, generated))


def frechet_distance(mean_1, cov_1, mean_2, cov_2):
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Args:
        mean_1, mean_2: `(dim,)`.
        cov_1, cov_2: `(dim, dim)`, symmetric and positive semidefinite.

    References:
        The distance between two random vectors with given dispersion matrices, Olkin, Pukelsheim, 1982.
    """
    values, vectors = torch.linalg.eigh(cov_1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_2 @ root).clamp(min=0).sqrt().sum()
    return (((mean_1 - mean_2) ** 2).sum() + cov_1.trace() + cov_2.trace() - 2 * cross).item()


def classifier_frechet_distance(real, generated, classifier):
    """Fréchet distance of Gaussians fitted to the features of a small classifier. This is not FID.

    FID takes features of Inception on ImageNet; values for two classifiers, or two numbers of samples, do not compare.

    Args:
        real, generated: images `(n, ...)` and `(m, ...)`, at least 2 of each.
        classifier: has `features(x)`, `(batch, ...)` to `(batch, dim)`, e.g. a `FeatureClassifier`.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, Heusel et al., 2017,
        equation 6.
    """
    _check_samples(real, generated, "real", "generated")
    if min(len(real), len(generated)) < 2:
        raise ValueError(f"at least 2 images of each kind needed, got {len(real)} and {len(generated)}")
    training = classifier.training
    classifier.eval()
    with torch.no_grad():
        features = [torch.cat([classifier.features(b) for b in x.split(1000)]).double() for x in (real, generated)]
    classifier.train(training)
    return frechet_distance(*(s for f in features for s in (f.mean(0), torch.cov(f.T))))


class FeatureClassifier(nn.Module):
    """Small convolutional classifier, `(batch, c, h, w)` to logits `(batch, classes)`, with `features` to measure on.

    One that is trained on Fashion-MNIST ships: `pretrained.load("features-fashion")`, for pixels divided by 255.

    Args:
        shape: `(c, h, w)`; height and width divisible by 4.
        classes: number of classes.
        dim: entries of the features.
        hidden: channels of the first layer.
    """

    def __init__(self, shape, classes=10, dim=32, hidden=16):
        super().__init__()
        c, h, w = shape
        if h % 4 or w % 4:
            raise ValueError(f"height and width must be divisible by 4, got {(h, w)}")
        self.shape, self.classes = tuple(shape), classes
        self.body = nn.Sequential(
            nn.Conv2d(c, hidden, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(hidden, 2 * hidden, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(2 * hidden * h * w // 16, dim),
        )  # fmt: skip
        self.head = nn.Linear(dim, classes)

    def features(self, x):
        """`(batch, c, h, w)` to `(batch, dim)`."""
        expect(x, self.shape)
        return self.body(x)

    def forward(self, x):
        return self.head(self.features(x).relu())

    def loss(self, x, context):
        """Cross-entropy in nats, a scalar; context are the labels `(batch,)`."""
        return F.cross_entropy(self(x), context)


def train_classifier(classifier, x, labels, steps=500, valid=None, **options):
    """Trains a `FeatureClassifier` with `training.fit`; its `options` pass through.

    Args:
        x: images `(n, c, h, w)`.
        labels: `(n,)`, whole numbers from 0 to classes - 1.
        steps: gradient updates.
        valid: pair of images and labels.

    Returns:
        The `History` of `fit`.
    """
    if labels.shape != x.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= classifier.classes:
        raise ValueError(
            f"labels must have shape ({len(x)},) and lie between 0 and {classifier.classes - 1}, "
            f"got {tuple(labels.shape)} from {labels.min()} to {labels.max()}"
        )
    return fit(classifier, x, context=labels.long(), valid=valid, steps=steps, **options)


def _check_samples(x, y, name_x="x", name_y="y"):
    for sample, name in ((x, name_x), (y, name_y)):
        expect(sample, (...,), name)
        if len(sample) == 0 or not bool(sample.isfinite().all()):
            raise ValueError(f"{name} must have points, all of them finite; got {tuple(sample.shape)}")
    if x.shape[1:] != y.shape[1:]:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"{name_x} and {name_y} must have points of the same shape, got {shapes}")
