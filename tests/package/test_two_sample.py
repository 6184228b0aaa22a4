"""Two-sample tests keep their level and find differences; measures on features have their known values."""

import math

import pytest
import torch
from torch import nn

from dgm_course import data, pretrained
from dgm_course.two_sample import (
    FeatureClassifier,
    classifier_frechet_distance,
    classifier_test,
    frechet_distance,
    mmd_test,
    precision_recall,
    train_classifier,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, dim=2, seed=0, mean=0.0):
    return torch.randn(n, dim, generator=seeded(seed)) + mean


# Maximum mean discrepancy --------------------------------------------------------------------------------------------


def test_mmd_against_its_definition():
    x, y = normal(4, seed=1), normal(3, seed=2)

    def k(a, b):
        return math.exp(-float(((a - b) ** 2).sum()) / (2 * 0.7**2))

    xx = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / 12
    yy = sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / 6
    xy = sum(k(a, b) for a in x for b in y) / 12
    assert mmd_test(x, y, 1, bandwidth=0.7).statistic == pytest.approx(xx + yy - 2 * xy, abs=1e-6)


def test_mmd_estimates_the_population_value_without_bias():
    """For N(0, 1) and N(m, 1) and kernel width s, E k = s / sqrt(s^2 + 2) exp(-m^2 / (2 (s^2 + 2)))."""
    m, s2 = 1.0, 1.0
    known = 2 * math.sqrt(s2 / (s2 + 2)) * (1 - math.exp(-(m**2) / (2 * (s2 + 2))))
    values = [mmd_test(normal(30, 1, i), normal(30, 1, 1000 + i, m), 1, 1.0).statistic for i in range(300)]
    values = torch.tensor(values)
    assert abs(values.mean() - known) < 4 * values.std() / math.sqrt(300)


def test_median_heuristic():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [7.0]])  # distances 1, 2, 3, 4, 6, 7; lower median 3
    assert mmd_test(x, y, 1).statistic == mmd_test(x, y, 1, bandwidth=3.0).statistic


def test_level_and_power_of_the_permutation_test():
    def p_values(shift):
        return torch.tensor(
            [mmd_test(normal(40, 2, i), normal(30, 2, 500 + i, shift), 99, None, seeded(i)).p_value for i in range(200)]
        )

    same, other = p_values(0.0), p_values(0.7)
    # Under the null P(p <= a) <= a: 4 standard errors of a share of 200.
    for level in (0.05, 0.2, 0.5):
        assert (same <= level).double().mean() <= level + 4 * math.sqrt(level * (1 - level) / 200)
    assert (same <= 0.5).double().mean() > 0.3, "p-values of equal samples spread over (0, 1)"
    assert (other <= 0.05).double().mean() > 0.8


def test_p_value_of_a_clear_difference_is_the_smallest_possible():
    assert mmd_test(normal(30), normal(30, seed=1, mean=5), 199, None, seeded()).p_value == 1 / 200
    one = mmd_test(normal(30), normal(30, seed=1), 99, None, seeded(3))
    assert one == mmd_test(normal(30), normal(30, seed=1), 99, None, seeded(3))


def test_samples_that_repeat_each_other_are_not_significant():
    x = normal(20)
    assert mmd_test(x, x.clone(), 99, None, seeded()).p_value > 0.9


# Classifier test ------------------------------------------------------------------------------------------------------


def test_classifier_finds_a_difference_and_only_a_real_one():
    found = classifier_test(normal(400), normal(400, seed=1, mean=1.0), steps=200)
    assert found.p_value < 1e-6
    # Optimal accuracy for two unit Gaussians at distance sqrt(2).
    best = 0.5 * math.erfc(-math.sqrt(2) / 2 / math.sqrt(2))
    assert found.statistic == pytest.approx(best, abs=0.08)
    p = [classifier_test(normal(60, seed=i), normal(60, seed=100 + i), steps=40, seed=i).p_value for i in range(20)]
    assert sum(v < 0.05 for v in p) <= 5 and sum(v > 0.5 for v in p) >= 3


