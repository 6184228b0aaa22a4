"""Flows are densities: they integrate to one, and their samples are draws from them."""

import copy
import math

import pytest
import torch

from dgm_course import data, flows, metrics, training
from dgm_course.distributions import StandardLogistic, StandardNormal
from dgm_course.transforms import Compose, Logit, Standardize

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def randomized(flow, seed=0):
    """The flow in float64 with random parameters: its layers start at the identity, where much goes right by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.double().parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.5 * noise / parameter[0].numel() ** 0.5)
    return flow


def trained(make, name):
    """The flow after a short training on a toy, in float64."""
    flow = make()
    training.fit(flow, data.toy(name, 5000), steps=250, lr=5e-3, schedule="cosine", progress=False)
    return flow.double()


PLANE = {
    "NICE, random": lambda: randomized(flows.nice(2, 4, (16, 16))),
    "RealNVP, random": lambda: randomized(flows.realnvp(2)),
    "RealNVP, trained": lambda: trained(lambda: flows.realnvp(2, 6), "eight_gaussians"),
    "NICE, trained": lambda: trained(lambda: flows.nice(2, 6, (32, 32)), "moons"),
}


@pytest.fixture(scope="module", params=PLANE)
def plane(request):
    """A flow in the plane, and its probabilities on square cells: `(flow, probabilities (n, n), side, cell)`."""
    side, n = 16.0, 640
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = PLANE[request.param]()
    cell = 2 * side / n
    centers = torch.arange(n, dtype=torch.float64) * cell - side + cell / 2
    points = torch.cartesian_prod(centers, centers)
    with torch.no_grad():
        density = torch.cat([flow.log_prob(part) for part in points.split(50_000)]).exp()
    return flow, (density * cell**2).reshape(n, n), side, cell


def test_density_integrates_to_one(plane):
    assert float(plane[1].sum()) == pytest.approx(1, abs=2e-3)


def chi_square(samples, probabilities, side, cells):
    """Pearson's statistic of samples on `cells` x `cells` squares, with everything rare or outside in one cell.

    Returns how many standard deviations it lies above its mean. With 50 cells or more, chance passes 6 in
    2 runs of a million (and seeds are fixed).
    """
    block = len(probabilities) // cells
    expected = len(samples) * probabilities.unfold(0, block, block).unfold(1, block, block).sum((2, 3))
    place = ((samples + side) / (2 * side) * cells).floor()
    inside = ((place >= 0) & (place < cells)).all(1)
    place = place[inside].long()
    observed = torch.zeros(cells, cells, dtype=torch.float64).index_put_(
        tuple(place.T), torch.ones(len(place), dtype=torch.float64), accumulate=True
    )
    common = expected > 10
    expected = torch.cat([expected[common], (len(samples) - expected[common].sum())[None]])
    observed = torch.cat([observed[common], (len(samples) - observed[common].sum())[None]])
    keep = expected > 10
    freedom = int(keep.sum()) - 1
    assert freedom >= 50
    return float((((observed - expected) ** 2 / expected)[keep].sum() - freedom) / math.sqrt(2 * freedom))


def test_samples_agree_with_the_density(plane):
    flow, probabilities, side, _ = plane
    samples = flow.sample(30_000, generator=torch.Generator().manual_seed(1))
    assert chi_square(samples, probabilities, side, 64) < 6
    assert chi_square(samples + torch.tensor([0.3, 0.0]), probabilities, side, 64) > 6, "the test sees a small shift"


def test_mean_of_log_prob_over_own_samples_is_minus_the_entropy(plane):
    flow, probabilities, _, cell = plane
    density = probabilities[probabilities > 0]
    entropy = -float((density * (density / cell**2).log()).sum())
    with torch.no_grad():
        values = flow.log_prob(flow.sample(20_000, generator=torch.Generator().manual_seed(2)))
    assert abs(float(values.mean()) + entropy) < 5 * float(values.std()) / math.sqrt(20_000) + 2e-3


def test_density_of_an_image_flow_integrates_to_one():
    """By importance sampling: the mean of p(x) / q(x) over x from a wide Gaussian q is 1."""
    flow = randomized(flows.realnvp_image((1, 2, 2), levels=2, hidden=8, blocks=1))
    with torch.no_grad():
        own = flow.sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(1)
        mean, root = own.mean(0), torch.linalg.cholesky(2 * own.T.cov() + torch.eye(4))
        noise = torch.randn(40_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        log_q = StandardNormal((4,)).log_prob(noise) - root.diagonal().log().sum()
        ratio = (flow.log_prob((mean + noise @ root.T).reshape(-1, 1, 2, 2)) - log_q).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.03 and abs(float(ratio.mean()) - 1) < 5 * error


def test_bits_of_an_image_flow():
    """Untrained, the flow is a Gaussian on the logits; its bits/dim follow by hand, in the pixels' own units."""
    images = data.load("digits8", "test")[:200]
    convention = metrics.dequantized(17)
    flow = flows.realnvp_image((1, 8, 8), levels=2, hidden=8, blocks=1)
    flow = flows.Flow(flow.base, Compose(Logit(0.05), flow.transform))
    result = metrics.evaluate(flow, images, convention)

    x = convention.prepare(images, torch.Generator().manual_seed(0)).double()
    p = 0.05 + 0.9 * x
    z = (p / (1 - p)).log()
    log_prob = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) + math.log(0.9) - p.log() - (1 - p).log()
    bits = (math.log(17) - log_prob.mean()) / math.log(2)
    assert result.bits_per_dim == pytest.approx(float(bits), rel=1e-5)
    assert result.dims == 64 and result.kind == "exact"


