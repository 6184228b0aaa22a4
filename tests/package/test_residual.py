"""Residual blocks: the bound holds, the inverse converges, series and estimates agree with the exact log-det."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from dgm_course import flows
from dgm_course.transforms import ContractiveConvNet, ContractiveMLP, Residual
from dgm_course.transforms.residual import LipSwish, SpectralConv2d, SpectralLinear, exact_log_det, spectral_bound


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def block(scale=3.0, hidden=(16,), coeff=0.9, **more):
    """A block on three entries, with weights so large that the bound is at work, and that pull all points together."""
    torch.manual_seed(0)
    made = Residual(ContractiveMLP(3, hidden, coeff), **more).double()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
        made.net.layers[-1].weight.copy_(-made.net.layers[0].weight.T)
    return made


def linear_block(matrix, **more):
    """The block x + matrix x."""
    made = Residual(ContractiveMLP(len(matrix), (), 0.999), **more).double()
    with torch.no_grad():
        made.net.layers[0].weight.copy_(matrix)
        made.net.layers[0].bias.zero_()
    return made


def given(layer, x, v, n):
    """The estimate of a block's log-det for signs v and n terms."""
    x = x.clone().requires_grad_()
    return layer.estimate(layer.net.fixed(x), x, v, n)[1].detach()


def all_signs(dim):
    return [torch.tensor(s, dtype=torch.float64) for s in itertools.product([-1.0, 1.0], repeat=dim)]


def dense(conv, size):
    """Matrix of the convolution with its normalized weight, column by column."""
    weight, c_in = conv.normalized(size).detach(), conv.weight.shape[1]
    unit = torch.eye(c_in * size[0] * size[1], dtype=weight.dtype).unflatten(1, (c_in, *size))
    return F.conv2d(unit, weight, padding=conv.padding).flatten(1).T


# Weights that mislead power iteration from one starting vector: a top direction that a vector of ones or a unit vector
# never sees, equal singular values, rank one, extreme scales, zero.
ADVERSE = {
    "ones are blind": torch.tensor([[1.0, 1.0, 1.0], [5.0, -5.0, 0.0]]),
    "unit vectors are blind": torch.diag(torch.tensor([1.0, 1.0, 1e4])),
    "equal": torch.linalg.qr(noise(6, 6))[0] * 4,
    "nearly equal": torch.diag(torch.linspace(2.0, 2.001, 20)),
    "rank one": 1e3 * noise(5, 1) @ noise(1, 7, seed=1),
    "huge": 1e18 * noise(4, 9),
    "tiny": 1e-18 * noise(4, 9),
    "zero": torch.zeros(3, 3),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ADVERSE)
def test_the_spectral_norm_stays_below_coeff(name, dtype):
    matrix = ADVERSE[name].to(dtype)
    layer = SpectralLinear(*matrix.T.shape, 0.8).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    got, exact = (float(torch.linalg.svdvals(m.detach().double())[0]) for m in (layer.normalized(), matrix))
    assert 0.99 * min(0.8, exact) <= got <= 0.8 * (1 + 1e-6)
    if exact < 0.8:
        assert torch.equal(layer.normalized(), layer.weight), "a small weight is left alone"


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_norm_of_a_convolution_stays_below_coeff(kernel, scale):
    for seed, size in enumerate([(1, 1), (2, 5), (6, 6)]):
        torch.manual_seed(seed)
        conv = SpectralConv2d(2, 3, kernel, 0.8).double()
        with torch.no_grad():
            conv.weight.mul_(scale)
        assert float(torch.linalg.svdvals(dense(conv, size))[0]) <= 0.8 + 1e-12
        if scale == 1e-3:
            assert torch.equal(conv.normalized(size), conv.weight)


def test_the_bound_of_a_convolution_is_tight_on_large_images():
    """Hard cases: a kernel of ones (largest at frequency zero), of changing signs (largest at the highest), a shift."""
    ones, shift = torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
    shift[0, 0, 0, 2] = 1.0
    signs = ones * torch.tensor([1.0, -1.0, 1.0]) * torch.tensor([[1.0], [-1.0], [1.0]])
    for kernel in (ones, signs, shift, noise(3, 3, 3, 3)):
        conv = SpectralConv2d(kernel.shape[1], kernel.shape[0], 3, 0.5).double()
        with torch.no_grad():
            conv.weight.copy_(kernel)
        assert 0.94 * 0.5 < float(torch.linalg.svdvals(dense(conv, (14, 14)))[0]) <= 0.5


def test_the_gradient_of_the_bound():
    """That of the largest singular value where it stands apart, and of the bound itself by finite differences."""
    matrix = noise(4, 3).requires_grad_()
    (slope,) = torch.autograd.grad(spectral_bound(matrix[None]), matrix)
    (wanted,) = torch.autograd.grad(torch.linalg.matrix_norm(matrix, 2), matrix)
    assert torch.allclose(slope, wanted, atol=1e-6)
    equal = (torch.eye(4, dtype=torch.float64) + 1e-3 * noise(4, 4)).requires_grad_()  # where the two differ
    assert torch.autograd.gradcheck(lambda m: spectral_bound(m[None], rounds=1), equal)


