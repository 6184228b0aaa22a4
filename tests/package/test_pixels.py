"""What holds for every pixel model: causality, likelihood, cached sampling, completion, context."""

import itertools
import math

import pytest
import torch

from dgm_course.autoregressive.gated_pixel_cnn import GatedPixelCNN
from dgm_course.autoregressive.pixel_cnn import PixelCNN
from dgm_course.autoregressive.pixel_rnn import PixelRNN
from dgm_course.autoregressive.pixels import sees

MODELS = {
    "PixelCNN": lambda *args, kernel=3, **kw: PixelCNN(*args, blocks=2, kernel=kernel, **kw),
    "Gated PixelCNN": lambda *args, kernel=3, **kw: GatedPixelCNN(*args, layers=3, kernel=kernel, **kw),
    "Row LSTM": lambda *args, kernel=3, **kw: PixelRNN(*args, layers=2, kind="row", kernel=kernel, **kw),
    "Diagonal BiLSTM": lambda *args, kernel=3, **kw: PixelRNN(*args, layers=2, kind="diagonal", kernel=kernel, **kw),
}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
every_model = pytest.mark.parametrize("name", MODELS)


def noise(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def make(name, shape=(1, 4, 5), levels=3, context_dim=0, kernel=3, contrast=1, hidden=12):
    """A random model in float64; with contrast, pixels depend strongly on each other."""
    torch.manual_seed(0)
    model = MODELS[name](shape, levels, hidden, context_dim=context_dim, kernel=kernel).double()
    with torch.no_grad():
        for layer in [*model.head, *([model.first] if hasattr(model, "first") else [])]:
            if hasattr(layer, "weight"):
                layer.weight.mul_(contrast)
    return model


def integers(model, n, seed=0):
    return torch.randint(model.levels, (n, *model.shape), generator=noise(seed))


def all_images(shape, levels):
    entries = math.prod(shape)
    return torch.tensor(list(itertools.product(range(levels), repeat=entries))).view(-1, *shape)


def changed(model, x, entry):
    """Which logits change, `(c, h, w)`, when one entry of x takes any other value."""
    moved = torch.zeros(model.shape, dtype=torch.bool)
    for value in range(model.levels):
        other = x.clone()
        other[(slice(None), *entry)] = value
        moved |= (model.logits(other) != model.logits(x)).any(-1).any(0)
    return moved


@every_model
@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 3, 3)])
def test_every_entry_depends_on_those_before_it_alone(name, shape):
    """By gradients and by changing one input. The order is row, column, colour."""
    model = make(name, shape, kernel=5)
    order = torch.arange(math.prod(shape)).view(*shape[1:], shape[0]).permute(2, 0, 1)
    x, nothing = integers(model, 8), True
    for entry in itertools.product(*(range(size) for size in shape)):
        k, i, j = entry
        seen = sees(model, i, j, k, generator=noise()) > 0
        moved = changed(model, x, entry)
        assert not seen[order >= order[entry]].any()
        assert not moved[order <= order[entry]].any()
        nothing &= not seen.any() and not moved.any()
    assert not nothing


@every_model
def test_red_green_blue(name):
    """R sees none of its own pixel, G sees R, B sees R and G; of the pixel to the left all see all three."""
    model = make(name, (3, 3, 4), hidden=36)
    seen = [sees(model, 1, 2, k, generator=noise()) > 0 for k in range(3)]
    assert [s[:, 1, 2].int().tolist() for s in seen] == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert all(s[:, 1, 1].all() for s in seen)


@every_model
@pytest.mark.parametrize(("shape", "levels"), [((1, 3, 3), 2), ((3, 1, 2), 3)])
def test_probabilities_of_all_images_sum_to_one(name, shape, levels):
    log_prob = make(name, shape, levels, contrast=3).log_prob(all_images(shape, levels))
    assert abs(log_prob.logsumexp(0).item()) < 1e-10 and log_prob.std() > 0.1


@every_model
def test_log_prob_is_the_chain_rule(name):
    model = make(name, (3, 2, 3), levels=4)
    x = integers(model, 5)
    logits = model.logits(x)
    assert logits.shape == (5, 3, 2, 3, 4)
    chosen = logits.log_softmax(-1).gather(-1, x[..., None])
    torch.testing.assert_close(model.log_prob(x), chosen.flatten(1).sum(1))
    torch.testing.assert_close(model.loss(x), -chosen.sum() / 5)


