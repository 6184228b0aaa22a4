"""MADE as a density model: training over orders and masks, ensembles. The rest is in test_fvbn_nade.py."""

import itertools
import math

import pytest
import torch

from dgm_course import data
from dgm_course.autoregressive.fvbn import FVBN
from dgm_course.autoregressive.made import MADE
from dgm_course.autoregressive.vectors import Categorical, Gaussian
from dgm_course.training import fit


def random_(model, scale=0.7):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.double().parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


ORDERS = list(itertools.permutations(range(3)))
EVERY = torch.tensor(list(itertools.product(range(2), repeat=9)))


@pytest.mark.parametrize("direct", [False, True])
def test_every_binary_image_of_9_pixels_in_other_orders_and_masks(direct):
    model = random_(MADE((3, 3), hidden=(16, 16), direct=direct))
    generator = torch.Generator().manual_seed(1)
    totals = []
    for _ in range(4):
        model.reorder(torch.randperm(9, generator=generator), generator=generator)
        log_prob = model.log_prob(EVERY.reshape(-1, 3, 3)).detach()
        assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)
        totals.append(log_prob)
    assert float((totals[0] - totals[1]).abs().max()) > 0.1, "another order is another distribution"


def test_an_ensemble_is_the_log_of_the_mean_probability_and_again_a_distribution():
    model = random_(MADE(3, Categorical(3), (20,), order=[1, 2, 0], context_dim=1))
    x = torch.tensor(list(itertools.product(range(3), repeat=3)))
    context = torch.full((27, 1), 0.3, dtype=torch.float64)
    own = model.log_prob(x, context)
    got = model.ensemble_log_prob(x, ORDERS, context)
    assert torch.equal(model.log_prob(x, context), own), "order and masks stay"

    each = []
    for order in ORDERS:
        other = MADE(3, Categorical(3), (20,), order=order, context_dim=1).double()
        other.net.linears.load_state_dict(
            {k: v for k, v in model.net.linears.state_dict().items() if "mask" not in k}, strict=False
        )
        each.append(other.log_prob(x, context))
    torch.testing.assert_close(got, sum(p.exp() for p in each).div(6).log())
    assert got.exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert (got > sum(each) / 6).all(), "the mean of logs is smaller"
    torch.testing.assert_close(model.ensemble_log_prob(x, [[1, 2, 0]] * 5, context), own)


