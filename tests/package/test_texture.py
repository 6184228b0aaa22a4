"""Texture synthesis by copying, softmax regression on colours, and the next-pixel network."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from dgm_course import data
from dgm_course.autoregressive.texture import NextPixel, SoftmaxRegression, synthesize
from dgm_course.training import fit

ROW, COLUMN = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
PERIODIC = {
    "checkerboard": (ROW + COLUMN) % 2 * 255,
    "checkerboard of 2x2": (ROW // 2 + COLUMN // 2) % 2 * 255,
    "stripes": (ROW % 4 < 2) * 255,
    "diagonal stripes": ((ROW + COLUMN) % 5) * 50,
    "bricks": torch.where(ROW % 4 == 0, 0, torch.where((COLUMN + 3 * (ROW // 4 % 2)) % 6 == 0, 0, 200)),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_(model, scale=0.7):
    with torch.no_grad():
        for p in model.double().parameters():
            p.copy_(scale * torch.randn(p.shape, generator=seeded(), dtype=p.dtype))
    return model


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64], ids=str)
@pytest.mark.parametrize("name", PERIODIC)
def test_a_periodic_texture_is_reproduced_exactly(name, dtype):
    """The result occurs in the pattern continued beyond the example."""
    whole = PERIODIC[name].to(dtype)
    texture = whole[None, :24, :24]
    got = synthesize(texture, (17, 32), window=9, seed=5, generator=seeded())
    assert got.dtype == dtype and got.shape == (1, 17, 32)
    places = whole.unfold(0, 17, 1).unfold(1, 32, 1)
    assert (places == got[0]).all(-1).all(-1).any()


def test_pixels_are_copied_with_all_their_channels_and_the_draw_follows_the_generator():
    texture = torch.stack([data.load("textures")[0, 0, :32, :32], data.load("textures")[1, 0, :32, :32]])
    one, again, other = (synthesize(texture, (16, 16), 7, generator=seeded(s)) for s in (0, 0, 1))
    colours = {tuple(c) for c in texture.flatten(1).T.tolist()}
    assert {tuple(c) for c in one.flatten(1).T.tolist()} <= colours
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_the_nearest_neighbourhood_wins_and_epsilon_lets_others_in():
    """One known pixel of value 10 beside each unknown one; the example has pairs (10, 1), (11, 2) and (14, 3)."""
    texture = torch.zeros(1, 3, 9)
    texture[0, 1] = torch.tensor([10.0, 1, 0, 11, 2, 0, 14, 3, 0])
    known = torch.tensor([[[10.0, 0]]])
    mask = torch.tensor([[True, False]])

    def grown(epsilon, value):
        images = [
            synthesize(texture, (1, 2), 3, epsilon=epsilon, known=known + value, mask=mask, generator=seeded(s))
            for s in range(60)
        ]
        return {float(image[0, 0, 1]) for image in images}

    def many(epsilon, value, temperature):
        given = {"known": known + value, "mask": mask, "generator": seeded()}
        return synthesize(texture, (1, 2), 3, epsilon=epsilon, temperature=temperature, n=60, **given)[:, 0, 0, 1]

    for epsilon, value, temperature in ((100.0, 0.6, 0), (20.0, 0.6, 0.1), (2.0, 0.6, 50)):
        same = grown(temperature * epsilon, value)
        assert {float(v) for v in many(epsilon, value, temperature)} == same, "it scales the tolerance"
    assert grown(0, 0.0) == {1.0}
    assert grown(0, 0.6) == {2.0}  # distances 0.36 and 0.16
    assert grown(2.0, 0.6) == {1.0, 2.0}
    assert grown(100.0, 0.6) >= {1.0, 2.0, 3.0}


def test_near_neighbours_weigh_more_than_far_ones():
    """Two neighbourhoods with one wrong pixel each, of the same error: the one whose far pixel is wrong is taken."""
    texture = torch.zeros(1, 5, 15)
    texture[0, 2] = torch.tensor([5.0, 9, 1, 0, 0, 50, 50, 50, 50, 50, 9, 5, 2, 0, 0])
    known = torch.tensor([[[5.0, 5, 0]]])
    for s in range(10):
        image = synthesize(texture, (1, 3), 5, known=known, mask=torch.tensor([[1, 1, 0]]), generator=seeded(s))
        assert float(image[0, 0, 2]) == 2.0


def test_a_hole_is_filled_from_its_surroundings():
    texture = PERIODIC["bricks"][None, :24, :24].to(torch.uint8)
    mask = torch.ones(24, 24, dtype=torch.bool)
    mask[8:15, 7:16] = False
    damaged = torch.where(mask, texture, 77)
    assert torch.equal(synthesize(texture, (24, 24), 9, known=damaged, mask=mask, generator=seeded()), texture)


def test_many_textures_grow_side_by_side_each_from_its_own_start():
    """Stripes of another phase in each start: every texture continues its own."""
    texture = PERIODIC["diagonal stripes"][None, :20, :20]
    mask = torch.zeros(12, 14, dtype=torch.bool)
    mask[:6, :6] = True
    wanted = torch.stack([PERIODIC["diagonal stripes"][None, k : k + 12, :14] for k in range(3)])
    got = synthesize(texture, (12, 14), 7, known=torch.where(mask, wanted, 99), mask=mask, generator=seeded(), n=3)
    assert torch.equal(got, wanted)
    grown = synthesize(data.load("textures")[0, :, :24, :24], (9, 9), 5, generator=seeded(), n=4)
    assert len({tuple(one.flatten().tolist()) for one in grown}) == 4


def test_wrong_input_of_the_synthesis_is_named():
    texture = torch.zeros(1, 12, 16)
    with pytest.raises(ValueError, match=r"\(channels, height, width\), got \(12, 16\)"):
        synthesize(texture[0], (8, 8))
    for window in (4, 13, 1):
        with pytest.raises(ValueError, match=f"odd and from 3 to 12, the side of the texture, got {window}"):
            synthesize(texture, (8, 8), window)
    with pytest.raises(ValueError, match="seed must be from 1 to 12, got 13"):
        synthesize(texture, (20, 20), 5, seed=13)
    with pytest.raises(ValueError, match="seed must be from 1 to 8, got 9"):
        synthesize(texture, (8, 20), 5, seed=9)
    with pytest.raises(ValueError, match="seed must be from 1 to 8, got 0"):
        synthesize(texture, (8, 8), 5, seed=0)
    with pytest.raises(ValueError, match=r"epsilon and temperature must be at least 0, got -1 and 1.0"):
        synthesize(texture, (8, 8), 5, epsilon=-1)
    with pytest.raises(ValueError, match="completion needs both"):
        synthesize(texture, (8, 8), 5, known=torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match=r"\(1, 8, 8\) and mask \(8, 8\), got \(1, 8, 8\) and \(1, 8, 8\)"):
        synthesize(texture, (8, 8), 5, known=torch.zeros(1, 8, 8), mask=torch.ones(1, 8, 8))
    with pytest.raises(ValueError, match="True somewhere"):
        synthesize(texture, (8, 8), 5, known=torch.zeros(1, 8, 8), mask=torch.zeros(8, 8))


def test_softmax_regression_without_features_learns_the_frequencies():
    y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    model = SoftmaxRegression(3)
    fit(model, y, steps=300, lr=0.05, batch_size=100, progress=False, device="cpu")
    torch.testing.assert_close(
        model.log_prob(torch.arange(3)).exp().detach(), torch.tensor([0.6, 0.3, 0.1]), atol=1e-3, rtol=0
    )
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert model.loss(y).item() == pytest.approx(entropy, abs=1e-4)


def test_softmax_regression_on_positions_learns_a_table_for_each_and_samples_from_it():
    """One-hot positions as features, on the colours of a stripe pattern with noise."""
    generator = seeded()
    where = torch.randint(4, (4000,), generator=generator)
    y = torch.where(torch.rand(4000, generator=generator) < 0.75, where % 2, 2)
    context = F.one_hot(where, 4).float()
    model = SoftmaxRegression(3, 4)
    fit(model, y, context=context, steps=300, lr=0.1, batch_size=1000, progress=False, device="cpu")
    counts = torch.stack([torch.bincount(y[where == i], minlength=3) for i in range(4)])
    with torch.no_grad():
        table = model.logits(4, torch.eye(4)).softmax(1)
    torch.testing.assert_close(table, counts / counts.sum(1, keepdim=True), atol=0.02, rtol=0)
    drawn = model.sample(8000, torch.eye(4).repeat(2000, 1), generator=generator).view(2000, 4)
    shares = torch.stack([(drawn == k).float().mean(0) for k in range(3)], 1)
    torch.testing.assert_close(shares, table, atol=0.05, rtol=0)
    assert torch.equal(model.sample(4, torch.eye(4), temperature=0), table.argmax(1))
    with pytest.raises(ValueError, match=r"y must lie in 0 ... 2, got values from 3 to 3"):
        model.loss(torch.tensor([3]), torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"context must have shape \(1, 4\), got \(1, 3\)"):
        model.loss(torch.tensor([2]), torch.ones(1, 3))


def test_next_pixel_is_normalized_over_all_binary_images_of_9_pixels():
    model = random_(NextPixel((1, 3, 3), 2, 1, (8,), context_dim=2), 0.5)
    x = torch.tensor(list(itertools.product(range(2), repeat=9))).view(-1, 1, 3, 3)
    log_prob = model.log_prob(x, torch.tensor([[0.3, -1.0]]).double().expand(512, 2))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_next_pixel_sees_its_causal_neighbourhood_and_nothing_else(radius):
    model = random_(NextPixel((1, 7, 8), 3, radius, (16,)))
    x = torch.randint(3, (4, 1, 7, 8), generator=seeded())
    logits = model.logits(x)
    for row, column in itertools.product(range(7), range(8)):
        other = x.clone()
        other[:, 0, row, column] = (x[:, 0, row, column] + 1) % 3
        changed = (model.logits(other) - logits).abs().amax((0, 3)) > 0
        i, j = torch.meshgrid(torch.arange(7), torch.arange(8), indexing="ij")
        above = (i > row) & (i <= row + radius) & ((j - column).abs() <= radius)
        assert torch.equal(changed, above | ((i == row) & (j > column) & (j <= column + radius)))
    dark = model.logits(torch.zeros(1, 1, 7, 8, dtype=torch.long))[0]
    assert not torch.allclose(dark[0, 0], dark[5, 4]), "outside the image is no colour"


@pytest.mark.parametrize("temperature", [0, 0.5, 1.0])
def test_next_pixel_cached_sampling_equals_the_naive_pass(temperature):
    model = random_(NextPixel((1, 5, 6), 3, 2, (8,), context_dim=1))
    context = torch.linspace(-1, 1, 10).double()[:, None]
    known, mask = torch.randint(3, (1, 5, 6), generator=seeded()), torch.arange(6) < 2
    for completion in ({}, {"known": known, "mask": mask}, {"shape": (1, 4, 9)}):
        one, two = (
            model.sample(10, temperature=temperature, generator=seeded(), cached=c, context=context, **completion)
            for c in (True, False)
        )
        assert torch.equal(one, two)
        assert one.shape == (10, *completion.get("shape", (1, 5, 6)))
    x = model.sample(10, known, mask, generator=seeded(), context=context)
    assert torch.equal(x[..., :2], known[..., :2].expand(10, 1, 5, 2))
    assert x[..., 2:].unique().tolist() == [0, 1, 2]


def test_next_pixel_samples_are_as_frequent_as_the_model_says():
    """Pearson's chi-square over all 16 binary images of 4 pixels; 37.70 is the 99.9% quantile, 15 degrees."""
    model, n = random_(NextPixel((1, 2, 2), 2, 1, (8,)), 0.3), 20_000
    images = torch.tensor(list(itertools.product(range(2), repeat=4))).view(16, 1, 2, 2)
    expected = n * model.log_prob(images).exp().detach()
    count = torch.bincount(model.sample(n, generator=seeded()).flatten(1) @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert float(expected.min()) > 5
    assert float(((count - expected) ** 2 / expected).sum()) < 37.70


def test_next_pixel_learns_a_texture_and_continues_it():
    """Trained on cuts of diagonal stripes, the likeliest continuation of a prefix is exact."""
    whole = (ROW + COLUMN) % 5 // 2
    cuts = data.patches(whole[None, None], 9, 200)
    torch.manual_seed(0)
    model = NextPixel((1, 9, 9), 3, 2, (32,))
    fit(model, cuts, steps=300, lr=0.01, batch_size=20, progress=False, device="cpu")
    known, mask = whole[None, :9, :12], torch.zeros(9, 12, dtype=torch.bool)
    mask[:3] = True
    mask[:, :2] = True
    mask[:, -2:] = True
    x = model.sample(3, known, mask, temperature=0, shape=(1, 9, 12))
    assert torch.equal(x, known.expand(3, 1, 9, 12))


def test_wrong_input_of_the_next_pixel_network_is_named():
    model = NextPixel((1, 4, 4), 3)
    with pytest.raises(ValueError, match=r"shape \(batch, 1, any, any\), got \(2, 3, 4, 4\)"):
        model.loss(torch.zeros(2, 3, 4, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="got values from 3 to 3"):
        model.loss(torch.full((2, 1, 4, 4), 3))
    with pytest.raises(ValueError, match=r"mask must broadcast to \(2, 1, 4, 4\), got \(4, 3\)"):
        model.sample(2, torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(4, 3))
    with pytest.raises(ValueError, match="takes no context"):
        model.sample(2, context=torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"\(1, height, width\), for a colour is one class, got \(3, 4, 4\)"):
        NextPixel((3, 4, 4))
    with pytest.raises(ValueError, match="radius must be at least 1, got 0"):
        NextPixel((1, 4, 4), radius=0)
