"""Diffusion in discrete time: DDPM with its bound on the likelihood, and DDIM."""

import math
from itertools import pairwise

import torch
from torch import nn

from dgm_course.transforms.base import expect, sum_event

PREDICTIONS, VARIANCES = ("epsilon", "x0", "v"), ("posterior", "beta")


def linear_schedule(steps, first=1e-4, last=0.02):
    """Variances beta_1 ... beta_T of the noise, evenly spaced, `(steps,)` in float64.

    `first` and `last` are those for 1,000 steps; with fewer they grow in proportion (up to 0.999), so that about the
    same signal is left at the end.

    References:
        Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020, section 4.
    """
    _check_steps(steps)
    return (torch.linspace(first, last, steps, dtype=torch.float64) * 1000 / steps).clamp(max=0.999)


def cosine_schedule(steps, offset=0.008):
    """Variances beta_1 ... beta_T for which alpha-bar falls like a squared cosine, `(steps,)` in float64.

    References:
        Improved Denoising Diffusion Probabilistic Models, Nichol, Dhariwal, 2021, equation 17.
    """
    _check_steps(steps)
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def _check_steps(steps):
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")


class DDPM(nn.Module):
    """Denoising diffusion: noise is added in T steps, q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I), and a
    network learns to go back.

    Times t are whole numbers, `(batch,)`, 0 for data and T for (nearly) standard normal noise. The bound `elbo` is a
    log-density of x in nats. For pixels give `levels`: then data and samples are whole numbers 0 to `levels - 1`,
    scaled to [-1, 1] inside, and `elbo` bounds their log-probability, so that
    `metrics.evaluate(model, pixels, metrics.discrete())` has it in bits/dim.

    Args:
        network: `(x, t, context=None)` to the shape of x, with t in [0, 1] (it gets t / T); e.g. `TimeMLP`.
        shape: shape of one x.
        betas: `(T,)` in (0, 1), e.g. `linear_schedule(1000)`.
        predict: what the network gives: "epsilon" (the noise in x_t), "x0" (the data), or "v", which is
            sqrt(alpha-bar) epsilon - sqrt(1 - alpha-bar) x0.
        variance: of the way back, the two extremes of section 3.2: "beta" (right for x0 from N(0, I), and close where
            steps are small) or "posterior" (beta-tilde, right for one fixed x0). The very last step has beta_1 in both,
            since beta-tilde_1 = 0.
        levels: number of levels of pixels; None for continuous data.
        clip: keep predictions of x0 in [-1, 1].

    References:
        Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020.
        Progressive Distillation for Fast Sampling of Diffusion Models, Salimans, Ho, 2022, appendix D ("v").
    """

    def __init__(self, network, shape, betas, predict="epsilon", variance="beta", levels=None, clip=False):
        super().__init__()
        for name, value, choices in (("predict", predict, PREDICTIONS), ("variance", variance, VARIANCES)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if betas.dim() != 1 or len(betas) == 0 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"betas must be numbers between 0 and 1, at least one, got {betas}")
        self.network, self.shape, self.steps = network, tuple(shape), len(betas)
        self.predict, self.variance, self.levels, self.clip = predict, variance, levels, clip
        # All coefficients come from log alpha-bar, since 1 - alpha-bar near t = 0 would cancel in float32.
        log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self.register_buffer("log_alpha_bar", log_alpha_bar.to(torch.get_default_dtype()))

    def signal_and_noise(self, t):
        """sqrt(alpha-bar_t) and sqrt(1 - alpha-bar_t) for t `(batch,)`, each `(batch, 1, ...)`: q(x_t | x_0) is
        N(signal x_0, noise^2 I)."""
        log_alpha_bar = self._log_alpha_bar(t)
        return (log_alpha_bar / 2).exp(), (-log_alpha_bar.expm1()).sqrt()

    def diffuse(self, x0, t, noise):
        """A sample of q(x_t | x_0), made of standard normal `noise` like x0 (equation 4)."""
        signal, std = self.signal_and_noise(t)
        return signal * x0 + std * noise

    def posterior(self, x0, x_t, t, s=None):
        """Mean like x0 and variance `(batch, 1, ...)` of q(x_s | x_t, x_0) for s < t; s = t - 1 if not given.

        Equations 6 and 7.
        """
        s = t - 1 if s is None else s
        (signal_s, std_s), (_, std_t) = self.signal_and_noise(s), self.signal_and_noise(t)
        decay, beta = self._between(s, t)
        return (signal_s * beta * x0 + decay * std_s**2 * x_t) / std_t**2, beta * std_s**2 / std_t**2

    def denoise(self, x_t, t, context=None):
        """What the network makes of x_t: its x0 and its epsilon, with x_t = signal x0 + noise epsilon."""
        signal, std = self.signal_and_noise(t)
        out = self.network(x_t, t.to(x_t) / self.steps, context=context)
        x0 = {"epsilon": lambda: (x_t - std * out) / signal, "x0": lambda: out, "v": lambda: signal * x_t - std * out}
        x0 = x0[self.predict]()
        if self.clip:
            x0 = x0.clamp(-1, 1)
        elif self.predict == "epsilon":
            return x0, out
        return x0, (x_t - signal * x0) / std

    def reverse(self, x_t, t, s=None, context=None):
        """Mean and variance of the model's p(x_s | x_t), s = t - 1 if not given: the posterior at the network's x0."""
        s = t - 1 if s is None else s
        mean, variance = self.posterior(self.denoise(x_t, t, context)[0], x_t, t, s)
        _, beta = self._between(s, t)
        return mean, torch.where(self._like(s) == 0, beta, variance if self.variance == "posterior" else beta)

    def loss(self, x, context=None, t=None, noise=None, generator=None):
        """The simple loss, a scalar: squared error of the prediction, mean over the batch and over entries (eq. 14).

        Args:
            x: data `(batch, ...)`.
            t: times `(batch,)` from 1 to T; drawn uniformly if not given.
            noise: standard normal, like x; drawn if not given.
            generator: draws them.
        """
        x0 = self._prepare(x)
        if len(x0) == 0:
            raise ValueError("the batch is empty; its mean loss is not defined")
        if t is None:
            t = torch.randint(1, self.steps + 1, (len(x0),), generator=generator, device=x0.device)
        self._check_times(t, len(x0))
        noise = self._noise(len(x0), generator) if noise is None else noise
        signal, std = self.signal_and_noise(t)
        target = {"epsilon": noise, "x0": x0, "v": signal * noise - std * x0}[self.predict]
        out = self.network(self.diffuse(x0, t, noise), t.to(x0) / self.steps, context=context)
        return ((out - target) ** 2).mean()

    def elbo(self, x, context=None, generator=None):
        """Lower bound on log p(x) in nats, `(batch,)`, one sample of noise for each of the T terms (equation 5).

        It costs T passes of the network. The bound holds in expectation over the noise.
        """
        total = -self.prior_term(x)
        for t in range(1, self.steps + 1):
            times = torch.full((len(x),), t, device=total.device)
            total = total - self.term(x, times, self._noise(len(x), generator), context)
        return total

    def prior_term(self, x):
        """L_T = KL(q(x_T | x_0) || N(0, I)) in nats, `(batch,)`; nothing in it is learned."""
        x0 = self._prepare(x)
        log_alpha_bar = self.log_alpha_bar[-1]
        alpha_bar = log_alpha_bar.exp()
        return 0.5 * sum_event(alpha_bar * (x0**2 - 1) - torch.log1p(-alpha_bar))

    def term(self, x, t, noise, context=None):
        """L_{t-1} of equation 5 in nats, `(batch,)`, at x_t made of `noise`.

        For t > 1 it is KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), for t = 1 it is -log p(x_0 | x_1): a Gaussian
        density, or, with `levels`, its mass in the interval around the pixel's value (equation 13).
        """
        x0 = self._prepare(x)
        self._check_times(t, len(x0))
        x_t = self.diffuse(x0, t, noise)
        mean, variance = self.reverse(x_t, t, context=context)
        wanted, least = self.posterior(x0, x_t, t)
        ratio = torch.where(self._like(t) == 1, 1.0, least / variance)  # beta-tilde_1 = 0 has no logarithm
        kl = 0.5 * (ratio - 1 - ratio.log() + (wanted - mean) ** 2 / variance)
        decoder = interval_log_prob if self.levels else _gaussian_log_prob
        first = self._like(t) == 1
        # Rows with t > 1 get their own mean as data, so that nothing overflows where it is not used.
        log_prob = decoder(torch.where(first, x0, mean), mean, variance.sqrt(), self.levels)
        return sum_event(torch.where(first, -log_prob, kl))

    @torch.no_grad()
    def sample(self, n, steps=None, eta=None, context=None, generator=None):
        """Draws `(n, ...)` samples, from noise back to data.

        Args:
            n: samples.
            steps: how many of the T times to visit, evenly spread; None for all.
            eta: None for the model's own p(x_s | x_t), the last step without noise. A number for DDIM: 0 maps noise to
                data without further noise, 1 is ancestral sampling.
            context: `(n, ...)`.
            generator: draws all noise.

        References:
            Denoising Diffusion Implicit Models, Song, Meng, Ermon, 2021, section 4.2.
        """
        steps = self.steps if steps is None else steps
        if not 1 <= steps <= self.steps:
            raise ValueError(f"steps must lie between 1 and {self.steps}, got {steps}")
        if eta is not None and not 0 <= eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, got {eta}")
        x, times = self._noise(n, generator), torch.linspace(self.steps, 0, steps + 1).round().long().tolist()
        for t, s in pairwise(times):
            t, s = (torch.full((n,), k, device=x.device) for k in (t, s))
            if eta is None:
                mean, variance = self.reverse(x, t, s, context)
                x = mean + (variance.sqrt() * self._noise(n, generator) if bool(s[0] > 0) else 0)
            else:
                x = self.ddim_step(x, t, s, eta, self._noise(n, generator) if eta and bool(s[0] > 0) else 0, context)
        if self.levels is None:
            return x
        return ((x + 1) / 2 * (self.levels - 1)).round().clamp(0, self.levels - 1)

    def ddim_step(self, x_t, t, s, eta, noise, context=None):
        """x_s from x_t: the network's x0 and epsilon, mixed anew for time s, with a share of fresh noise.

        The share has eta^2 times the variance beta-tilde: with eta = 1 the step is that of DDPM with "posterior"
        variance (not with "beta").

        References:
            Denoising Diffusion Implicit Models, Song, Meng, Ermon, 2021, equations 12 and 16.
        """
        x0, epsilon = self.denoise(x_t, t, context)
        (signal_s, std_s), (_, std_t) = self.signal_and_noise(s), self.signal_and_noise(t)
        variance = eta**2 * self._between(s, t)[1] * std_s**2 / std_t**2
        return signal_s * x0 + (std_s**2 - variance).clamp(min=0).sqrt() * epsilon + variance.sqrt() * noise

    def _between(self, s, t):
        """Mean factor and variance of q(x_t | x_s), each `(batch, 1, ...)`."""
        log_ratio = self._log_alpha_bar(t) - self._log_alpha_bar(s)
        return (log_ratio / 2).exp(), -log_ratio.expm1()

    def _log_alpha_bar(self, t):
        return self._like(self.log_alpha_bar[t])

    def _like(self, t):
        """`(batch,)` to `(batch, 1, ...)`."""
        return t.view(-1, *[1] * len(self.shape))

    def _noise(self, n, generator):
        like = self.log_alpha_bar
        return torch.empty(n, *self.shape, dtype=like.dtype, device=like.device).normal_(generator=generator)

    def _check_times(self, t, batch):
        if tuple(t.shape) != (batch,) or (batch and not 1 <= int(t.min()) <= int(t.max()) <= self.steps):
            came = f"{tuple(t.shape)}" + (f" from {t.min()} to {t.max()}" if t.numel() else "")
            raise ValueError(f"t must have shape ({batch},) and lie between 1 and {self.steps}, got {came}")

    def _prepare(self, x):
        """Checks data, and scales pixels to [-1, 1]."""
        if self.levels and isinstance(x, torch.Tensor):
            if not bool(((x >= 0) & (x <= self.levels - 1) & (x == x.round())).all()):
                raise ValueError(f"pixels must be whole numbers from 0 to {self.levels - 1}")
            x = 2 * x.to(self.log_alpha_bar.dtype) / (self.levels - 1) - 1
        expect(x, self.shape)
        if not bool(x.isfinite().all()):
            raise ValueError(f"x has {int((~x.isfinite()).sum())} entries that are NaN or infinite")
        return x


def _gaussian_log_prob(x, mean, std, levels=None):
    return -0.5 * ((x - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)


def interval_log_prob(x, mean, std, levels):
    """Log-probability of one of `levels` evenly spread values x from -1 to 1 under a rounded Gaussian, any shapes.

    It is the Gaussian mass of the interval of width 2 / (levels - 1) around x; those of -1 and 1 reach to infinity.

    References:
        Denoising Diffusion Probabilistic Models, Ho, Jain, Abbeel, 2020, equation 13.
    """
    half, far = 1 / (levels - 1), 1e4
    low = torch.where(x < -1 + half, -far, (x - half - mean) / std)
    high = torch.where(x > 1 - half, far, (x + half - mean) / std)
    # By symmetry take the side where the two masses are small and their difference does not cancel.
    swap = low + high > 0
    low, high = torch.where(swap, -high, low), torch.where(swap, -low, high)
    log_high = torch.special.log_ndtr(high)
    gap = (torch.special.log_ndtr(low) - log_high).clamp(max=-torch.finfo(x.dtype).eps)
    return log_high + torch.log(-torch.expm1(gap))
