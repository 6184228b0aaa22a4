"""PixelCNN: masks, causality, likelihood, what it sees, sampling."""

import itertools
import math

import pytest
import torch

from dgm_course.autoregressive.pixel_cnn import MaskedConv2d, PixelCNN
from dgm_course.autoregressive.pixels import sees


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def make(shape=(1, 5, 6), levels=3, hidden=12, blocks=2, kernel=3, context_dim=0, seed=0):
    torch.manual_seed(seed)
    return PixelCNN(shape, levels, hidden, blocks, kernel, context_dim).double()


def integers(model, n, seed=0):
    return torch.randint(model.levels, (n, *model.shape), generator=noise(seed))


def all_images(shape, levels):
    entries = math.prod(shape)
    return torch.tensor(list(itertools.product(range(levels), repeat=entries))).view(-1, *shape)


DRAWN = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_the_5x5_masks_are_as_drawn():
    assert MaskedConv2d(1, 1, 5, "A").mask[0, 0].tolist() == DRAWN
    type_b = [row[:] for row in DRAWN]
    type_b[2][2] = 1
    assert MaskedConv2d(1, 1, 5, "B").mask[0, 0].tolist() == type_b
    assert MaskedConv2d(1, 1, (1, 3), "B").mask[0, 0].tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    ("kind", "seen"),
    [("A", [[0, 0, 0], [1, 0, 0], [1, 1, 0]]), ("B", [[1, 0, 0], [1, 1, 0], [1, 1, 1]])],
)
def test_colours_of_the_pixel_itself(kind, seen):
    """Row: R, G, B of the output. Column: R, G, B of the input. Elsewhere all colours are treated alike."""
    mask = MaskedConv2d(3, 6, 3, kind, groups=3).mask
    assert mask[:3, :, 1, 1].tolist() == mask[3:, :, 1, 1].tolist() == seen
    assert (mask[:, :, 0] == 1).all() and (mask[:, :, 1, 0] == 1).all()
    assert (mask[:, :, 2] == 0).all() and (mask[:, :, 1, 2] == 0).all()


def test_the_mask_never_touches_the_weight():
    conv = MaskedConv2d(1, 2, 3)
    before = conv.weight.detach().clone()
    conv(torch.randn(2, 1, 4, 4)).sum().backward()
    assert torch.equal(conv.weight, before)
    assert (conv.weight.grad[conv.mask == 0] == 0).all() and (conv.weight.grad[conv.mask == 1] != 0).all()


def changed(model, x, entry, context=None):
    """Which logits change, `(c, h, w)`, when one entry of x takes any other value."""
    moved = torch.zeros(model.shape, dtype=torch.bool)
    for value in range(model.levels):
        other = x.clone()
        other[(slice(None), *entry)] = value
        moved |= (model.logits(other, context) != model.logits(x, context)).any(-1).any(0)
    return moved


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 3, 4)])
def test_every_entry_depends_on_those_before_it_alone(shape):
    """By gradients and by changing one input. The order is row, column, colour."""
    model = make(shape, kernel=5)
    order = torch.arange(math.prod(shape)).view(*shape[1:], shape[0]).permute(2, 0, 1)
    x = integers(model, 8)
    for entry in itertools.product(*(range(size) for size in shape)):
        k, i, j = entry
        assert not sees(model, i, j, k, generator=noise())[order >= order[entry]].any()
        assert not changed(model, x, entry)[order <= order[entry]].any()


def test_red_green_blue():
    """R sees none of its own pixel, G sees R, B sees R and G."""
    model = make((3, 3, 4))
    own = [[bool(v) for v in sees(model, 1, 2, k, generator=noise())[:, 1, 2]] for k in range(3)]
    assert own == [[False, False, False], [True, False, False], [True, True, False]]
    assert all((sees(model, 1, 2, k, generator=noise())[:, 1, 1] > 0).all() for k in range(3))


@pytest.mark.parametrize(("shape", "levels"), [((1, 3, 3), 2), ((3, 1, 2), 3)])
def test_probabilities_of_all_images_sum_to_one(shape, levels):
    total = make(shape, levels).log_prob(all_images(shape, levels)).logsumexp(0)
    assert abs(total.item()) < 1e-10


def test_log_prob_is_the_chain_rule():
    model = make((3, 2, 3), levels=4)
    x = integers(model, 5)
    logits = model.logits(x)
    assert logits.shape == (5, 3, 2, 3, 4)
    chosen = logits.log_softmax(-1).gather(-1, x[..., None])
    torch.testing.assert_close(model.log_prob(x), chosen.flatten(1).sum(1))
    torch.testing.assert_close(model.loss(x), -chosen.sum() / 5)


@pytest.mark.parametrize(("kernel", "blocks"), [(3, 1), (5, 2), (3, 4)])
def test_what_a_pixel_sees_is_the_formula_with_its_blind_spot(kernel, blocks):
    model = make((1, 11, 15), 2, 16, blocks, kernel)
    measured = sees(model, 8, 7, images=32, generator=noise())[0] > 0
    assert torch.equal(measured, model.field(8, 7))
    near = kernel // 2
    assert measured[7, 7 + near] and not measured[7, 8 + near]
    assert (7, 8 + near) < (8, 7) and measured[7, 7 - near - blocks]


