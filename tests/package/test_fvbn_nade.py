"""What holds for every model of vectors (FVBN, NADE, RNADE, MADE), and what is special to FVBN, NADE and RNADE."""

import itertools
import math

import pytest
import torch
from torch.autograd.functional import jacobian

from dgm_course import data
from dgm_course.autoregressive.fvbn import FVBN
from dgm_course.autoregressive.made import MADE
from dgm_course.autoregressive.nade import NADE, RNADE
from dgm_course.autoregressive.vectors import Categorical, Gaussian, GaussianMixture
from dgm_course.training import fit

DISCRETE = {
    "FVBN": lambda shape, levels, **k: FVBN(shape, Categorical(levels), **k),
    "NADE": lambda shape, levels, **k: NADE(shape, Categorical(levels), 12, **k),
    "MADE": lambda shape, levels, **k: MADE(shape, Categorical(levels), (24, 24), **k),
    "MADE, direct": lambda shape, levels, **k: MADE(shape, Categorical(levels), (24,), direct=True, **k),
}
REAL = {
    "FVBN": lambda shape, **k: FVBN(shape, Gaussian(), **k),
    "MADE": lambda shape, **k: MADE(shape, Gaussian(), (24,), activation=torch.nn.Tanh, **k),
    "MADE of mixtures": lambda shape, **k: MADE(shape, GaussianMixture(3), (24,), activation=torch.nn.Tanh, **k),
    "RNADE": lambda shape, **k: RNADE(shape, 3, 12, **k),
}
ALL = {**{f"{name}, binary": (lambda s, f=f, **k: f(s, 2, **k)) for name, f in DISCRETE.items()}, **REAL}
ALL |= {f"{name}, 3 classes": (lambda s, f=f, **k: f(s, 3, **k)) for name, f in DISCRETE.items()}


def random_(model, scale=0.7, seed=0):
    """Random parameters in float64, so that no conditional is uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.double().parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def every(levels, dim):
    """All vectors of `dim` classes, `(levels^dim, dim)`."""
    return torch.tensor(list(itertools.product(range(levels), repeat=dim)))


def some(model, n, seed=0):
    """Data that fit the model."""
    generator = torch.Generator().manual_seed(seed)
    if model.output.levels:
        return torch.randint(model.output.levels, (n, *model.shape), generator=generator)
    return torch.randn(n, *model.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("shape, levels", [((1, 3, 3), 2), (4, 3), (1, 5)], ids=str)
def test_probabilities_sum_to_one(name, shape, levels):
    model = random_(DISCRETE[name](shape, levels, context_dim=2))
    x = every(levels, model.dim).reshape(-1, *model.shape)
    for context in torch.randn(2, 2).double():
        assert model.log_prob(x, context.expand(len(x), 2)).exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", REAL)
def test_densities_integrate_to_one(name):
    model = random_(REAL[name](2, order=[1, 0]), 0.25)
    grid = torch.linspace(-20, 20, 501, dtype=torch.float64)
    with torch.no_grad():
        total = model.log_prob(torch.cartesian_prod(grid, grid)).exp().sum() * (grid[1] - grid[0]) ** 2
    assert float(total) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_each_entry_sees_exactly_the_entries_before_it(name, order):
    model = random_(ALL[name](3, order=order))
    rank = torch.argsort(torch.tensor(order))
    before = rank[None, :] < rank[:, None]
    v = torch.rand(6, 3, dtype=torch.float64)
    by_gradient = sum(jacobian(lambda u: model.params(u[None])[0], row).abs().sum(1) for row in v) > 0
    assert torch.equal(by_gradient, before)

    x = some(model, 20)
    for j in range(3):
        other = x.clone()
        other[:, j] = (x[:, j] + 1) % model.output.levels if model.output.levels else x[:, j] + 1.0
        change = (model.params(model.encode(other)) - model.params(model.encode(x))).abs().amax((0, 2)) > 0
        assert torch.equal(change, before[:, j]), f"entry {j} changed"


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("temperature", [0, 0.7, 1.0])
def test_cached_sampling_equals_the_naive_pass(name, temperature):
    model = random_(ALL[name]((2, 3), order=[4, 2, 0, 1, 5, 3], context_dim=2))
    context = torch.randn(50, 2).double()
    one, two = (
        model.sample(
            50, context=context, temperature=temperature, generator=torch.Generator().manual_seed(3), cached=cached
        )
        for cached in (True, False)
    )
    assert one.shape == (50, 2, 3)
    if model.output.levels:
        assert torch.equal(one, two)
    else:
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ALL)
def test_parameters_met_while_sampling_are_those_of_the_parallel_pass(name):
    model = random_(ALL[name](5, order=[4, 2, 0, 1, 3]))
    x = some(model, 30)
    v, seen = model.encode(x), {}

    def choose(i, params):
        seen[i] = model.output.log_prob(x[:, i], params)
        return v[:, i]

    with torch.no_grad():
        model.sequential(choose, 30)
        assert list(seen) == [4, 2, 0, 1, 3]
        torch.testing.assert_close(sum(seen.values()), model.log_prob(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_are_as_frequent_as_the_model_says(name, temperature):
    """Pearson's chi-square over all 27 vectors; 54.05 is the 99.9% quantile for 26 degrees of freedom."""
    model, n = random_(DISCRETE[name](3, 3, order=[2, 0, 1]), 0.25), 20_000
    vectors = every(3, 3)
    with torch.no_grad():
        logits = model.output.logits(model.params(model.encode(vectors))) / temperature
        log_p = logits.log_softmax(-1).gather(-1, vectors[..., None]).sum((1, 2))
    x = model.sample(n, temperature=temperature, generator=torch.Generator().manual_seed(5))
    count = torch.bincount(x @ torch.tensor([9, 3, 1]), minlength=27)
    expected = n * log_p.exp()
    assert float(expected.min()) > 5
    assert float(((count - expected) ** 2 / expected).sum()) < 54.05
    if temperature == 1:
        torch.testing.assert_close(log_p, model.log_prob(vectors).detach())


