"""Probability density distillation."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from dgm_course.distillation import distillation_loss
from dgm_course.distributions import StandardLogistic, StandardNormal
from dgm_course.flows import Flow, iaf, maf
from dgm_course.transforms import Rescale

COVARIANCE = torch.tensor([[2.0, 0.8, 0.1], [0.8, 1.0, -0.3], [0.1, -0.3, 0.5]])


def test_kl_of_linear_gaussians_is_the_known_one():
    teacher = MultivariateNormal(torch.zeros(3), COVARIANCE)
    student = Flow(StandardNormal((3,)), Rescale(3, torch.tensor([0.5, 1.0, 2.0])))
    known = torch.distributions.kl_divergence(MultivariateNormal(torch.zeros(3), torch.diag(student_var())), teacher)
    kl, cross_entropy, entropy = distillation_loss(
        student, teacher, 200_000, generator=torch.Generator().manual_seed(0)
    )
    assert kl.item() == pytest.approx(known.item(), rel=0.02)
    exact = MultivariateNormal(torch.zeros(3), torch.diag(student_var())).entropy()
    assert entropy.item() == pytest.approx(exact.item(), rel=1e-5), "the entropy of a linear student needs no samples"
    assert (cross_entropy - entropy).item() == kl.item()


def student_var():
    return torch.tensor([0.5, 1.0, 2.0]) ** -2


def test_training_brings_the_kl_down():
    teacher = MultivariateNormal(torch.zeros(3), COVARIANCE)
    student, generator = iaf(3, 2, (16,)), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    before = distillation_loss(student, teacher, 4000, generator=generator)[0].item()
    for _ in range(200):
        optimizer.zero_grad()
        distillation_loss(student, teacher, 128, generator=generator)[0].backward()
        optimizer.step()
    after = distillation_loss(student, teacher, 4000, generator=generator)[0].item()
    assert before > 0.5 and abs(after) < 0.1 * before


def test_context_reaches_both_and_an_empty_sample_is_refused():
    student, teacher = iaf(2, 2, (8,), context_dim=1), maf(2, 2, (8,), context_dim=1)
    assert torch.isfinite(distillation_loss(student, teacher, 5, torch.randn(5, 1))[0])
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        distillation_loss(student, teacher, 0)


@pytest.mark.parametrize("base", [StandardNormal((2,)), StandardLogistic((2,))], ids=["normal", "logistic"])
def test_entropy_of_a_base_is_its_mean_surprise(base):
    z = base.sample(200_000, torch.Generator().manual_seed(0))
    assert -base.log_prob(z).mean().item() == pytest.approx(base.entropy(), rel=0.01)