def test_classifier_test_leaves_random_state_and_repeats():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    results = [classifier_test(normal(50), normal(50, seed=1), steps=20, seed=3) for _ in range(2)]
    assert results[0] == results[1] and torch.equal(state, torch.get_rng_state())


def test_p_value_of_the_accuracy_is_the_binomial_one():
    """A classifier that knows the sign, on points that differ in sign: all right, p = 2^-n up to the approximation."""

    class Sign(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.a.exp() * x

    x = torch.ones(50, 1)
    result = classifier_test(x, -x, Sign(), steps=1)
    assert result.statistic == 1 and 0 < result.p_value < 1e-11
    result = classifier_test(torch.cat([x, -x]), torch.cat([x, -x]), Sign(), steps=1)
    assert result.statistic == 0.5 and result.p_value == pytest.approx(0.5)


# Precision and recall -------------------------------------------------------------------------------------------------


def test_precision_and_recall_separate_quality_from_variety():
    left, right = normal(300, mean=-10.0), normal(300, seed=1, mean=10.0)
    real = torch.cat([left, right])
    one_mode = precision_recall(real, normal(600, seed=2, mean=-10.0))
    assert one_mode.precision > 0.9 and one_mode.recall == pytest.approx(0.5, abs=0.05)
    too_wide = precision_recall(left, torch.cat([normal(150, seed=3, mean=-10.0), normal(150, seed=4, mean=50.0)]))
    assert too_wide.precision == pytest.approx(0.5, abs=0.05) and too_wide.recall > 0.9
    assert precision_recall(left, right) == (0, 0)
    assert precision_recall(left, left) == (1, 1)


def test_precision_and_recall_by_hand():
    """k = 1: balls around 0, 1, 5 (real) reach 1, 1, 4; those around 1.5, 20, 21 (generated) 18.5, 1, 1."""
    real, generated = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[1.5], [20.0], [21.0]])
    assert precision_recall(real, generated, k=1) == pytest.approx((1 / 3, 1))
    assert precision_recall(generated, real, k=1) == pytest.approx((1, 1 / 3))


# Frechet distance -----------------------------------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians():
    zero, eye = torch.zeros(2), torch.eye(2)
    assert frechet_distance(zero, eye, torch.tensor([3.0, 4.0]), eye) == pytest.approx(25, rel=1e-6)
    a, b = torch.diag(torch.tensor([4.0, 9.0])), torch.diag(torch.tensor([1.0, 16.0]))
    assert frechet_distance(zero, a, zero, b) == pytest.approx((2 - 1) ** 2 + (3 - 4) ** 2, rel=1e-6)
    turn = torch.linalg.qr(normal(2, seed=3)).Q
    assert frechet_distance(zero, turn @ a @ turn.T, zero, turn @ b @ turn.T) == pytest.approx(2, rel=1e-5)
    assert frechet_distance(zero, torch.diag(torch.tensor([1.0, 0.0])), zero, eye) == pytest.approx(1, rel=1e-6)


def test_frechet_distance_against_the_eigenvalues_of_the_product():
    """tr (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of C1 C2, which need no square root of a matrix."""
    a, b = (m @ m.T for m in (normal(5, 5, 1).double(), normal(5, 5, 2).double()))
    cross = torch.linalg.eigvals(a @ b).real.sqrt().sum()
    wanted = (a.trace() + b.trace() - 2 * cross).item()
    zero = torch.zeros(5, dtype=torch.float64)
    assert frechet_distance(zero, a, zero, b) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(zero, b, zero, a) == pytest.approx(wanted, rel=1e-9)