@every_model
def test_learns_a_rule(name):
    """Images of one colour: the first pixel costs log 2, all others nothing."""
    model = make(name, (1, 3, 4), levels=2)
    x = torch.tensor([0, 1]).view(2, 1, 1, 1).expand(2, 1, 3, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(x).backward()
        optimizer.step()
    assert math.log(2) <= model.loss(x).item() < math.log(2) + 0.1
    samples = model.sample(50, generator=noise()).flatten(1)
    assert (samples == samples[:, :1]).all(1).sum() >= 45 and 5 < samples[:, 0].sum() < 45


@every_model
@pytest.mark.parametrize(("shape", "context_dim"), [((1, 5, 6), 0), ((1, 1, 4), 0), ((1, 4, 1), 2), ((3, 3, 4), 2)])
def test_cached_sampling_equals_the_naive(name, shape, context_dim):
    model = make(name, shape, 4, context_dim, kernel=5, contrast=2)
    context = torch.randn(6, context_dim, generator=noise(), dtype=torch.double) if context_dim else None
    cached = model.sample(6, context, generator=noise())
    assert torch.equal(cached, model.sample(6, context, generator=noise(), cached=False))
    assert not torch.equal(cached, model.sample(6, context, generator=noise(1)))
    known, mask = integers(model, 6), torch.rand(shape, generator=noise()) < 0.5
    a, b = (model.sample(6, context, known, mask, 0.5, noise(), cached=fast) for fast in (True, False))
    assert torch.equal(a, b)
    assert torch.equal(a[:, mask], known[:, mask]) and not torch.equal(a, known)


@every_model
def test_cached_logits_equal_the_parallel_ones(name):
    model = make(name, (3, 4, 5), levels=4, context_dim=2)
    x, context = integers(model, 3), torch.randn(3, 2, dtype=torch.double)
    with torch.no_grad():
        predict = model.by_pixel(3, context)
        cached = [predict(x, i, j) for i in range(4) for j in range(5)]
        cached = torch.stack(cached, -1).unflatten(-1, (4, 5)).movedim(1, -1)
        torch.testing.assert_close(cached, model.logits(x, context))


@every_model
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_have_the_probabilities_of_the_model(name, temperature):
    """At a temperature every factor is the softmax of logits / temperature."""
    model, n = make(name, (1, 2, 2), levels=2, contrast=4), 20_000
    images = all_images((1, 2, 2), 2)
    code = model.sample(n, temperature=temperature, generator=noise()).flatten(1) @ torch.tensor([8, 4, 2, 1])
    factors = (model.logits(images).detach() / temperature).log_softmax(-1).gather(-1, images[..., None])
    expected = n * factors.flatten(1).sum(1).exp()
    seen = torch.bincount(code, minlength=16)
    # Chi-squared with 15 degrees of freedom exceeds 45 with probability 1e-4.
    assert ((seen - expected) ** 2 / expected).sum() < 45 and expected.max() > 1.5 * expected.min()


@every_model
def test_temperature_zero_takes_the_likeliest_value(name):
    model = make(name)
    x = model.sample(2, temperature=0)
    assert torch.equal(x, model.logits(x).argmax(-1)) and torch.equal(x[0], x[1])


@every_model
def test_a_completion_keeps_what_is_known_and_follows_it(name):
    model = make(name, (1, 4, 4), levels=2, contrast=4)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    dark, bright = torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1, 4, 4, dtype=torch.long)
    below = [model.sample(1000, known=known, mask=mask, generator=noise())[:, 0] for known in (dark, bright)]
    assert (below[0][:, :2] == 0).all() and (below[1][:, :2] == 1).all()
    assert (below[0][:, 2:].double().mean(0) - below[1][:, 2:].double().mean(0)).abs().max() > 0.05


@every_model
def test_the_class_changes_likelihood_and_samples(name):
    model = make(name, context_dim=2, contrast=4)
    first, second = torch.eye(2, dtype=torch.double).repeat_interleave(20, 0).chunk(2)
    x = integers(model, 20)
    assert (model.log_prob(x, first) - model.log_prob(x, second)).abs().min() > 1e-6
    assert not torch.equal(model.sample(20, first, generator=noise()), model.sample(20, second, generator=noise()))


@every_model
@pytest.mark.parametrize("device", DEVICES)
def test_float32_uint8_and_devices(name, device):
    double = make(name)
    x = integers(double, 3)
    expected = double.log_prob(x).float()
    model = double.float().to(device)
    torch.testing.assert_close(model.log_prob(x.byte().to(device)).cpu(), expected, rtol=1e-4, atol=1e-4)
    cached = model.sample(3, generator=noise(device=device), progress=True)
    assert cached.device.type == device and cached.dtype == torch.long
    assert torch.equal(cached, model.sample(3, generator=noise(device=device), cached=False))


@every_model
@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.log_prob(torch.full((2, 1, 4, 5), 3)), ValueError, r"0 \.\.\. 2"),
        (lambda m: m.log_prob(torch.full((2, 1, 4, 5), -1)), ValueError, "from -1"),
        (lambda m: m.log_prob(torch.zeros(2, 1, 4, 5)), TypeError, "integers"),
        (lambda m: m.log_prob(torch.zeros(2, 1, 5, 4).long()), ValueError, r"\(batch, 1, 4, 5\)"),
        (lambda m: m.log_prob(torch.zeros(2, 1, 4, 5).long(), torch.zeros(2, 3)), ValueError, "no context"),
        (lambda m: m.sample(0), ValueError, "at least 1"),
        (lambda m: m.sample(2, torch.zeros(2, 3)), ValueError, "no context"),
        (lambda m: m.sample(2, temperature=-1.0), ValueError, "temperature"),
        (lambda m: m.sample(2, known=torch.zeros(1, 4, 5).long()), ValueError, "mask"),
        (lambda m: m.sample(2, known=torch.zeros(1, 4, 5).long(), mask=torch.ones(4, 6)), ValueError, "broadcast"),
        (lambda m: m.field(4, 0), ValueError, "4 x 5"),
    ],
)
def test_bad_input_is_refused_with_what_was_wanted(name, call, error, says):
    with pytest.raises(error, match=says):
        call(make(name))


@every_model
def test_bad_settings_are_refused(name):
    for settings, says in [
        ({"levels": 1}, "levels"),
        ({"shape": (5, 6)}, "height"),
        ({"shape": (5, 4, 4)}, "multiples of the 5 colours"),
        ({"kernel": 4}, "odd"),
    ]:
        with pytest.raises(ValueError, match=says):
            make(name, **settings)
    with pytest.raises(ValueError, match=r"\(batch, 3\)"):
        make(name, context_dim=3).loss(torch.zeros(2, 1, 4, 5).long())
