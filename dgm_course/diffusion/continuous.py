"""Diffusion in continuous time: score matching, the probability-flow ODE with its likelihood, and flow matching."""

import math

import torch
from torch import nn
from torchdiffeq import odeint

from dgm_course.distributions import StandardNormal
from dgm_course.transforms.base import expect, sum_event


def denoising_score_matching(score, x, std, noise, signal=1.0):
    """Loss of a score at one or several noise levels, a scalar in nats: half of E |std score(x~) + noise|^2.

    x~ = signal x + std noise. The minimum over all functions is the score grad log q(x~) of the noisy data, though only
    that of one x~ given x is used. The weight std^2 makes levels comparable.

    Args:
        score: `(batch, ...)` to the same shape.
        x: data `(batch, ...)`.
        std, signal: numbers, or of shape `(batch, 1, ...)`.
        noise: standard normal, like x.

    References:
        A Connection Between Score Matching and Denoising Autoencoders, Vincent, 2011, equation 11.
        Generative Modeling by Estimating Gradients of the Data Distribution, Song, Ermon, 2019, equations 5 and 6.
    """
    if noise.shape != x.shape:
        raise ValueError(f"noise must have the shape of x, {tuple(x.shape)}, got {tuple(noise.shape)}")
    return 0.5 * sum_event((std * score(signal * x + std * noise) + noise) ** 2).mean()


def gaussian_mixture_score(x, means, std, weights=None):
    """Score grad log p(x) of a mixture of k Gaussians N(means, std^2 I), `(batch, dim)` to the same shape.

    Args:
        x: `(batch, dim)`.
        means: `(k, dim)`.
        std: a number, or of shape `(batch, 1)`.
        weights: `(k,)`, adding up to 1; equal if not given.
    """
    expect(x, (means.shape[1],))
    log_weights = 0.0 if weights is None else weights.log()
    share = torch.softmax(log_weights - 0.5 * (torch.cdist(x, means) / std) ** 2, dim=1)
    return (share @ means - x) / std**2


class ODEModel(nn.Module):
    """Density of the solutions of dx/dt = velocity(x, t) that start from N(0, I); the face of the models below.

    Attributes:
        noise_time, data_time: where the solution starts and where the data are.
    """

    def __init__(self, network, shape, noise_time, data_time):
        super().__init__()
        self.network, self.base = network, StandardNormal(shape)
        self.noise_time, self.data_time = noise_time, data_time

    def velocity(self, x, t, context=None):
        """dx/dt at times t `(batch,)`, like x."""
        raise TypeError(f"{type(self).__name__} does not define velocity")

    def log_prob(self, x, context=None, trace="exact", steps=None, tolerance=1e-5, generator=None):
        """Log-density in nats, `(batch, ...)` to `(batch,)`, from the integral of the trace of the velocity's Jacobian.

        No gradient passes to the parameters.

        Args:
            trace: "exact" costs one backward pass for each entry of x, and the result is right up to the solver's
                error. "hutchinson" costs one in all, and the result is an unbiased estimate (one random probe e
                of +1 and -1 for each x, E e'Je = tr J).
            steps: fixed steps of Runge-Kutta 4; None for steps chosen by the solver (Dormand-Prince 5).
            tolerance: absolute and relative, of the latter.
            generator: draws the probe.

        References:
            Neural Ordinary Differential Equations, Chen et al., 2018, equation 8.
            FFJORD, Grathwohl et al., 2019, equation 8.
        """
        if trace not in ("exact", "hutchinson"):
            raise ValueError(f'trace must be "exact" or "hutchinson", got {trace!r}')
        expect(x, self.base.shape)
        if not bool(x.isfinite().all()):
            raise ValueError(f"x has {int((~x.isfinite()).sum())} entries that are NaN or infinite")
        probe = None
        if trace == "hutchinson":
            probe = torch.empty_like(x).bernoulli_(0.5, generator=generator) * 2 - 1

        def change(t, state):
            with torch.enable_grad():
                x = state[0].detach().requires_grad_()
                v = self.velocity(x, t.expand(len(x)), context)
                return v.detach(), _trace(v, x, probe)

        with torch.no_grad():
            state = _solve(change, (x, x.new_zeros(len(x))), self.data_time, self.noise_time, steps, tolerance)
        return self.base.log_prob(state[0]) + state[1]

    @torch.no_grad()
    def sample(self, n, steps=None, context=None, generator=None, tolerance=1e-5):
        """Draws `(n, ...)` samples: noise from N(0, I), moved along the ODE; `steps`, `tolerance` as in `log_prob`."""
        return self.decode(self.base.sample(n, generator), context, steps, tolerance)

    def decode(self, z, context=None, steps=None, tolerance=1e-5):
        """Noise z to x, `(batch, ...)`."""
        expect(z, self.base.shape, "z")

        def change(t, x):
            return self.velocity(x, t.expand(len(x)), context)

        return _solve(change, z, self.noise_time, self.data_time, steps, tolerance)

    def _draw(self, x, t, noise, generator):
        """Checks a batch of data; times `(batch,)` between the ends and standard normal noise, where not given."""
        expect(x, self.base.shape)
        if len(x) == 0:
            raise ValueError("the batch is empty; its mean loss is not defined")
        low, high = sorted((self.noise_time, self.data_time))
        if t is None:
            t = low + (high - low) * torch.rand(len(x), generator=generator, dtype=x.dtype, device=x.device)
        if tuple(t.shape) != (len(x),) or not low <= float(t.min()) <= float(t.max()) <= high:
            raise ValueError(f"t must have shape ({len(x)},) and lie between {low} and {high}, got {tuple(t.shape)}")
        noise = torch.empty_like(x).normal_(generator=generator) if noise is None else noise
        if noise.shape != x.shape:
            raise ValueError(f"noise must have the shape of x, {tuple(x.shape)}, got {tuple(noise.shape)}")
        return t, noise


