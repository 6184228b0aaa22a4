"""What FVBN, NADE and MADE share: entries of a vector in some order, each with its own one-dimensional distribution."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dgm_course.autoregressive.common import check_classes, draw, known_entries, steps
from dgm_course.transforms.base import expect


class Categorical:
    """Entries in 0 ... levels-1, with one logit where levels is 2 (that of class 1), else one for each class.

    The network sees class k as the number k / (levels - 1).
    """

    def __init__(self, levels=2):
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.levels = levels
        self.n_params = 1 if levels == 2 else levels

    def check(self, x, shape):
        return check_classes(x, shape, self.levels)

    def encode(self, v, like):
        return v.to(like) / (self.levels - 1)

    def logits(self, params):
        return torch.cat([torch.zeros_like(params), params], -1) if self.levels == 2 else params

    def log_prob(self, v, params):
        return self.logits(params).log_softmax(-1).gather(-1, v[..., None]).squeeze(-1)

    def draw(self, params, temperature, generator):
        return draw(self.logits(params), temperature, generator)


class Gaussian:
    """Real entries with a mean and a log standard deviation; temperature multiplies the standard deviation."""

    levels, n_params = None, 2

    def check(self, x, shape):
        expect(x, shape)
        return x

    def encode(self, v, like):
        return v.to(like)

    def log_prob(self, v, params):
        mu, log_sigma = params.unbind(-1)
        return normal_log_prob(v, mu, log_sigma)

    def draw(self, params, temperature, generator):
        if temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {temperature}")
        mu, log_sigma = params.unbind(-1)
        return mu + temperature * log_sigma.exp() * torch.empty_like(mu).normal_(generator=generator)


class GaussianMixture(Gaussian):
    """Real entries from a mixture of Gaussians; temperature acts on the logits of the components and on their width.

    Means start spread over -2 ... 2 (standardize the data), since equal components would stay equal.
    """

    def __init__(self, components=5):
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.n_params = 3 * components
        spread = 2 if components > 1 else 0
        self.start = torch.linspace(-spread, spread, components)

    def take_apart(self, params):
        logits, mu, log_sigma = params.chunk(3, -1)
        return logits, mu + self.start.to(mu), log_sigma

    def log_prob(self, v, params):
        logits, mu, log_sigma = self.take_apart(params)
        return (logits.log_softmax(-1) + normal_log_prob(v[..., None], mu, log_sigma)).logsumexp(-1)

    def draw(self, params, temperature, generator):
        logits, mu, log_sigma = self.take_apart(params)
        chosen = draw(logits, temperature, generator)[..., None]
        mean_and_width = [p.gather(-1, chosen) for p in (mu, log_sigma)]
        return super().draw(torch.cat(mean_and_width, -1), temperature, generator)


def normal_log_prob(v, mu, log_sigma):
    """Log-density of N(mu, sigma^2) in nats."""
    return -0.5 * ((v - mu) * (-log_sigma).exp()) ** 2 - log_sigma - 0.5 * math.log(2 * math.pi)


class VectorModel(nn.Module):
    """p(x) = prod_t p(x_i | entries before i), i the t-th entry of `order`; any shape is read as a vector of `dim`.

    A model has a buffer or property `order` and two methods. `params(v, context)` takes all entries `(batch, dim)` as
    the network sees them and gives the parameters of all conditionals, `(batch, dim, n_params)`.
    `sequential(choose, batch, context)` goes through the entries in order, calls `choose(i, params of entry i)`, which
    returns entry i for the network, and never computes anything twice.

    Args:
        shape: shape of one example, e.g. `(1, 28, 28)`, or a number of entries.
        output: `Categorical`, `Gaussian` or `GaussianMixture`; by default binary entries.
    """

    def __init__(self, shape, output=None):
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.dim = math.prod(self.shape)
        self.output = output or Categorical(2)

    def log_prob(self, x, context=None):
        """Log-probability (real entries: log-density) in nats, `(batch, *shape)` to `(batch,)`.

        Raises:
            TypeError: integers where reals are wanted, or the other way round.
            ValueError: another shape, values outside the alphabet, or a context of another shape.
        """
        v = self.output.check(x, self.shape).flatten(1)
        return self.output.log_prob(v, self.params(self.encode(v), context)).sum(1)

    def loss(self, x, context=None):
        """Mean negative log-likelihood in nats."""
        return -self.log_prob(x, context).mean()

    def encode(self, v):
        return self.output.encode(v, next(self.parameters()))

    @torch.no_grad()
    def sample(
        self, n, known=None, mask=None, temperature=1.0, generator=None, progress=False, cached=True, context=None
    ):
        """Samples `(n, *shape)`, entry by entry in the order of the model.

        Args:
            n: number of samples, drawn side by side.
            known, mask: completion: entries `(n, *shape)` or `(*shape)` that are kept where `mask` is True. Only
                those that come before an entry in `order` have a say in it.
            temperature: below 1 favours the likely; 0 takes the likeliest class, or the mean.
            generator: of the noise.
            progress: show a bar.
            cached: False runs the whole model for each entry; the noise is the same.
            context: `(n, context_dim)`, if the model takes one.
        """
        like = next(self.parameters())
        known, mask = known_entries(n, self.shape, self.output.levels, known, mask, like.device)
        known, mask = known.flatten(1), mask.flatten(1)
        if self.output.levels is None:
            known = known.to(like)
        x = known.clone()
        bar = iter(steps(self.dim, progress))

        def choose(i, params):
            next(bar)
            drawn = self.output.draw(params, temperature, generator)
            x[:, i] = torch.where(mask[:, i], known[:, i], drawn)
            return self.encode(x[:, i])

        if cached:
            self.sequential(choose, n, context)
        else:
            for i in self.order.tolist():
                choose(i, self.params(self.encode(x), context)[:, i])
        next(bar, None)  # closes the bar
        return x.unflatten(1, self.shape)


def permutation(order, dim):
    """`order` as a tensor; natural order for None. ValueError if it is no permutation of 0 ... dim-1."""
    order = torch.as_tensor(range(dim) if order is None else order)
    if sorted(order.flatten().tolist()) != list(range(dim)) or order.dim() != 1:
        raise ValueError(f"order must be a permutation of 0 ... {dim - 1}, got {order.tolist()}")
    return order.cpu().long()


class Shift(nn.Module):
    """What a context adds to `width` units: a linear map of it, and 0 without one."""

    def __init__(self, context_dim, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, context_dim)) if context_dim else None

    def forward(self, context):
        return 0 if context is None else F.linear(context, self.weight)