@pytest.mark.parametrize(("shape", "context_dim"), [((1, 5, 6), 0), ((1, 5, 6), 2), ((3, 3, 4), 2)])
def test_cached_sampling_equals_the_naive(shape, context_dim):
    model = make(shape, levels=4, kernel=5, context_dim=context_dim)
    context = torch.randn(6, context_dim, dtype=torch.double) if context_dim else None
    cached = model.sample(6, context, generator=noise())
    assert torch.equal(cached, model.sample(6, context, generator=noise(), cached=False))
    assert not torch.equal(cached, model.sample(6, context, generator=noise(1)))
    known, mask = integers(model, 6), torch.rand(shape, generator=noise()) < 0.5
    a, b = (model.sample(6, context, known, mask, 0.5, noise(), cached=fast) for fast in (True, False))
    assert torch.equal(a, b)
    assert torch.equal(a[:, mask], known[:, mask]) and not torch.equal(a, known)


def test_cached_logits_equal_the_parallel_ones():
    model = make((3, 4, 5), levels=4, context_dim=2)
    x, context = integers(model, 3), torch.randn(3, 2, dtype=torch.double)
    with torch.no_grad():
        predict = model.by_pixel(3, context)
        pixels = [[predict(x, i, j) for j in range(5)] for i in range(4)]
        cached = torch.stack([torch.stack(row, -1) for row in pixels], -2)
        torch.testing.assert_close(cached.movedim(1, -1), model.logits(x, context))


def test_samples_have_the_probabilities_of_the_model():
    model = make((1, 2, 2), levels=2)
    with torch.no_grad():
        model.first.weight.mul_(10)
    images, n = all_images((1, 2, 2), 2), 20_000
    code = model.sample(n, generator=noise()).flatten(1) @ torch.tensor([8, 4, 2, 1])
    expected = n * model.log_prob(images).exp().detach()
    seen = torch.bincount(code, minlength=16)
    # Chi-squared with 15 degrees of freedom exceeds 45 with probability 1e-4.
    assert ((seen - expected) ** 2 / expected).sum() < 45 and expected.max() > 2 * expected.min()


def test_temperature_zero_takes_the_likeliest_value():
    model = make()
    x = model.sample(2, temperature=0)
    assert torch.equal(x, model.logits(x).argmax(-1)) and torch.equal(x[0], x[1])


def test_a_completion_keeps_what_is_known_and_follows_it():
    model = make((1, 4, 4), levels=2)
    with torch.no_grad():
        model.first.weight.mul_(10)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    dark, bright = torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1, 4, 4, dtype=torch.long)
    below = [model.sample(4000, known=known, mask=mask, generator=noise())[:, 0] for known in (dark, bright)]
    assert (below[0][:, :2] == 0).all() and (below[1][:, :2] == 1).all()
    assert (below[0][:, 2:].double().mean(0) - below[1][:, 2:].double().mean(0)).abs().max() > 0.1


def test_the_class_changes_likelihood_and_samples():
    model = make(context_dim=2)
    first, second = torch.eye(2, dtype=torch.double).repeat_interleave(4, 0).chunk(2)
    x = integers(model, 4)
    assert (model.log_prob(x, first) - model.log_prob(x, second)).abs().min() > 1e-4
    assert not torch.equal(model.sample(4, first, generator=noise()), model.sample(4, second, generator=noise()))


def test_float32_and_uint8():
    model = make().float()
    x = integers(model, 3)
    torch.testing.assert_close(model.log_prob(x.byte()), make().log_prob(x).float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(model.sample(3, generator=noise()), model.sample(3, generator=noise(), cached=False))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.log_prob(torch.full((2, 1, 5, 6), 3)), ValueError, r"0 \.\.\. 2"),
        (lambda m: m.log_prob(torch.full((2, 1, 5, 6), -1)), ValueError, "from -1"),
        (lambda m: m.log_prob(torch.zeros(2, 1, 5, 6)), TypeError, "integers"),
        (lambda m: m.log_prob(torch.zeros(2, 1, 6, 5).long()), ValueError, r"\(batch, 1, 5, 6\)"),
        (lambda m: m.log_prob(torch.zeros(2, 1, 5, 6).long(), torch.zeros(2, 3)), ValueError, "no context"),
        (lambda m: m.sample(0), ValueError, "at least 1"),
        (lambda m: m.sample(2, temperature=-1.0), ValueError, "temperature"),
        (lambda m: m.sample(2, known=torch.zeros(1, 5, 6).long()), ValueError, "mask"),
        (
            lambda m: m.sample(2, known=torch.zeros(1, 5, 6).long(), mask=torch.ones(4, 6)),
            ValueError,
            "mask must broadcast",
        ),
        (lambda m: m.field(5, 0), ValueError, "5 x 6"),
        (lambda m: make(levels=1), ValueError, "levels"),
        (lambda m: make((5, 6)), ValueError, "height"),
        (lambda m: make((3, 5, 6), hidden=8), ValueError, "multiples of the 3 colours"),
        (lambda m: make(context_dim=3).loss(torch.zeros(2, 1, 5, 6).long()), ValueError, r"\(batch, 3\)"),
        (lambda m: MaskedConv2d(1, 1, 4), ValueError, "odd"),
        (lambda m: MaskedConv2d(1, 1, 3, "C"), ValueError, "'C'"),
    ],
)
def test_bad_input_is_refused_with_what_was_wanted(call, error, says):
    with pytest.raises(error, match=says):
        call(make())