def test_distance_on_features_is_that_of_gaussians_for_gaussian_features():
    class Itself(nn.Module):
        def features(self, x):
            return x.flatten(1)

    x = normal(100_000, 4).reshape(-1, 1, 2, 2)
    y = 2 * normal(100_000, 4, 1).reshape(-1, 1, 2, 2) + 1
    assert classifier_frechet_distance(x, y, Itself()) == pytest.approx(4 * 1 + 4 * (2 - 1) ** 2, rel=0.02)
    assert classifier_frechet_distance(x, x, Itself()) == pytest.approx(0, abs=1e-9)


def test_distance_grows_with_noise_under_a_trained_classifier():
    x, y = data.load("digits8", labels=True)
    x = x.float() / 16
    torch.manual_seed(0)
    classifier = FeatureClassifier((1, 8, 8))
    train_classifier(classifier, x[:1000], y[:1000], 150, lr=3e-3, batch_size=64, progress=False, device="cpu")
    with torch.no_grad():
        accuracy = (classifier(x[1000:]).argmax(1) == y[1000:]).double().mean()
    assert accuracy > 0.85
    half, rest = x[:700], x[700:]
    noise = torch.randn(rest.shape, generator=seeded())
    distances = [classifier_frechet_distance(half, rest + s * noise, classifier) for s in (0.0, 0.2, 0.5)]
    assert distances[0] < 0.5 * distances[1] and distances[1] < 0.5 * distances[2]


def test_shipped_classifier_knows_clothes_and_sees_blur_and_noise():
    """The numbers are those of the page of results."""
    classifier = pretrained.load("features-fashion")
    x, y = data.load("fashion_mnist", "test", labels=True)
    x = x / 255
    with torch.no_grad():
        accuracy = (classifier(x).argmax(1) == y).double().mean().item()
    assert accuracy > 0.88
    assert accuracy == pytest.approx(
        pretrained.card("features-fashion")["results"]["accuracy"]["value"] / 100, abs=2e-3
    )
    half, rest = x[:1000], x[1000:]
    noisy = (rest + 0.1 * torch.randn(rest.shape, generator=seeded())).clamp(0, 1)
    blurred = nn.functional.avg_pool2d(rest, 3, 1, 1)
    floor, noise, blur = (classifier_frechet_distance(half, other, classifier) for other in (rest, noisy, blurred))
    assert floor == pytest.approx(6.91, abs=0.1)
    assert floor < noise / 5 and noise < blur / 5


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", [classifier_test, mmd_test, precision_recall])
def test_bad_samples_are_named(test):
    with pytest.raises(ValueError, match=r"same shape, got \(9, 2\) and \(9, 3\)"):
        test(normal(9), normal(9, 3))
    with pytest.raises(TypeError, match="floating-point"):
        test(torch.zeros(9, 2, dtype=torch.long), normal(9))
    with pytest.raises(ValueError, match="all of them finite"):
        test(torch.full((9, 2), math.nan), normal(9))
    with pytest.raises(ValueError, match="must have points"):
        test(normal(0), normal(9))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="same size, at least 4, got 9 and 8"):
        classifier_test(normal(9), normal(8))
    with pytest.raises(ValueError, match="1 permutation needed, got 9, 9 and 0"):
        mmd_test(normal(9), normal(9), 0)
    with pytest.raises(ValueError, match=r"bandwidth must be positive, got 0\.0"):
        mmd_test(torch.zeros(9, 2), torch.zeros(9, 2))
    with pytest.raises(ValueError, match="number of points less one, got 9"):
        precision_recall(normal(9), normal(20), k=9)
    with pytest.raises(ValueError, match="at least 2 images of each kind needed, got 1 and 9"):
        classifier_frechet_distance(normal(1), normal(9), None)
    classifier = FeatureClassifier((1, 8, 8), classes=3)
    with pytest.raises(ValueError, match=r"between 0 and 2, got \(4,\) from 0 to 3"):
        train_classifier(classifier, torch.zeros(4, 1, 8, 8), torch.arange(4))
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 1, 8, 8\)"):
        classifier(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match=r"divisible by 4, got \(8, 6\)"):
        FeatureClassifier((1, 8, 6))