class ScoreModel(ODEModel):
    """Score-based model: noise is added by dx = -beta(t) x / 2 dt + sqrt(beta(t)) dw, t from 0 to 1; the network learns
    the scores, and the probability-flow ODE with the same marginals gives samples and likelihoods.

    beta(t) grows linearly. x at time t is N(signal x_0, noise^2 I) given the data, the limit of `DDPM` with the linear
    schedule. The network predicts the noise: score = -network / noise.

    Args:
        network: `(x, t, context=None)` to the shape of x, e.g. `TimeMLP`.
        shape: shape of one x.
        beta_min, beta_max: beta(0) and beta(1).
        t_min: time that counts as the data's, since the score at 0 may be infinite. `log_prob` and `sample` are those
            of data with the noise of that time; its variance at 1e-3 is 1.1e-4.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2021, equations 11, 13
        and 39.
    """

    def __init__(self, network, shape, beta_min=0.1, beta_max=20.0, t_min=1e-3):
        super().__init__(network, shape, noise_time=1.0, data_time=t_min)
        if not 0 < t_min < 1 or not 0 < beta_min <= beta_max:
            raise ValueError(f"0 < t_min < 1 and 0 < beta_min <= beta_max needed, got {t_min}, {beta_min}, {beta_max}")
        self.beta_min, self.beta_max = beta_min, beta_max

    def signal_and_noise(self, t):
        """Mean factor and standard deviation of x at times t `(batch,)` given the data, each `(batch, 1, ...)`."""
        log_signal = -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min
        log_signal = log_signal.view(-1, *[1] * len(self.base.shape))
        return log_signal.exp(), (-(2 * log_signal).expm1()).sqrt()

    def score(self, x, t, context=None):
        """Estimate of grad log p_t(x) at times t `(batch,)`, like x."""
        return -self.network(x, t, context=context) / self.signal_and_noise(t)[1]

    def velocity(self, x, t, context=None):
        """Probability-flow ODE: -beta(t) / 2 (x + score)."""
        beta = (self.beta_min + t * (self.beta_max - self.beta_min)).view(-1, *[1] * len(self.base.shape))
        return -0.5 * beta * (x + self.score(x, t, context))

    def loss(self, x, context=None, t=None, noise=None, generator=None):
        """`denoising_score_matching` at random times, a scalar.

        Args:
            x: data `(batch, ...)`.
            t: times `(batch,)` from t_min to 1; drawn uniformly if not given.
            noise: standard normal, like x; drawn if not given.
            generator: draws them.
        """
        t, noise = self._draw(x, t, noise, generator)
        signal, std = self.signal_and_noise(t)
        return denoising_score_matching(lambda x_t: self.score(x_t, t, context), x, std, noise, signal)


class FlowMatching(ODEModel):
    """Flow matching with straight conditional paths, x_t = (1 - (1 - sigma_min) t) z + t x from noise z to data x.

    Args:
        network: velocity, `(x, t, context=None)` to the shape of x, e.g. `TimeMLP`.
        shape: shape of one x.
        sigma_min: noise that stays on the data.

    References:
        Flow Matching for Generative Modeling, Lipman et al., 2023, equations 20 to 23.
    """

    def __init__(self, network, shape, sigma_min=1e-4):
        super().__init__(network, shape, noise_time=0.0, data_time=1.0)
        if not 0 <= sigma_min < 1:
            raise ValueError(f"sigma_min must lie in [0, 1), got {sigma_min}")
        self.sigma_min = sigma_min

    def path(self, x, t, noise):
        """The point x_t of the path and its velocity x - (1 - sigma_min) z, for times t `(batch,)`; both like x."""
        t = t.view(-1, *[1] * len(self.base.shape))
        return (1 - (1 - self.sigma_min) * t) * noise + t * x, x - (1 - self.sigma_min) * noise

    def velocity(self, x, t, context=None):
        """The network."""
        return self.network(x, t, context=context)

    def loss(self, x, context=None, t=None, noise=None, generator=None):
        """Squared error of the velocity, mean over batch and entries (equation 23), a scalar; t in [0, 1].

        Arguments as in `ScoreModel.loss`.
        """
        t, noise = self._draw(x, t, noise, generator)
        x_t, target = self.path(x, t, noise)
        return ((self.velocity(x_t, t, context) - target) ** 2).mean()


def _solve(change, state, start, end, steps, tolerance):
    """The solution at `end` of d state / dt = change(t, state); `state` is a tensor or a tuple of tensors."""
    first = state[0] if isinstance(state, tuple) else state
    times = torch.tensor([start, end], dtype=first.dtype, device=first.device)
    if steps is None:
        path = odeint(change, state, times, rtol=tolerance, atol=tolerance)
    elif steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    else:
        # A step a hair longer than the exact fraction, so that rounding does not add one more.
        step = abs(end - start) / steps * (1 + 1e-6)
        path = odeint(change, state, times, method="rk4", options={"step_size": step})
    return tuple(p[-1] for p in path) if isinstance(state, tuple) else path[-1]


def _trace(v, x, probe):
    """Trace of dv/dx for each row, `(batch,)`; with a probe e its estimate e' dv/dx e."""
    if probe is not None:
        return sum_event(torch.autograd.grad(v, x, probe)[0] * probe)
    total, columns = x.new_zeros(len(x)), v.flatten(1).sum(0)
    for i in range(math.prod(x.shape[1:])):
        total = total + torch.autograd.grad(columns[i], x, retain_graph=True)[0].flatten(1)[:, i]
    return total
