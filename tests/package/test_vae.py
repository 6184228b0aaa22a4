"""VAEs: bounds against exact likelihoods, surgery, priors, flow posteriors, likelihoods at their edges, training."""

import math

import pytest
import torch
from torch import nn

from dgm_course import data, flows, metrics, training
from dgm_course.bounds import Bound
from dgm_course.distributions import StandardNormal
from dgm_course.latents import AggregatedPosterior, GaussianMixture, Posterior, VampPrior, posterior_flow
from dgm_course.likelihoods import Bernoulli, Categorical, Gaussian, Logistic
from dgm_course.transforms import Compose, Planar
from dgm_course.vae import VAE, discrete_surgery, prior_twin, vae

FLOWS = ["planar", "radial", "orthogonal", "householder", "triangular", "realnvp", "iaf"]
every_flow = pytest.mark.parametrize("name", FLOWS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def disturb(module, scale, seed=0):
    """The same module with random parameters, where new networks start as the identity."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, dtype=p.dtype, generator=generator(seed)))
    return module


def mean_and_error(values):
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


class PPCA:
    """x = W z + b + scale * noise, z standard normal: exact likelihood and posterior, and a VAE of the same form."""

    def __init__(self, weight, scale=0.7):
        self.weight, self.scale = weight, scale
        self.m, self.d = weight.shape
        self.bias = noise(self.m, seed=5)
        inner = torch.linalg.inv(torch.eye(self.d).double() + weight.T @ weight / scale**2)
        self.gain, self.covariance = inner @ weight.T / scale**2, inner  # posterior N(gain (x - b), covariance)
        marginal = weight @ weight.T + scale**2 * torch.eye(self.m).double()
        self.exact = torch.distributions.MultivariateNormal(self.bias, marginal).log_prob

    def vae(self, gain=None, log_scale=None, prior=None):
        """q(z | x) = N(gain (x - b), exp(log_scale)^2); by default as near the exact posterior as a diagonal gets."""
        gain = self.gain if gain is None else gain
        log_scale = -0.5 * torch.linalg.inv(self.covariance).diagonal().log() if log_scale is None else log_scale
        encoder = linear(
            torch.cat([gain, torch.zeros(self.d, self.m).double()]), torch.cat([-gain @ self.bias, log_scale])
        )
        decoder = nn.Sequential(linear(self.weight, self.bias), nn.Unflatten(1, (1, self.m)))
        return VAE(Posterior(encoder, self.d), decoder, Gaussian(self.scale), (self.m,), prior).double()

    def gap(self, x, gain, log_scale):
        """KL(q(z | x) || p(z | x)) between Gaussians in closed form."""
        q = torch.distributions.MultivariateNormal((x - self.bias) @ gain.T, (2 * log_scale).exp().diag())
        p = torch.distributions.MultivariateNormal((x - self.bias) @ self.gain.T, self.covariance)
        return torch.distributions.kl_divergence(q, p)


@torch.no_grad()
def test_the_elbo_misses_the_exact_likelihood_by_the_kl_divergence_to_the_posterior():
    model = PPCA(noise(3, 2, seed=1))
    gain, log_scale = model.gain + 0.2 * noise(2, 3, seed=2), torch.tensor([-0.3, 0.1]).double()
    x = noise(4, 3, seed=3)
    one = model.vae(gain, log_scale)
    for analytic in (True, False):
        draws = torch.stack([one.elbo(x, generator(i), k=20, analytic=analytic) for i in range(400)])
        for i, wanted in enumerate(model.exact(x) - model.gap(x, gain, log_scale)):
            mean, error = mean_and_error(draws[:, i])
            assert abs(mean - wanted) < 4.5 * error and error < 0.1
            assert mean + 4.5 * error < model.exact(x)[i]


@torch.no_grad()
def test_the_exact_posterior_makes_the_bound_tight_in_every_sample():
    """The E-step of EM. Orthogonal columns of W make the posterior diagonal."""
    weight = torch.linalg.qr(noise(4, 2, seed=1))[0] * torch.tensor([2.0, 0.5]).double()
    model, x = PPCA(weight), noise(5, 4)
    one = model.vae()
    assert torch.allclose(one.log_weights(x, 7), model.exact(x).expand(7, 5), atol=1e-10)
    assert torch.allclose(one.log_prob_estimate(x, 3, chunk=2), model.exact(x), atol=1e-10)


@torch.no_grad()
def test_iwae_grows_with_k_and_approaches_the_exact_likelihood():
    model, x = PPCA(noise(3, 2, seed=1)), noise(3, 3, seed=3)
    one, exact = model.vae(model.gain + 0.2 * noise(2, 3, seed=2), torch.zeros(2).double()), model.exact(x).mean()
    bounds = [mean_and_error(one.iwae(x.repeat(3000, 1), k, generator(k)).view(3000, 3).mean(1)) for k in (1, 3, 10)]
    for (low, e_low), (high, e_high) in zip(bounds, [*bounds[1:], (float(exact), 0.0)], strict=True):
        assert low + 3 * math.hypot(e_low, e_high) < high
    estimate = one.log_prob_estimate(x, 20000, generator(), chunk=5000)
    assert torch.allclose(estimate, model.exact(x), atol=0.05)


@torch.no_grad()
@every_flow
def test_iwae_with_flow_posteriors_finds_the_same_likelihood(name):
    """Importance weights are right only if log q is; a wrong log-det would bias the estimate."""
    model, x = PPCA(noise(3, 2, seed=1)), noise(2, 3, seed=3)
    one = model.vae()
    layers = disturb(posterior_flow(name, 2, 2, context_dim=3).double(), 0.1)
    encoder = nn.Linear(3, 7).double()
    encoder.weight[:4], encoder.bias[:4] = one.posterior.encoder.weight, one.posterior.encoder.bias
    encoder.bias[2:4] += 0.4
    one.posterior = Posterior(encoder, 2, layers, 3)
    assert torch.allclose(one.log_prob_estimate(x, 30000, generator(), chunk=10000), model.exact(x), atol=0.15)


@torch.no_grad()
def test_analytic_and_monte_carlo_kl_agree():
    one = vae((6,), dim=3, hidden=(8,)).double()
    x = torch.randint(0, 2, (4, 6), generator=generator())
    mean, log_scale, _ = one.posterior.params(one.inputs(x))
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(mean, log_scale.exp())
    exact = one.posterior.kl_standard((mean, log_scale, None))
    assert torch.allclose(exact, torch.distributions.kl_divergence(q, p))
    draws = one.parts(x[:1], one.noise(x[:1], 1), False)[1]
    assert draws.shape == (1, 1)
    for i in range(4):
        rows = x[i : i + 1].expand(4000, 6)
        kl, error = mean_and_error(one.parts(rows, one.noise(rows, 1, generator(i)), analytic=False)[1])
        assert abs(kl - float(exact[i].sum())) < 4.5 * error


def test_both_estimators_of_the_elbo_have_the_same_gradient_in_expectation():
    one = vae((4,), dim=2, hidden=(8,)).double()
    rows = torch.tensor([[0, 1, 1, 0]]).expand(20000, 4)
    parameter = one.posterior.encoder[1].layers[-1].bias
    grads = [torch.autograd.grad(one.loss(rows, generator(i), analytic=i == 0), parameter)[0] for i in range(2)]
    assert torch.allclose(*grads, atol=0.03) and float(grads[0].abs().max()) > 0.1


def test_free_bits_and_warm_up_act_on_the_loss_alone():
    x = torch.randint(0, 2, (64, 6), generator=generator())
    one = vae((6,), dim=3, hidden=(8,), warm_up=4).double()
    with torch.no_grad():
        reconstruction, kl = (part.mean(0) for part in one.parts(x, one.noise(x, 1, generator())))
    for step in range(6):  # 0, 1/4, 1/2, 3/4, 1, 1
        wanted = min(1, step / 4) * kl.sum() - reconstruction
        assert float(one.loss(x, generator()).detach() - wanted) == pytest.approx(0, abs=1e-12)
    assert int(one.step) == 6 and int(one.state_dict()["step"]) == 6
    one.step.zero_()
    one.eval()
    assert torch.allclose(one.loss(x, generator()), kl.sum() - reconstruction) and int(one.step) == 0
    assert torch.allclose(one.loss(x, generator(), beta=4.0), 4 * kl.sum() - reconstruction)
    middle = float(kl.median())
    one.free_bits = middle
    assert torch.allclose(one.loss(x, generator()), kl.clamp(min=middle).sum() - reconstruction)
    assert torch.allclose(one.elbo(x, generator()).mean(), reconstruction - kl.sum())
    with torch.no_grad():  # an estimate has one sum over the three entries, so three times the free nats
        estimate = one.parts(x, one.noise(x, 1, generator()), analytic=False)[1].mean()
    for free in (0.32 * float(estimate), 0.5 * float(estimate)):
        one.free_bits = free
        assert torch.allclose(
            one.loss(x, generator(), analytic=False), max(estimate, torch.tensor(3 * free)) - reconstruction
        )
    one.free_bits = 100.0  # the divergence costs nothing: its gradient is gone, also where it is estimated
    for analytic in (True, False):
        grad = torch.autograd.grad(one.loss(x, generator(), analytic=analytic), one.parameters(), allow_unused=True)
        pure = torch.autograd.grad(-one.parts(x, one.noise(x, 1, generator()))[0].mean(), one.parameters())
        assert all(torch.allclose(a, b) for a, b in zip(grad, pure, strict=True))


def test_surgery_of_a_discrete_latent_adds_up_exactly():
    n, k = 4, 3
    log_q, log_prior = noise(n, k).log_softmax(1), noise(k, seed=1).log_softmax(0)
    log_likelihood = -(noise(n, k, seed=2) ** 2)
    parts = discrete_surgery(log_likelihood, log_q, log_prior)
    joint, agg = log_q.exp() / n, log_q.exp().mean(0)  # q(i, z) and its marginal of z, by hand
    information = sum(
        joint[i, z] * (joint[i, z] / (agg[z] / n)).log() for i in range(n) for z in range(k)
    )  # KL between the joint and the product of its marginals
    marginal = sum(agg[z] * (agg[z] / log_prior[z].exp()).log() for z in range(k))
    kl = sum(float((log_q[i].exp() * (log_q[i] - log_prior)).sum()) for i in range(n)) / n
    elbo = sum(float((log_q[i].exp() * (log_likelihood[i] + log_prior - log_q[i])).sum()) for i in range(n)) / n
    assert torch.allclose(parts.mutual_information, information) and torch.allclose(parts.marginal_kl, marginal)
    assert float(parts.kl) == pytest.approx(kl) and float(parts.elbo) == pytest.approx(elbo)
    assert float(parts.mutual_information + parts.marginal_kl) == pytest.approx(kl, abs=1e-12)
    assert 0 < parts.mutual_information < math.log(n)
    sure = discrete_surgery(torch.zeros(2, 3), torch.eye(3)[:2].log(), torch.full((3,), 1 / 3).log())
    assert torch.allclose(torch.stack(sure[2:]), torch.tensor([3.0, 2.0, 1.5]).log())  # log 3 = log 2 + log 3/2
    best = discrete_surgery(log_likelihood, log_q, log_q.exp().mean(0).log())
    assert float(best.marginal_kl) == pytest.approx(0, abs=1e-12) and best.elbo > parts.elbo


def line_posterior(means, scale):
    """q(z | x_i) = N(means_i, scale^2) for x the index i, one latent entry."""
    encoder = nn.Sequential(
        nn.Flatten(), linear(torch.tensor([[1.0], [0.0]]).double(), torch.tensor([0.0, math.log(scale)]).double())
    )
    decoder = nn.Sequential(linear(torch.ones(1, 1).double(), torch.zeros(1).double()), nn.Unflatten(1, (1, 1)))
    return VAE(Posterior(encoder, 1), decoder, Gaussian(1.0), (1,)).double(), torch.tensor(means).double()[:, None]


@torch.no_grad()
def test_surgery_by_sampling_against_quadrature():
    one, x = line_posterior([-1.5, 0.0, 0.4, 3.0], 0.5)
    line = torch.linspace(-8, 10, 4001).double()
    step = float(line[1] - line[0])
    log_q = torch.distributions.Normal(x, 0.5).log_prob(line)  # (n, grid)
    log_agg, log_prior = log_q.exp().mean(0).log(), torch.distributions.Normal(0.0, 1.0).log_prob(line)
    information = float((log_q.exp() * (log_q - log_agg)).sum(1).mean() * step)
    marginal = float((log_agg.exp() * (log_agg - log_prior)).sum() * step)
    runs = [one.surgery(x, 50, generator(i)) for i in range(100)]
    for run in runs[:3]:  # in every run, not on average: the same samples and the same q_agg in both
        assert float(run.kl) == pytest.approx(float(run.mutual_information + run.marginal_kl), abs=1e-12)
        assert float(run.elbo) == pytest.approx(float(run.reconstruction - run.kl), abs=1e-12)
    for values, wanted in (
        (torch.stack([run.mutual_information for run in runs]), information),
        (torch.stack([run.marginal_kl for run in runs]), marginal),
        (torch.stack([run.elbo for run in runs]), -0.5 * math.log(2 * math.pi) - 0.125 - information - marginal),
    ):
        mean, error = mean_and_error(values)
        assert abs(mean - wanted) < 4.5 * error


@torch.no_grad()
def test_mutual_information_runs_from_nothing_to_log_n():
    far, x = line_posterior([-100.0, 0.0, 100.0], 0.5)
    assert float(far.surgery(x, 10).mutual_information) == pytest.approx(math.log(3))
    assert float(far.surgery(x[:2], 10).mutual_information) == pytest.approx(math.log(2))  # a minibatch hides the rest
    same, x = line_posterior([1.0, 1.0, 1.0], 0.5)
    assert float(same.surgery(x, 10).mutual_information) == pytest.approx(0, abs=1e-12)


@torch.no_grad()
def test_the_aggregated_posterior_is_the_best_prior():
    one, x = line_posterior([-1.5, 0.0, 0.4, 3.0], 0.5)
    with_normal = one.surgery(x, 200, generator())
    one.prior = one.aggregated_posterior(x)
    with_own = one.surgery(x, 200, generator())
    assert float(with_own.marginal_kl) == pytest.approx(0, abs=1e-12)
    assert float(with_own.elbo - with_normal.elbo) == pytest.approx(float(with_normal.marginal_kl), abs=1e-9)
    samples = one.prior.sample(20000, generator())
    assert abs(float(samples.mean() - x.mean())) < 0.06
    assert abs(float(samples.var() - (x.var(unbiased=False) + 0.25))) < 0.15


def with_posterior(name, context_dim, likelihood=None, shape=(5,), scale=0.2):
    one = vae(shape, 4, likelihood or Bernoulli(), name, layers=3, context_dim=context_dim, hidden=(16,)).double()
    return disturb(one, scale)


@every_flow
def test_flow_prior_and_flow_posterior_agree_sample_by_sample(name):
    """Document 001: the same model twice, once with the flow in q, once in the prior and before the decoder."""
    one = with_posterior(name, 0)
    twin = prior_twin(one)
    x, eps = torch.randint(0, 2, (6, 5), generator=generator()), noise(7, 6, 4)
    weights = one.log_weights(x, 7, eps=eps), twin.log_weights(x, 7, eps=eps)
    assert torch.allclose(*weights, atol=1e-10, rtol=0)
    elbos = one.elbo(x, eps=eps), twin.elbo(x, eps=eps)
    assert torch.allclose(*elbos, atol=1e-10, rtol=0)
    latents = one.posterior(one.inputs(x), eps)[0], twin.posterior(twin.inputs(x), eps)[0]
    assert not torch.allclose(*latents, atol=1e-2)  # the two are different routes
    grads = [torch.autograd.grad(e.mean(), list(one.parameters()), allow_unused=True) for e in elbos]
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None) and (a is None or torch.allclose(a, b, atol=1e-9))
    with torch.no_grad():  # and the same generative model: the prior's path undoes the decoder's
        z = one.prior.sample(9, generator())
        assert torch.allclose(one.decode(z), twin.decode(twin.prior.sample(9, generator=generator())), atol=1e-8)


@every_flow
@pytest.mark.parametrize("context_dim", [0, 3])
def test_densities_of_posteriors_against_dense_jacobians(name, context_dim):
    one = with_posterior(name, context_dim)
    q, x = one.posterior, one.inputs(torch.randint(0, 2, (3, 5), generator=generator()))
    eps = noise(2, 3, 4)
    z, log_q = q(x, eps)
    for i in range(2):
        for j in range(3):
            jacobian = torch.autograd.functional.jacobian(
                lambda e, j=j: q(x[j : j + 1], e[None, None])[0][0, 0], eps[i, j]
            )
            base = torch.distributions.Normal(0.0, 1.0).log_prob(eps[i, j]).sum()
            assert torch.allclose(log_q[i, j], base - torch.linalg.slogdet(jacobian)[1], atol=1e-9)
    with torch.no_grad():
        assert torch.allclose(q.log_prob(z[0], x), log_q[0], atol=1e-7)
        pairs = q.pairwise(z.flatten(0, 1), x, chunk=6)
        by_hand = torch.stack([q.log_prob(z.flatten(0, 1), one_x.expand(6, 5)) for one_x in x], dim=1)
        assert torch.allclose(pairs, by_hand, atol=1e-7) and torch.allclose(pairs[:3].diagonal(), log_q[0], atol=1e-7)


@every_flow
def test_context_gives_each_example_its_own_flow(name):
    one = with_posterior(name, 3)
    x = one.inputs(torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]))
    mean, log_scale, context = one.posterior.params(x)
    same = mean[:1].expand(2, 4), log_scale[:1].expand(2, 4), context  # the Gaussians alike, the flows not
    z, log_q = one.posterior.draw(same, noise(1, 1, 4).expand(1, 2, 4))
    assert not torch.allclose(z[0, 0], z[0, 1], atol=1e-3) and not torch.allclose(log_q[0, 0], log_q[0, 1], atol=1e-4)
    x = torch.randint(0, 2, (6, 5), generator=generator())
    one.loss(x, generator()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in one.parameters())


@torch.no_grad()
def test_priors_are_densities_and_sample_what_they_say():
    torch.manual_seed(1)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 4))
    posterior = Posterior(encoder, 2).double()
    flow_posterior = Posterior(nn.Linear(3, 4), 2, disturb(Compose(Planar(2), Planar(2)), 0.5)).double()
    priors = {
        "mixture": GaussianMixture(2, 5).double(),
        "aggregated": AggregatedPosterior(posterior, noise(6, 3)),
        "vamp": VampPrior(posterior, noise(6, 3)),
        "of a flow": AggregatedPosterior(flow_posterior, noise(6, 3)),
        "flow": disturb(flows.realnvp(2, 2, (8,)), 0.1).double(),
    }
    line = torch.linspace(-12, 12, 241).double()
    grid = torch.cartesian_prod(line, line)
    cell = float(line[1] - line[0]) ** 2
    for name, prior in priors.items():
        density = prior.log_prob(grid).exp() * cell
        assert float(density.sum()) == pytest.approx(1, abs=2e-3), name
        samples = prior.sample(20000, generator=generator())
        assert torch.equal(samples, prior.sample(20000, generator=generator())) and samples.shape == (20000, 2)
        mean = (density[:, None] * grid).sum(0)
        error = samples.std(0) / math.sqrt(20000)
        assert bool(((samples.mean(0) - mean).abs() < 4.5 * error + 5e-3).all()), name
        second = (density[:, None] * grid**2).sum(0)
        error = (samples**2).std(0) / math.sqrt(20000)
        assert bool((((samples**2).mean(0) - second).abs() < 4.5 * error + 2e-2).all()), name


@torch.no_grad()
def test_temperature_of_the_mixtures_shrinks_each_component():
    mixture, posterior = GaussianMixture(2, 3), Posterior(nn.Linear(3, 4), 2)
    x = torch.randn(3, 3, generator=generator())
    for prior, centres in (
        (mixture, mixture.mean),
        (AggregatedPosterior(posterior, x), posterior.params(x)[0]),
    ):
        distance = {t: torch.cdist(prior.sample(300, generator(), t), centres).amin(1) for t in (0.0, 0.01)}
        assert float(distance[0.0].max()) < 1e-5 and 1e-4 < float(distance[0.01].max()) < 0.2


def test_vamp_prior_learns_its_inputs_and_the_encoder():
    x = torch.randint(0, 2, (20, 6), generator=generator())
    one = vae((6,), dim=2, hidden=(8,))
    one.prior = VampPrior(one.posterior, one.inputs(x[:4]))
    assert torch.equal(one.prior.x, one.inputs(x[:4]))
    (grad,) = torch.autograd.grad(one.loss(x), one.prior.x)
    assert float(grad.abs().max()) > 0
    names = [name for name, _ in one.named_parameters()]
    assert "prior.x" in names and len(names) == len(list(vae((6,), dim=2, hidden=(8,)).parameters())) + 1
    other = vae((6,), dim=2, hidden=(8,))
    other.prior = VampPrior(other.posterior, torch.zeros(4, 6))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.elbo(x, generator()), other.elbo(x, generator()))


LIKELIHOODS = {"bernoulli": Bernoulli(), "logistic": Logistic(256), "categorical": Categorical(256)}


@torch.no_grad()
@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_discrete_likelihoods_sum_to_one_and_are_finite_at_both_ends(name, scale):
    likelihood = LIKELIHOODS[name]
    levels = likelihood.levels
    params = scale * torch.randn(50, likelihood.n_params, 1, generator=generator())  # float32
    x = torch.arange(levels)[:, None].expand(levels, 50)
    log_p = torch.stack([likelihood.log_prob(row[:, None], params)[:, 0] for row in x])
    assert torch.isfinite(log_p).all() and torch.allclose(log_p.exp().sum(0), torch.ones(50), atol=1e-4)


def test_gradients_at_pixel_values_0_and_255_are_finite():
    for likelihood in (Logistic(), Categorical()):
        for mean in (-1.0, 1.0, 3.0):
            params = torch.zeros(2, likelihood.n_params, 1)
            params[:, 0], params[:, 1] = mean, -12.0
            params.requires_grad_()
            log_p = likelihood.log_prob(torch.tensor([[0], [255]]), params)
            (grad,) = torch.autograd.grad(log_p.sum(), params)
            assert torch.isfinite(log_p).all() and torch.isfinite(grad).all()


@torch.no_grad()
@pytest.mark.parametrize("likelihood", [Bernoulli(), Logistic(5), Categorical(5), Gaussian(0.5), Gaussian()])
def test_samples_of_likelihoods_follow_their_probabilities(likelihood):
    params = 0.5 * torch.randn(1, likelihood.n_params, 2, generator=generator()).double()
    many = params.expand(40000, *params.shape[1:])
    samples = likelihood.sample(many, generator())
    assert torch.equal(samples, likelihood.sample(many, generator()))
    if isinstance(likelihood, Gaussian):
        mean, log_scale = (part[0] for part in likelihood.split(params))
        assert torch.allclose(samples.mean(0), mean, atol=0.05)
        assert torch.allclose(samples.std(0), log_scale.exp(), rtol=0.03)
        wanted = torch.distributions.Normal(mean, log_scale.exp()).log_prob(samples[:5])
        assert torch.allclose(likelihood.log_prob(samples[:5], many[:5]), wanted)
        return
    for value in range(likelihood.levels):
        p = likelihood.log_prob(torch.full((1, 2), value), params).exp()[0]
        assert torch.allclose((samples == value).double().mean(0), p, atol=0.012)
    if not isinstance(likelihood, Logistic):
        assert torch.allclose(likelihood.mean(params)[0], samples.double().mean(0), atol=0.04)


@pytest.mark.parametrize("channels", [0, 4])
@pytest.mark.parametrize("likelihood", [Bernoulli(), Logistic(4), Categorical(4), Gaussian()])
def test_networks_of_both_kinds_with_every_likelihood(channels, likelihood):
    for dtype in (torch.float32, torch.float64):
        one = vae((2, 8, 12), 3, likelihood, hidden=(16,), channels=channels).to(dtype)
        levels = getattr(likelihood, "levels", None)
        x = torch.randn(5, 2, 8, 12) if levels is None else torch.randint(0, levels, (5, 2, 8, 12), dtype=torch.uint8)
        elbo = one.elbo(x, generator())
        assert elbo.shape == (5,) and elbo.dtype == dtype and torch.isfinite(elbo).all()
        assert torch.equal(elbo, one.elbo(x, generator())) and not torch.equal(elbo, one.elbo(x, generator(1)))
        assert torch.equal(elbo, one.elbo(x.to(dtype), generator()))  # whole numbers as floats are the same data
        one.loss(x).backward()
        assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in one.parameters())
        samples = one.sample(4, generator())
        assert samples.shape == (4, 2, 8, 12) and torch.equal(samples, one.sample(4, generator()))
        assert torch.isfinite(one.elbo(samples)).all()
        assert one.decode(torch.zeros(2, 3, dtype=dtype)).shape == (2, 2, 8, 12)


def binary_digits(split, n=None):
    return (data.load("digits8", split) >= 8).long()[:n]


@pytest.mark.parametrize(("posterior", "prior"), [("gaussian", "vamp"), ("planar", None), ("iaf", "flow")])
def test_a_short_training_beats_independent_pixels(posterior, prior):
    x, test = binary_digits("train"), binary_digits("test")
    torch.manual_seed(0)
    one = vae((1, 8, 8), 8, posterior=posterior, hidden=(64,), layers=2, warm_up=20)
    if prior == "vamp":
        one.prior = VampPrior(one.posterior, one.inputs(x[:20]))
    elif prior == "flow":
        one.prior = flows.realnvp(8, 2, (16,))
    training.fit(one, x, steps=200, batch_size=100, lr=3e-3, progress=False, device="cpu")
    result = metrics.evaluate(one, test, metrics.discrete("8x8 digits, pixels of at least 8"))
    assert result.kind == "lower bound" and int(one.step) == 200
    p = (x.double().mean(0) * len(x) + 0.5) / (len(x) + 1)
    independent = (test * p.log() + (1 - test) * (-p).log1p()).flatten(1).sum(1).mean()
    assert result.nats > float(independent) + 1
    better = metrics.evaluate(one, test, result.convention, score=lambda y: one.iwae(y, 20), kind="estimate")
    assert better.nats > result.nats


def test_bad_input():
    one, real = vae((1, 4, 4), 2, hidden=(8,)), vae((4,), 2, Gaussian(), hidden=(8,))
    x = torch.zeros(3, 1, 4, 4).long()
    with pytest.raises(ValueError, match=r"batch, 1, 4, 4.*got \(3, 16\)"):
        one.elbo(x.flatten(1))
    with pytest.raises(ValueError, match="got values from 2 to 2"):
        one.elbo(x + 2)
    for bad in (x + 0.5, x * float("nan"), x.tolist()):
        with pytest.raises(TypeError, match="integers"):
            one.elbo(bad, eps=torch.zeros(1, 3, 2))
    with pytest.raises(TypeError, match="floating-point"):
        real.elbo(torch.zeros(3, 4).long())
    with pytest.raises(ValueError, match="1 entries that are NaN or infinite"):
        real.elbo(torch.tensor([[0.0, 1.0, float("inf"), 0.0]]))
    with pytest.raises(ValueError, match=r"eps must have shape \(k, 3, 2\), got \(3, 2\)"):
        one.elbo(x, eps=torch.zeros(3, 2))
    for call in (one.elbo, one.iwae, one.log_prob_estimate):
        with pytest.raises(ValueError, match=r"k must be at least 1|k and chunk must be at least 1"):
            call(x, k=0)
    for call in (one.loss, one.surgery):
        with pytest.raises(ValueError, match="empty"):
            call(x[:0])
    with pytest.raises(ValueError, match="at least one point"):
        one.aggregated_posterior(x[:0])
    with pytest.raises(ValueError, match=r"z must have shape \(batch, 2\)"):
        one.decode(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"one of planar, .* got 'plannar'"):
        vae((4,), 2, posterior="plannar")
    planar = vae((4,), 2, posterior="planar", hidden=(8,))
    with pytest.raises(ValueError, match="analytic KL divergence needs"):
        planar.elbo(torch.zeros(3, 4).long(), analytic=True)
    with pytest.raises(ValueError, match="no closed form"):
        planar.posterior.kl_standard(planar.posterior.params(torch.zeros(3, 4)))
    for has_no_twin, came in ((planar, "one with context"), (one, "none")):
        with pytest.raises(ValueError, match=came):
            prior_twin(has_no_twin)
    with pytest.raises(ValueError, match="at least 0, got -1 and 0"):
        vae((4,), free_bits=-1)
    with pytest.raises(ValueError, match="divisible by 4"):
        vae((1, 7, 8), channels=4)
    with pytest.raises(ValueError, match="scale must be positive"):
        Gaussian(0.0)
    with pytest.raises(ValueError, match="k must be at least 1"):
        GaussianMixture(2, 0)
    with pytest.raises(ValueError, match="there is none"):
        Posterior(nn.Linear(2, 7), 2, context_dim=3)
    with pytest.raises(ValueError, match="output of the encoder"):
        VAE(Posterior(nn.Linear(4, 3), 2), nn.Linear(2, 4), Gaussian(), (4,)).elbo(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="output of the decoder"):
        VAE(Posterior(nn.Linear(4, 4), 2), nn.Linear(2, 4), Gaussian(), (4,)).elbo(torch.zeros(3, 4))
    with pytest.raises(TypeError, match="Bound does not define log_weights"):
        Bound().elbo(torch.zeros(3, 4))
    assert isinstance(one.prior, StandardNormal)