@pytest.mark.parametrize("name", REAL)
def test_moments_of_real_samples_are_those_of_the_density(name):
    """E[x1, x2, x1^2, x2^2, x1 x2] over samples against integrals over a grid; temperature 0 draws no noise."""
    model, n = random_(REAL[name](2), 0.25), 20_000
    grid = torch.linspace(-20, 20, 501, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)

    def moments(x):
        return torch.cat([x, x**2, x.prod(1, keepdim=True)], 1)

    with torch.no_grad():
        p = model.log_prob(points).exp()[:, None] * (grid[1] - grid[0]) ** 2
    mean = (p * moments(points)).sum(0)
    std = ((p * moments(points) ** 2).sum(0) - mean**2).sqrt()
    x = model.sample(n, generator=torch.Generator().manual_seed(1))
    assert ((moments(x).mean(0) - mean).abs() < 4 * std / n**0.5).all()
    assert float(model.sample(5, temperature=0).std(0).max()) < 1e-12


@pytest.mark.parametrize("name", ALL)
def test_completion_keeps_what_is_known_and_uses_it(name):
    model = random_(ALL[name]((1, 2, 2), order=[3, 0, 2, 1]))
    known, mask = some(model, 1)[0], torch.tensor([[True, False], [False, True]])
    x = model.sample(400, known=known, mask=mask, generator=torch.Generator().manual_seed(0))
    assert torch.equal(x[:, mask[None]], known[mask[None]].expand(400, 2))
    assert float(x[:, 0, 0, 1].double().std()) > 0
    naive = model.sample(400, known=known, mask=mask, generator=torch.Generator().manual_seed(0), cached=False)
    torch.testing.assert_close(x, naive, rtol=1e-8, atol=1e-8)


def test_completion_after_a_prefix_has_the_conditional_distribution():
    model, n = random_(NADE(4, Categorical(2), 6)), 20_000
    known = torch.tensor([1, 0, 0, 0])
    x = model.sample(n, known=known, mask=known.bool() | (torch.arange(4) == 1), generator=torch.manual_seed(0))
    vectors = every(2, 4)
    vectors = vectors[(vectors[:, 0] == 1) & (vectors[:, 1] == 0)]
    expected = n * model.log_prob(vectors).detach().softmax(0)
    count = torch.bincount(2 * x[:, 2] + x[:, 3], minlength=4)
    assert float(((count - expected) ** 2 / expected).sum()) < 16.27  # 99.9%, 3 degrees of freedom


def test_nade_against_a_naive_loop():
    model = random_(NADE(5, hidden=7, order=[3, 1, 4, 0, 2]))
    sigmoid = lambda t: 1 / (1 + math.exp(-t))  # noqa: E731
    weight, c = model.weight.tolist(), model.hidden_bias.tolist()
    out, b = model.out_weight[:, 0].tolist(), model.bias[:, 0].tolist()
    for x, got in zip(every(2, 5).tolist(), model.log_prob(every(2, 5)).tolist(), strict=True):
        total = 0.0
        for t, i in enumerate([3, 1, 4, 0, 2]):
            h = [sigmoid(c[k] + sum(weight[j][k] * x[j] for j in [3, 1, 4, 0, 2][:t])) for k in range(7)]
            p = sigmoid(b[i] + sum(v * u for v, u in zip(out[i], h, strict=True)))
            total += math.log(p if x[i] else 1 - p)
        assert got == pytest.approx(total, abs=1e-10)