def test_an_ensemble_over_masks_repeats_with_its_generator_and_cleans_up_after_an_error():
    model = random_(MADE(3, hidden=(8,)))
    x = torch.tensor([[0, 1, 1], [1, 0, 0]])
    own = model.log_prob(x)
    one, two = (model.ensemble_log_prob(x, ORDERS, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.allclose(one, model.ensemble_log_prob(x, ORDERS))
    with pytest.raises(ValueError, match=r"permutation of 0 ... 2, got \[0, 1\]"):
        model.ensemble_log_prob(x, [[2, 1, 0], [0, 1]])
    with pytest.raises(ValueError, match="at least one permutation, got none"):
        model.ensemble_log_prob(x, [])
    assert torch.equal(model.log_prob(x), own)


@torch.no_grad()
def test_direct_connections_add_the_logits_of_an_fvbn():
    order, x = torch.tensor([2, 0, 3, 1]), EVERY[:16, 5:]
    plain, linear = random_(MADE(4, hidden=(8,), order=order)), random_(FVBN(4, order=order))
    model = MADE(4, hidden=(8,), order=order, direct=True).double()
    model.net.load_state_dict(plain.net.state_dict())
    assert torch.equal(model.log_prob(x), plain.log_prob(x)), "they start at zero"
    model.direct.load_state_dict(linear.state_dict())
    logits = plain.params(x.double()) + linear.params(x.double())
    wanted = torch.distributions.Bernoulli(logits=logits[..., 0]).log_prob(x.double()).sum(1)
    torch.testing.assert_close(model.log_prob(x), wanted)
    model.net.linears[-1].weight.zero_()
    model.net.linears[-1].bias.zero_()
    torch.testing.assert_close(model.log_prob(x), linear.log_prob(x))


@pytest.mark.parametrize("orders", [True, False])
@pytest.mark.parametrize("masks", [True, False])
def test_agnostic_training_draws_orders_and_masks_from_the_generator(orders, masks):
    model = random_(MADE(6, hidden=(12,), order=[5, 4, 3, 2, 1, 0]))
    x = torch.randint(2, (10, 6))
    seen_orders, seen_degrees = set(), set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        loss = model.agnostic_loss(x, orders=orders, masks=masks, generator=generator)
        torch.testing.assert_close(loss, model.loss(x))
        model.zero_grad()
        loss.backward()
        seen_orders.add(tuple(model.order.tolist()))
        seen_degrees.add(tuple(model.net.degrees_0.tolist()))
    assert len(seen_orders) > 4 if orders else seen_orders == {(5, 4, 3, 2, 1, 0)}
    assert (len(seen_degrees) > 4) == masks
    again = random_(MADE(6, hidden=(12,), order=[5, 4, 3, 2, 1, 0]))
    generator.manual_seed(0)
    for _ in range(8):
        repeated = again.agnostic_loss(x, orders=orders, masks=masks, generator=generator)
    assert torch.equal(repeated, loss)


def test_order_agnostic_training_makes_any_order_usable():
    """Digits in an order never fixed in training: near the model's own mean, far below a model of the first order."""
    x = (data.load("digits8") > 8).long()
    torch.manual_seed(0)
    agnostic, fixed = MADE((1, 8, 8), hidden=(100,)), MADE((1, 8, 8), hidden=(100,))
    fit(agnostic, x, steps=400, lr=0.01, loss=MADE.agnostic_loss, progress=False, device="cpu")
    fit(fixed, x, steps=400, lr=0.01, progress=False, device="cpu")
    orders = [torch.arange(63, -1, -1), torch.arange(64).view(8, 8).T.flatten(), torch.randperm(64)]
    with torch.no_grad():
        single = []
        for order in orders:
            agnostic.reorder(order)
            fixed.reorder(order)
            single.append(agnostic.loss(x).item())
            assert single[-1] < fixed.loss(x).item() - 2
    assert -agnostic.ensemble_log_prob(x, orders).mean().item() < sum(single) / 3 - 0.1


def test_completion_in_an_order_that_begins_with_what_is_known():
    """With the known entries first in the order, completion draws from the conditional distribution."""
    model, n = random_(MADE(4, hidden=(16,))), 20_000
    model.reorder([3, 1, 0, 2])
    x = model.sample(
        n,
        known=torch.tensor([0, 1, 0, 1]),
        mask=torch.tensor([False, True, False, True]),
        generator=torch.Generator().manual_seed(0),
    )
    rest = torch.tensor([[a, 1, b, 1] for a in (0, 1) for b in (0, 1)])
    expected = n * model.log_prob(rest).detach().softmax(0)
    count = torch.bincount(2 * x[:, 0] + x[:, 2], minlength=4)
    assert float(expected.min()) > 5
    assert float(((count - expected) ** 2 / expected).sum()) < 16.27  # 99.9%, 3 degrees of freedom


def test_a_gaussian_made_is_one_affine_autoregressive_layer():
    """log p(x) = log N(z; 0, I) - sum of log sigma with z = (x - mu) / sigma (MAF, equations 3 and 4)."""
    model = random_(MADE(5, Gaussian(), (16,), activation=torch.nn.Tanh, order=[4, 1, 0, 2, 3]), 0.3)
    x = torch.randn(7, 5).double()
    mu, log_sigma = model.params(x).unbind(-1)
    z = (x - mu) / log_sigma.exp()
    want = -0.5 * (z**2).sum(1) - 2.5 * math.log(2 * math.pi) - log_sigma.sum(1)
    torch.testing.assert_close(model.log_prob(x), want)


def test_order_and_masks_are_saved_with_the_model():
    model, other = random_(MADE(4, hidden=(8,))), MADE(4, hidden=(8,)).double()
    model.reorder([2, 3, 1, 0], generator=torch.Generator().manual_seed(0))
    other.load_state_dict(model.state_dict())
    x = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])
    assert other.order.tolist() == [2, 3, 1, 0] and torch.equal(model.log_prob(x), other.log_prob(x))
