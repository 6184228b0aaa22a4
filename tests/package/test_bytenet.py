"""ByteNet decoder."""

import pytest
import torch

from dgm_course.autoregressive.bytenet import ByteNet
from dgm_course.nn import receptive_field
from tests.package import sequence_properties as properties


def make(levels=3, **options):
    return ByteNet(levels, **dict(d=4, layers=2, sets=2) | options).double()


BOTH = pytest.mark.parametrize("options", [{}, {"context_dim": 2, "local_dim": 3}], ids=["plain", "contexts"])


@BOTH
def test_an_entry_depends_on_earlier_ones_alone_and_parallel_is_sequential(options):
    model = make(**options)
    x = properties.random_sequence(model, 2, 7)
    properties.check_causal(model, x, lambda v: (v + 1) % 3)
    properties.check_sequential(model, x)


def test_a_text_may_be_shorter_than_the_receptive_field():
    model = make(context_dim=2, local_dim=3)
    properties.check_short(model, properties.random_sequence(model, 3, model.reach + 3))


@BOTH
def test_probabilities_of_all_sequences_sum_to_one(options):
    properties.check_normalized(make(**options), 5)


@BOTH
@pytest.mark.parametrize("kernel", [2, 3])
def test_cached_samples_are_the_naive_ones(options, kernel):
    model = make(kernel=kernel, **options)
    properties.check_cached(model, 24, properties.random_sequence(model, 3, 5))


@pytest.mark.parametrize(("layers", "sets", "kernel"), [(1, 1, 2), (2, 2, 3), (3, 1, 2)])
def test_receptive_field_is_the_formula(layers, sets, kernel):
    model = make(layers=layers, sets=sets, kernel=kernel)
    wanted = receptive_field(kernel, [2**i for i in range(layers)] * sets)
    assert model.reach == wanted
    seen = properties.seen(model, properties.random_sequence(model, 2, wanted + 5))
    assert seen.nonzero()[:, 0].tolist() == list(range(5, wanted + 5))


def test_receptive_field_of_the_paper():
    """Six sets of five layers of width 3, dilations 1 to 16 (section 4)."""
    assert ByteNet(10, d=1, layers=5, sets=6, kernel=3).reach == 1 + 2 * 6 * 31


def test_a_column_of_the_source_bears_on_its_time_and_later():
    model = make(local_dim=3)
    x, local = properties.random_sequence(model, 1, 8), torch.randn(1, 3, 8, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(properties.outputs(model, x, local=local)[:, 3].sum(), local)
    assert (grad.abs().sum((0, 1)) > 0).tolist() == [True] * 4 + [False] * 4


def test_samples_come_as_often_as_log_prob_says():
    properties.check_sampled_frequencies(make())


@pytest.mark.parametrize("device", properties.DEVICES)
def test_float32_on_every_device(device):
    properties.check_device(make(context_dim=2, local_dim=3).float(), device)


def test_it_learns_and_continues_a_periodic_text():
    properties.check_learns(ByteNet(3, d=8, layers=3, sets=1))


def test_bad_input_is_refused():
    properties.check_bad_input(make())