@pytest.mark.parametrize("beta", [-60.0, -5.0, 0.5, 20.0])
def test_lipswish_has_slope_below_one(beta):
    act, x = LipSwish().double(), torch.linspace(-50, 50, 20_001, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        act.beta.fill_(beta)
    assert float(torch.autograd.grad(act(x).sum(), x)[0].abs().max()) < 1


@pytest.mark.parametrize("context_dim", [0, 2])
def test_the_network_equals_its_layers_one_by_one(context_dim):
    torch.manual_seed(0)
    net, x = ContractiveMLP(3, (8, 8), 0.9, context_dim).double(), noise(6, 3)
    context = noise(6, 2) if context_dim else None
    h = F.linear(x, net.layers[0].normalized(), net.layers[0].bias) + (net.shift(context) if context_dim else 0)
    for i, (act, layer) in enumerate(zip(net.acts, net.layers[1:], strict=True)):
        with torch.no_grad():
            act.beta.fill_(i - 0.3)
        h = F.linear(act(h), layer.normalized(), layer.bias)
    assert torch.allclose(net(x, context), h, atol=1e-12)
    g, v = net.fixed(x, context), noise(6, 3, seed=5)
    y, slope = torch.autograd.functional.jvp(g, x, v)
    for got, want in zip(g(x, v), (y, slope), strict=True):
        assert torch.allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_steep_blocks_are_contractive_and_invert(scale):
    layer, x = block(scale), 3 * noise(20, 3)
    for row in x:
        matrix = torch.autograd.functional.jacobian(lambda v: layer.net(v[None])[0], row)
        assert float(torch.linalg.matrix_norm(matrix, 2)) <= 0.81
    back, _ = layer.inverse(layer(x)[0])
    assert torch.allclose(back, x, atol=1e-9)


def test_a_steep_block_of_images_inverts_and_estimates():
    torch.manual_seed(0)
    layer, x = Residual(ContractiveConvNet(2, 8, 0.97)).double(), noise(3, 2, 5, 6)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(100)
        exact = layer(x)[1]
        assert torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-9)
        layer.log_det, layer.generator = "roulette", torch.Generator().manual_seed(0)
        draws = torch.stack([layer(x)[1] for _ in range(200)])
    assert ((draws.mean(0) - exact).abs() < 5 * draws.std(0) / 200**0.5).all()


