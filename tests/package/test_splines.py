"""Splines and monotone laws at their edges."""

import pytest
import torch

from dgm_course import flows
from dgm_course.transforms import Cubic, PositiveNetwork, RationalQuadratic, Sigmoidal, SumOfSquares
from dgm_course.transforms.monotone import solve_monotone

LAWS = [RationalQuadratic(5, 3.0), Cubic(5, 3.0), Sigmoidal(4), SumOfSquares(), PositiveNetwork(3).double()]
every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)


@every_law
def test_increasing_with_finite_gradients_also_outside_and_on_the_border(law):
    x = torch.cat([torch.linspace(-12, 12, 481), torch.tensor([-3.0, 3.0])]).double().sort().values[:, None]
    c = torch.randn(1, law.n_params).double().expand(len(x), -1).clone().requires_grad_()
    x.requires_grad_()
    z, log_det = law.forward(x, c)
    (z.sum() + log_det.sum()).backward()
    assert (z.detach().diff(dim=0)[x.detach().diff(dim=0) > 0] > 0).all()
    assert torch.isfinite(x.grad).all() and torch.isfinite(c.grad).all() and torch.isfinite(log_det).all()


@pytest.mark.parametrize("law", LAWS[:2], ids=["RationalQuadratic", "Cubic"])
def test_a_spline_with_no_parameters_set_is_the_identity_and_fixes_its_ends(law):
    x = torch.tensor([[-7.0], [-3.0], [-1.2], [0.0], [2.0], [3.0], [9.0]]).double()
    z, log_det = law.forward(x, torch.zeros(7, law.n_params).double())
    torch.testing.assert_close(z, x)
    torch.testing.assert_close(log_det, torch.zeros(7).double(), rtol=0, atol=1e-9)
    ends = torch.tensor([[-3.0], [3.0]]).double()
    assert torch.equal(
        law.inverse(law.forward(ends, torch.randn(2, law.n_params).double())[0], ends.new_zeros(2, law.n_params))[0],
        ends,
    )


def test_an_inverse_that_cannot_be_found_says_so_with_its_residual():
    z = torch.tensor([5.0])
    with pytest.raises(RuntimeError, match=r"did not converge in .* steps: residual"):
        solve_monotone(lambda x: (x, torch.zeros_like(x)), z, torch.tensor([0.0]), torch.tensor([1.0]))
    with pytest.raises(ValueError, match='"coupling" or "autoregressive", got'):
        flows.spline(2, kind="ring")