def test_rnade_against_the_mixture_of_torch():
    model = random_(RNADE(3, 4, 6), 0.5)
    x = torch.randn(10, 3).double()
    total = 0
    for i in range(3):
        h = (model.rho[i] * (model.hidden_bias + x[:, :i] @ model.weight[:i])).relu()
        logits, mu, log_sigma = (h @ model.out_weight[i].T + model.bias[i]).chunk(3, 1)
        mixture = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=logits),
            torch.distributions.Normal(mu + torch.linspace(-2, 2, 4).double(), log_sigma.exp()),
        )
        total = total + mixture.log_prob(x[:, i])
    torch.testing.assert_close(model.log_prob(x), total)


@pytest.mark.parametrize("levels", [2, 4])
def test_fvbn_is_a_made_without_hidden_layer(levels):
    order = [2, 0, 3, 1]
    fvbn = random_(FVBN((2, 2), Categorical(levels), order=order))
    made = MADE((2, 2), Categorical(levels), hidden=(), order=order).double()
    with torch.no_grad():
        made.net.linears[0].weight.copy_(fvbn.weight.transpose(0, 1).flatten(0, 1))
        made.net.linears[0].bias.copy_(fvbn.bias.T.flatten())
    x = some(fvbn, 40)
    torch.testing.assert_close(fvbn.log_prob(x), made.log_prob(x))


@pytest.mark.parametrize("name", ALL)
def test_training_finds_structure_in_either_precision(name):
    """Two entries that agree: half the entropy, or a density far above that of independent entries."""
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        model = ALL[name](2).to(dtype)
        levels = model.output.levels
        first = torch.randint(levels, (1000, 1)) if levels else torch.randn(1000, 1, dtype=dtype)
        x = first.repeat(1, 2) + (0 if levels else 0.05 * torch.randn(1000, 2, dtype=dtype))
        fit(model, x, steps=150, lr=0.1, batch_size=100, progress=False, device="cpu")
        assert model.log_prob(x).dtype == dtype
        independent = 2 * (math.log(levels) if levels else 0.5 * math.log(2 * math.pi * math.e))
        assert model.loss(x).item() < (0.6 if levels else 0.8) * independent


def test_wrong_input_is_named():
    model = NADE((1, 2, 2), context_dim=3)
    x = torch.ones(5, 1, 2, 2, dtype=torch.long)
    context = torch.zeros(5, 3)
    with pytest.raises(ValueError, match=r"0 ... 1, got values from 2 to 2"):
        model.log_prob(2 * x, context)
    with pytest.raises(TypeError, match=r"integers in 0 ... 1, got dtype torch.float32"):
        model.log_prob(x.float(), context)
    with pytest.raises(ValueError, match=r"shape \(batch, 1, 2, 2\), got \(5, 4\)"):
        model.log_prob(x.flatten(1), context)
    with pytest.raises(ValueError, match=r"context of shape \(batch, 3\), got none"):
        model.log_prob(x)
    with pytest.raises(ValueError, match=r"context must have shape \(2, 3\), got \(5, 3\)"):
        model.sample(2, context=context)
    with pytest.raises(ValueError, match=r"mask must broadcast to \(5, 1, 2, 2\), got \(3, 3\)"):
        model.sample(5, known=x, mask=torch.ones(3, 3), context=context)
    with pytest.raises(ValueError, match="completion needs both"):
        model.sample(5, known=x, context=context)
    with pytest.raises(TypeError, match=r"floating-point tensor, got dtype torch\.int64"):
        RNADE((1, 2, 2)).sample(5, known=x, mask=x)
    with pytest.raises(TypeError, match=r"floating-point tensor, got dtype torch\.int64"):
        RNADE((1, 2, 2)).log_prob(x)
    for model in (RNADE(2), NADE(2)):
        with pytest.raises(ValueError, match="temperature must be at least 0, got -1"):
            model.sample(2, temperature=-1)
    for make in (FVBN, NADE, MADE, RNADE):
        with pytest.raises(ValueError, match=r"permutation of 0 ... 3, got \[0, 1, 2\]"):
            make(4, order=[0, 1, 2])
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        Categorical(1)
    with pytest.raises(ValueError, match="components must be at least 1, got 0"):
        RNADE(3, components=0)


def test_context_tells_digits_apart():
    """Class-conditional NADE on 8x8 digits: the right class explains an image better than another."""
    x, y = data.load("digits8", labels=True)
    x, context = (x > 8).long(), torch.nn.functional.one_hot(y, 10).float()
    torch.manual_seed(0)
    model = NADE((1, 8, 8), hidden=24, context_dim=10)
    fit(model, x, context=context, steps=200, lr=0.01, batch_size=100, progress=False, device="cpu")
    with torch.no_grad():
        assert float((model.log_prob(x, context) > model.log_prob(x, context.roll(3, 1))).float().mean()) > 0.9