def test_an_inverse_that_fails_says_so():
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="did not converge in 2000 steps: relative residual nan"):
            block().inverse(torch.full((1, 3), bad, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"did not converge in 3 steps: relative residual 0\.0"):
        block(max_iter=3).inverse(noise(2, 3))
    no_contraction = linear_block(torch.eye(3))
    no_contraction.net.layers[0].coeff = 1.5
    with torch.no_grad():
        no_contraction.net.layers[0].weight.mul_(1.5)
    with pytest.raises(ValueError, match="did not converge"):
        no_contraction.inverse(noise(2, 3))


def test_the_gradient_of_the_inverse_equals_that_through_many_steps():
    layer, z = block(), noise(4, 3).requires_grad_()
    parameters = [z, *layer.parameters()]
    x, log_det = layer.inverse(z)
    got = torch.autograd.grad((x.sin() + log_det[:, None]).sum(), parameters)
    x = z
    for _ in range(200):
        x = z - layer.net(x)
    want = torch.autograd.grad((x.sin() - layer(x)[1][:, None]).sum(), parameters)
    for one, two in zip(got, want, strict=True):
        assert torch.allclose(one, two, atol=1e-10)


def test_the_series_is_biased_by_at_most_its_bound_and_converges():
    layer, x, lip = block(), noise(10, 3), 0.81
    exact, errors = layer(x)[1].detach(), []
    layer.log_det = "series"
    for layer.terms in (1, 2, 4, 8, 16, 64):
        error = float((layer(x)[1].detach() - exact).abs().max())
        assert error <= 3 * lip ** (layer.terms + 1) / (layer.terms + 1) / (1 - lip) + 1e-12
        errors.append(error)
    assert errors[0] > 1e-2 and errors == sorted(errors, reverse=True) and errors[-1] < 1e-9


def test_hutchinson_over_all_signs_is_the_series():
    layer, x = block(log_det="hutchinson", terms=2), noise(4, 3)
    mean = sum(given(layer, x, v.expand(4, 3), 2) for v in all_signs(3)) / 8
    biased = block(log_det="series", terms=2)(x)[1].detach()
    assert torch.allclose(mean, biased, atol=1e-12)
    assert float((mean - block()(x)[1].detach()).abs().max()) > 1e-3  # and so not the log-det


def test_roulette_over_all_lengths_and_signs_is_the_log_det():
    """sum over n of p(n) times the estimate given n, by the chances of a geometric number after three sure terms."""
    layer, x = block(log_det="roulette", terms=3, stop=0.4), noise(4, 3)
    exact, mean = block()(x)[1].detach(), torch.zeros(4, dtype=torch.float64)
    p, n = 0.4, 3
    while p > 1e-8:
        mean += p * sum(given(layer, x, v.expand(4, 3), n) for v in all_signs(3)) / 8
        p, n = p * 0.6, n + 1
    assert torch.allclose(mean, exact, atol=1e-7)


def test_lengths_follow_their_distribution():
    layer = block(log_det="roulette", terms=3, stop=0.4, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([layer.length() for _ in range(20_000)])
    assert lengths.min() == 3
    for k in range(4):
        chance = 0.4 * 0.6**k
        assert abs(float((lengths == 3 + k).double().mean()) - chance) < 5 * (chance / 20_000) ** 0.5
    layer.log_det = "hutchinson"
    assert layer.length() == 3


def test_the_variance_of_roulette_is_finite_if_lip_squared_is_below_one_minus_stop():
    """g(x) = -L x in one dimension: no noise of the trace; the second moment is a sum over lengths that can be done.

    The partial sums settle for L^2 = 0.36 < 0.5 and grow without end for L^2 = 0.81 > 0.5.
    """

    def second_moment(lip, longest):
        layer, x = linear_block(torch.tensor([[-lip]]), log_det="roulette", terms=1, stop=0.5), noise(1, 1)
        estimates = [float(given(layer, x, torch.ones_like(x), n)) for n in range(1, longest + 1)]
        return sum(0.5 ** (i + 1) * e**2 for i, e in enumerate(estimates))

    assert abs(second_moment(0.6, 60) - second_moment(0.6, 30)) < 1e-3
    assert second_moment(0.9, 60) > 100 * second_moment(0.9, 30)


@pytest.mark.parametrize("kind", ["hutchinson", "roulette"])
def test_the_gradient_of_an_estimate_is_unbiased(kind):
    """All signs and lengths again, for every parameter, and for x as the blocks before it need it."""
    layer, x = block(log_det=kind, terms=2, stop=0.5), noise(1, 3).requires_grad_()
    parameters = [x, *layer.parameters()]

    def slopes(value):
        return [
            s.detach() for s in torch.autograd.grad(value.sum(), parameters, allow_unused=True, materialize_grads=1)
        ]

    got = [torch.zeros_like(p) for p in parameters]
    p, n = (0.5, 2) if kind == "roulette" else (1.0, 2)
    while p > 1e-6:
        for v in all_signs(3):
            part = slopes(layer.estimate(layer.net.fixed(x), x, v[None], n)[1])
            got = [total + p / 8 * one for total, one in zip(got, part, strict=True)]
        p, n = (p / 2, n + 1) if kind == "roulette" else (0.0, n)
    layer.log_det = "exact" if kind == "roulette" else "series"
    for one, two in zip(got, slopes(layer(x)[1]), strict=True):
        assert torch.allclose(one, two, atol=1e-4 if kind == "roulette" else 1e-12)


def test_estimates_repeat_with_their_generator_and_leave_the_global_one_alone():
    flow, x, before = (
        flows.residual(3, 2, (8,), log_det="roulette", terms=2),
        noise(5, 3).float(),
        torch.get_rng_state(),
    )
    values = []
    for seed in (1, 1, 2):
        for layer in flow.transform.transforms:
            layer.generator = torch.Generator().manual_seed(seed)
        values.append(flow.log_prob(x).detach())
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_exact_log_det_of_a_known_matrix():
    matrix = torch.tensor([[[0.0, 0.5], [0.5, 0.0]]], dtype=torch.float64)
    assert torch.allclose(exact_log_det(matrix), torch.tensor(0.75).double().log())
    assert torch.allclose(exact_log_det(matrix, 2), torch.tensor(-0.25).double())  # - tr(J^2) / 2, as tr J = 0


def test_bad_settings_are_refused():
    for coeff in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"coeff must lie between 0 and 1, got {coeff}"):
            ContractiveMLP(2, coeff=coeff)
    with pytest.raises(ValueError, match="kernel must be odd to keep height and width, got 2"):
        SpectralConv2d(1, 1, 2, 0.9)
    for bad in ({"stop": 1.0}, {"stop": 0.0}, {"terms": 0}):
        with pytest.raises(ValueError, match="terms must be at least 1 and stop lie between 0 and 1, got"):
            Residual(ContractiveMLP(2), **bad)
    layer = block()
    layer.log_det = "other"
    with pytest.raises(ValueError, match="log_det must be exact, series, hutchinson or roulette, got 'other'"):
        layer(noise(1, 3))
    with pytest.raises(ValueError, match="this model takes no context"):
        layer(noise(1, 3), noise(1, 2))


@pytest.mark.parametrize("kind", ["exact", "roulette"])
def test_a_residual_flow_trains(kind):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    flow, x = flows.residual(2, 3, (16,), log_det=kind, terms=3, generator=generator), 0.3 * noise(64, 2).float()
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    first = float(flow.loss(x).detach())
    for _ in range(40):
        optimizer.zero_grad()
        flow.loss(x).backward()
        optimizer.step()
    assert float(flow.loss(x).detach()) < first - 0.1
    assert flow.sample(5).shape == (5, 2)
