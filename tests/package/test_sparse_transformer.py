"""Sparse Transformer: patterns, attention from attended blocks alone, key-value cache."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dgm_course.autoregressive.sparse_transformer import (
    SparseTransformer,
    attended,
    attention_mask,
    dense_attention,
    sparse_attention,
)
from tests.package import sequence_properties as properties

PATTERNS = [("strided", 1, 1), ("strided", 3, 1), ("strided", 4, 1), ("fixed", 1, 1), ("fixed", 4, 1), ("fixed", 5, 2)]


def make(pattern="strided", levels=3, length=24, layers=2, **options):
    return SparseTransformer(levels, length, width=8, heads=2, layers=layers, pattern=pattern, **options).double()


def paper_sets(i, stride, pattern, summary):
    """A_i^(1) and A_i^(2) of section 4.2, in words of Python."""
    if pattern == "strided":
        return set(range(max(0, i - stride), i + 1)) | {j for j in range(i + 1) if (i - j) % stride == 0}
    own = {j for j in range(i + 1) if j // stride == i // stride}
    return own | {j for j in range(i + 1) if j % stride in range(stride - summary, stride)}


@pytest.mark.parametrize(("pattern", "stride", "summary"), PATTERNS)
def test_masks_are_the_sets_of_the_paper(pattern, stride, summary):
    mask = attention_mask(23, stride, pattern, summary)
    for i in range(23):
        wanted = sorted(paper_sets(i, stride, pattern, summary))
        assert mask[i].nonzero()[:, 0].tolist() == wanted
        assert attended(i, stride, pattern, summary).tolist() == wanted, "each once, in order"


def test_two_layers_connect_every_entry_with_all_before_it():
    """Why the patterns suffice: a path through one further entry (section 4.2), for strides near the square root."""
    for pattern in ("strided", "fixed"):
        mask = attention_mask(25, 5, pattern).double()
        assert ((mask @ mask > 0) == torch.ones(25, 25).tril().bool()).all(), pattern


@pytest.mark.parametrize("n", [1, 4, 7, 20, 23])
@pytest.mark.parametrize(("pattern", "stride", "summary"), PATTERNS)
def test_sparse_attention_is_dense_attention_under_the_same_mask(n, pattern, stride, summary):
    q, k, v = (torch.randn(2, 3, n, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    sparse = sparse_attention(q, k, v, stride, pattern, summary)
    dense = dense_attention(q, k, v, attention_mask(n, stride, pattern, summary))
    torch.testing.assert_close(sparse, dense, rtol=0, atol=1e-12)
    up = torch.randn_like(dense)
    grads = [torch.autograd.grad(out, (q, k, v), up) for out in (sparse, dense)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


def largest_product(n, pattern):
    """Entries of the largest tensor that the attention of n entries makes."""
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **kwargs or {})
            sizes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    q, k, v = torch.randn(3, 1, 1, n, 2)
    with Watch():
        sparse_attention(q, k, v, int(n**0.5), pattern)
    return max(sizes)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_no_tensor_grows_faster_than_n_to_the_three_halves(pattern):
    small, large = largest_product(256, pattern), largest_product(4096, pattern)
    assert large <= 64 * small * 1.1, "16 times the length, 64 times the scores (dense: 256 times)"
    assert large <= 3 * 4096**1.5


@pytest.mark.parametrize("options", [{}, {"context_dim": 2, "local_dim": 3}], ids=["plain", "contexts"])
@pytest.mark.parametrize("pattern", ["strided", "fixed", "dense"])
def test_an_entry_depends_on_earlier_ones_alone_and_parallel_is_sequential(pattern, options):
    model = make(pattern, stride=3, **options)
    x = properties.random_sequence(model, 2, 8)
    properties.check_causal(model, x, lambda v: (v + 1) % 3)
    properties.check_sequential(model, x)
    properties.check_short(model, x)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_one_layer_sees_what_its_mask_says(pattern):
    model = make(pattern, layers=1, stride=4)
    for length in (5, 13, 24):
        seen = properties.seen(model, properties.random_sequence(model, 2, length))
        assert (seen == attention_mask(length, 4, pattern)[-1]).all()


@pytest.mark.parametrize("pattern", ["strided", "fixed", "dense"])
def test_probabilities_of_all_sequences_sum_to_one(pattern):
    properties.check_normalized(make(pattern, stride=2), 6)


@pytest.mark.parametrize("options", [{}, {"stride": 3, "summary": 2}, {"context_dim": 2, "local_dim": 3}])
@pytest.mark.parametrize("pattern", ["strided", "fixed", "dense"])
def test_cached_samples_are_the_naive_ones(pattern, options):
    model = make(pattern, **options)
    properties.check_cached(model, 24, properties.random_sequence(model, 3, 5))


def test_samples_come_as_often_as_log_prob_says():
    properties.check_sampled_frequencies(make())


@pytest.mark.parametrize("device", properties.DEVICES)
@pytest.mark.parametrize("pattern", ["strided", "fixed", "dense"])
def test_float32_on_every_device(pattern, device):
    properties.check_device(make(pattern, context_dim=2, local_dim=3).float(), device)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_it_learns_and_continues_a_periodic_sequence(pattern):
    properties.check_learns(SparseTransformer(3, 12, width=16, heads=2, layers=1, pattern=pattern))


def test_bad_input_is_refused():
    properties.check_bad_input(make())
    with pytest.raises(ValueError, match="built for sequences up to length 24, got 25"):
        make().sample(1, 25)
    with pytest.raises(ValueError, match="built for sequences up to length 24, got 25"):
        make().log_prob(torch.zeros(1, 25, dtype=torch.long))
    with pytest.raises(ValueError, match="pattern must be strided, fixed or dense, got 'random'"):
        make("random")
    with pytest.raises(ValueError, match="got summary 5 and stride 4"):
        make("fixed", stride=4, summary=5)
    with pytest.raises(ValueError, match="heads must divide the width, got 3 heads and width 8"):
        SparseTransformer(3, 4, width=8, heads=3)