def test_an_image_flow_learns_and_inverts_its_data():
    convention = metrics.dequantized(17)
    train, valid = (convention.prepare(data.load("digits8", split)) for split in ("train", "valid"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = flows.realnvp_image((1, 8, 8), levels=2, hidden=8, blocks=1)
    flow = flows.Flow(flow.base, Compose(Logit(0.05), flow.transform))
    with torch.no_grad():
        before = flow.loss(valid).item()
    history = training.fit(flow, train, valid=valid, steps=60, batch_size=64, lr=3e-3, progress=False)
    assert history.best_valid < before - 10
    with torch.no_grad():
        back = flow.transform.inverse(flow.transform(valid)[0])[0]
    assert float((back - valid).abs().max()) < 1e-4
    samples = flow.sample(8, generator=torch.Generator().manual_seed(0))
    assert samples.shape == (8, 1, 8, 8) and torch.isfinite(samples).all()


def test_training_gets_near_the_entropy():
    """Eight Gaussians have an entropy of 2.83 nats; a Gaussian with their covariance needs 4.3."""
    flow = PLANE["RealNVP, trained"]().float()
    loss = -metrics.evaluate(flow, data.toy("eight_gaussians", 5000, seed=1)).nats
    assert 2.80 < loss < 3.4


MODELS = {
    "NICE": (lambda **more: flows.nice(3, 3, (16,), **more), (3,)),
    "RealNVP": (lambda **more: flows.realnvp(3, **more), (3,)),
    "RealNVP for images": (lambda **more: flows.realnvp_image((1, 4, 4), 2, 8, 1, **more), (1, 4, 4)),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def test_sampling_follows_the_generator_and_nothing_else(model):
    make, shape = model
    flow = randomized(make())
    state = torch.get_rng_state()
    first, second = (flow.sample(5, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (5, *shape) and not first.requires_grad
    assert torch.equal(torch.get_rng_state(), state), "the global random state is left alone"
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(flow.sample(5, generator=generator), first)
    assert not torch.equal(flow.sample(5, generator=generator), first), "a generator moves on"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = flow.sample(5)
        torch.manual_seed(3)
        assert torch.equal(flow.sample(5), first), "without one, torch's own seed counts"


def test_temperature(model):
    make, shape = model
    flow = randomized(make())
    cold = flow.sample(4, temperature=0)
    assert torch.equal(cold, cold[:1].expand_as(cold))
    size = math.prod(shape)
    assert torch.allclose(cold[:1], flow.transform.inverse(torch.zeros(1, size, dtype=torch.float64))[0])
    spread = [flow.sample(500, temperature=t, generator=torch.Generator().manual_seed(0)).std() for t in (0.1, 1.0)]
    assert spread[0] < spread[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("device", DEVICES)
def test_dtype_and_device_follow_the_model(model, dtype, device):
    make, _ = model
    flow = make().to(device, dtype)
    x = flow.sample(6)
    log_prob = flow.log_prob(x)
    assert x.dtype == log_prob.dtype == dtype and x.device.type == log_prob.device.type == device
    assert log_prob.shape == (6,) and torch.isfinite(log_prob).all()


@pytest.mark.parametrize("device", DEVICES)
def test_same_numbers_in_float32_and_on_each_device(model, device):
    make, _ = model
    flow = randomized(make())
    x = flow.sample(50, generator=torch.Generator().manual_seed(0))
    single = copy.deepcopy(flow).float().to(device)
    assert torch.allclose(single.log_prob(x.float().to(device)).double().cpu(), flow.log_prob(x), rtol=1e-3, atol=1e-3)


def test_loss_is_the_mean_negative_log_prob(model):
    flow = randomized(model[0]())
    x = flow.sample(20)
    assert float(flow.loss(x).detach()) == pytest.approx(-float(flow.log_prob(x).detach().mean()))
    flow.loss(x).backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


def test_save_and_load(model, tmp_path):
    flow, x = randomized(model[0]()), model[0]().sample(5).double()
    torch.save(flow.state_dict(), tmp_path / "flow.pt")
    loaded = model[0]().double()
    loaded.load_state_dict(torch.load(tmp_path / "flow.pt", weights_only=True))
    assert torch.equal(loaded.log_prob(x), flow.log_prob(x))


def test_context_conditions_density_and_samples(model):
    make, _ = model
    flow = randomized(make(context_dim=2))
    context = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = flow.sample(6, context=context, generator=torch.Generator().manual_seed(0))
    other = flow.sample(6, context=context + 1, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(x, other)
    assert not torch.allclose(flow.log_prob(x, context), flow.log_prob(x, context + 1))
    assert torch.isclose(flow.loss(x, context=context), -flow.log_prob(x, context).mean())
    for call in (lambda c: flow.log_prob(x, c), lambda c: flow.sample(6, context=c)):
        with pytest.raises(ValueError, match=r"needs a context of shape \(batch, 2\), got none"):
            call(None)
        with pytest.raises(ValueError, match=r"context must have shape \(6, 2\), got \(3, 2\)"):
            call(context[:3])


def test_every_conditional_density_integrates_to_one():
    flow = randomized(flows.realnvp(2, context_dim=1))
    line = torch.linspace(-15, 15, 400, dtype=torch.float64)
    points = torch.cartesian_prod(line, line)
    for value in (-1.0, 2.0):
        with torch.no_grad():
            density = flow.log_prob(points, torch.full((len(points), 1), value, dtype=torch.float64)).exp()
        assert float(density.sum()) * float(line[1] - line[0]) ** 2 == pytest.approx(1, abs=2e-3)


def test_nice_starts_at_the_scale_of_the_data():
    x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 1.0, 10.0, 100.0])
    z = flows.nice(4, scale=1 / x.std(0)).transform(x)[0]
    assert torch.allclose(z.std(0), torch.ones(4), atol=1e-4)
    assert sorted(z[0].tolist()) == pytest.approx(sorted((x[0] / x.std(0)).tolist()), rel=1e-4)


def test_flow_of_a_fixed_transform_is_a_gaussian():
    x = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1
    flow = flows.Flow(StandardNormal((3,)), Standardize(x)).double()
    expected = torch.distributions.Normal(x.mean(0), x.std(0)).log_prob(x).sum(1)
    assert torch.allclose(flow.log_prob(x), expected)


@pytest.mark.parametrize("base", [StandardNormal, StandardLogistic])
def test_bases_are_what_they_say(base):
    line = torch.linspace(-40, 40, 80_001, dtype=torch.float64)[:, None]
    density = base((1,)).double().log_prob(line).exp()
    assert float(density.sum() * 0.001) == pytest.approx(1, abs=1e-6)
    samples = base((1,)).sample(20_000, generator=torch.Generator().manual_seed(0)).flatten().sort().values
    cdf = torch.sigmoid(samples) if base is StandardLogistic else torch.special.ndtr(samples)
    # Kolmogorov and Smirnov: a gap above 2.3 / sqrt(n) comes by chance once in 20,000 runs.
    gap = float((cdf - torch.linspace(0, 1, len(samples))).abs().max())
    assert gap < 2.3 / math.sqrt(len(samples))
    assert float(base((2, 3)).log_prob(torch.full((1, 2, 3), 1e4))) < -1e4, "finite far away"
    assert base((2, 3)).sample(4).shape == (4, 2, 3)


def test_log_prob_refuses_what_has_no_density(model):
    make, shape = model
    flow, good = make(), torch.zeros(4, *shape)
    for value in (torch.nan, torch.inf, -torch.inf):
        bad = good.clone()
        bad.view(-1)[1:3] = value
        with pytest.raises(ValueError, match="x has 2 entries that are NaN or infinite"):
            flow.log_prob(bad)
    with pytest.raises(ValueError, match=r"x must have shape \(batch, .*\), got \(4, "):
        flow.log_prob(good[..., :-1])
    with pytest.raises(ValueError, match="must have shape"):
        flow.log_prob(good[0])
    with pytest.raises(TypeError, match=r"floating-point tensor, got dtype torch\.uint8"):
        flow.log_prob(good.to(torch.uint8))
    with pytest.raises(TypeError, match="floating-point tensor, got list"):
        flow.log_prob(good.tolist())


def test_an_empty_batch_has_densities_but_no_loss(model):
    make, shape = model
    flow = make()
    assert flow.log_prob(torch.zeros(0, *shape)).shape == (0,)
    assert flow.sample(0).shape == (0, *shape)
    with pytest.raises(ValueError, match="the batch is empty"):
        flow.loss(torch.zeros(0, *shape))
