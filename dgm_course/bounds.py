"""Lower bounds on log p(x) by importance sampling, shared by VAEs and dequantization.

With z from q(z | x) and the weight w = p(x, z) / q(z | x), the mean of w is p(x). So the mean of log w is a lower bound
(the ELBO), log of the mean of k weights is a tighter one (IWAE), and for many weights it estimates log p(x) from below.
Each is a bound in expectation: a single value may lie above log p(x).

References:
    Importance Weighted Autoencoders, Burda, Grosse, Salakhutdinov, 2016, equations 8 to 10.
"""

import math

import torch
from torch import nn

from dgm_course.autoregressive.common import check_classes


class Bound(nn.Module):
    """A model that gives log-weights `log p(x, z_i) - log q(z_i | x)`, `(k, batch)` in nats, for k samples of q.

    All methods hand on what else `log_weights` of the model takes, e.g. `context=`.
    """

    def log_weights(self, x, k, generator=None):
        raise TypeError(f"{type(self).__name__} does not define log_weights")

    def elbo(self, x, generator=None, **more):
        """One sample of the evidence lower bound for each example, `(batch,)` in nats."""
        return self.log_weights(x, 1, generator, **more)[0]

    def iwae(self, x, k, generator=None, **more):
        """Importance-weighted bound with k samples, `(batch,)` in nats; its expectation grows with k."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        return self.log_weights(x, k, generator, **more).logsumexp(0) - math.log(k)

    @torch.no_grad()
    def log_prob_estimate(self, x, k=1000, generator=None, chunk=50, **more):
        """Estimate of log p(x) from k samples, `(batch,)` in nats: `iwae` in portions of `chunk`, without gradients.

        Its expectation is a lower bound; how close it comes depends on how far q is from the true posterior.
        """
        if k < 1 or chunk < 1:
            raise ValueError(f"k and chunk must be at least 1, got k = {k} and chunk = {chunk}")
        sizes = [chunk] * (k // chunk) + [k % chunk] * (k % chunk > 0)
        parts = [self.log_weights(x, size, generator, **more).logsumexp(0) for size in sizes]
        return torch.stack(parts).logsumexp(0) - math.log(k)

    def loss(self, x, generator=None, **more):
        """Minus the mean ELBO, a scalar in nats."""
        not_empty(x)
        return -self.elbo(x, generator, **more).mean()


def not_empty(x):
    if len(x) == 0:
        raise ValueError("the batch is empty; its mean loss is not defined")


def integers(x, shape, levels):
    """Checks integers 0 ... levels-1 of shape `(batch, *shape)`, also as floats with whole values; returns int64."""
    if isinstance(x, torch.Tensor) and x.is_floating_point() and bool((x == x.round()).all()):
        x = x.long()
    return check_classes(x, shape, levels)


def normal(shape, like, generator=None):
    """Standard normal noise in the dtype and on the device of `like`, whatever the device of the generator."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
