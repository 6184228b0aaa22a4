"""What models of sequences share: density in one pass, samples entry by entry, cached or not.

log p(x) = sum_t log p(x_t | x_1, ..., x_{t-1}, context, local_t)
"""

import torch
from torch import nn

from dgm_course.autoregressive.common import check_classes, draw, steps
from dgm_course.nn import check_context


class Softmax:
    """Distribution over classes 0 ... levels-1 given by logits `(..., levels)`."""

    def __init__(self, logits):
        self.logits = logits

    def log_prob(self, x):
        return self.logits.log_softmax(-1).gather(-1, x[..., None])[..., 0]

    def sample(self, generator=None, temperature=1.0):
        return draw(self.logits, temperature, generator)


class SequenceModel(nn.Module):
    """Base of autoregressive models of sequences `(batch, length)`.

    A model defines `forward(previous, condition=None, cache=None)`: from the entries x_{t-1}, with a start symbol
    before the first, it makes the parameters of x_t, `(batch, length, n_params)`. Given a cache, it takes the next
    entry alone, `(batch, 1)`, and brings the cache up to date. `new_cache(batch, length)` makes an empty one.

    Sequences and prefixes may be shorter than the receptive field `reach`: before the start symbol convolutions see
    zeros, in training as in sampling. So the first entries of a sequence have the probability that they have alone, and
    no length but 0 is too short.

    Args:
        levels: size of the alphabet. The start symbol is the integer `levels`.
        context_dim: entries of a context for the whole sequence (a speaker, a class); 0 for none.
        local_dim: entries of a context of its own for each time (linguistic features, a source text); 0 for none.
    """

    reach = None  # how many of the last inputs an output sees; None for all

    def __init__(self, levels, context_dim=0, local_dim=0):
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.levels, self.context_dim, self.local_dim = levels, context_dim, local_dim

    def check(self, x, name="x"):
        return check_classes(x, (None,), self.levels, name)

    def start(self, batch):
        """The symbol before the first entry, `(batch, 1)`."""
        return torch.full((batch, 1), self.levels, device=next(self.parameters()).device)

    def distribution(self, params):
        """From parameters `(..., n_params)` to something with `log_prob(x)` and `sample(generator, temperature)`."""
        return Softmax(params)

    def condition(self, batch, length, context=None, local=None):
        """Both contexts side by side, `(batch, context_dim + local_dim, length)`, or None where there is none."""
        check_context(context, self.context_dim, batch)
        if (local is not None) != bool(self.local_dim):
            wanted = f"local of shape (batch, {self.local_dim}, length)" if self.local_dim else "no local context"
            raise ValueError(f"this model takes {wanted}, got {None if local is None else tuple(local.shape)}")
        if local is not None and tuple(local.shape) != (batch, self.local_dim, length):
            raise ValueError(f"local must have shape {(batch, self.local_dim, length)}, got {tuple(local.shape)}")
        parts = [] if context is None else [context[:, :, None].expand(-1, -1, length)]
        parts += [] if local is None else [local]
        return torch.cat(parts, dim=1) if parts else None

    def log_prob(self, x, context=None, local=None):
        """Exact log-probability (of real values: log-density) in nats, `(batch, length)` to `(batch,)`.

        Args:
            x: integers in 0 ... levels-1, or real values where the model is one of these.
            context: `(batch, context_dim)`.
            local: `(batch, local_dim, length)`; column t bears on entry t.

        Raises:
            TypeError, ValueError: wrong dtype, shapes or values; sequences without an entry.
        """
        x = self.check(x)
        if x.shape[1] == 0:
            raise ValueError(f"sequences must have at least one entry, got shape {tuple(x.shape)}")
        previous = torch.cat([self.start(len(x)), x], dim=1)[:, :-1]
        params = self(previous, self.condition(*x.shape, context, local))
        return self.distribution(params).log_prob(x).sum(1)

    def loss(self, x, context=None, local=None):
        """Mean negative log-likelihood of a sequence in nats, a scalar."""
        if len(x) == 0:
            raise ValueError("the batch is empty; its mean loss is not defined")
        return -self.log_prob(x, context, local).mean()

    @torch.no_grad()
    def sample(
        self,
        n,
        length,
        prefix=None,
        context=None,
        temperature=1.0,
        generator=None,
        progress=False,
        cached=True,
        local=None,
    ):
        """Draws sequences `(n, length)`, entry by entry.

        Args:
            n: samples, all drawn at once.
            length: entries, those of the prefix included.
            prefix: first entries, `(n, p)`, or `(p,)` for all alike; they are kept.
            context, local: as in `log_prob`, with n rows.
            temperature: flattens (above 1) or sharpens (below 1) each draw.
            generator: for the draws.
            progress: shows a bar.
            cached: keeps what was computed for earlier entries; False runs the model on all that an entry depends on,
                each time anew. Both make the same draws.
        """
        if n < 1 or length < 1:
            raise ValueError(f"n and length must be at least 1, got {n} and {length}")
        sequence, begin = self.start(n).repeat(1, length + 1), 0
        if prefix is not None:
            prefix = self.check(prefix.expand(n, -1) if prefix.dim() == 1 else prefix, "prefix")
            begin = prefix.shape[1]
            if len(prefix) != n or not 1 <= begin <= length:
                raise ValueError(f"prefix must have shape ({n}, 1 to {length}), got {tuple(prefix.shape)}")
            sequence[:, 1 : begin + 1] = prefix
        condition, cache = self.condition(n, length, context, local), self.new_cache(n, length) if cached else None
        for t in steps(length, progress):
            if not cached and t < begin:
                continue
            first = t if cached else 0 if self.reach is None else max(0, t + 1 - self.reach)
            now = slice(first, t + 1)
            params = self(sequence[:, now], None if condition is None else condition[:, :, now], cache)[:, -1]
            if t >= begin:
                sequence[:, t + 1] = self.distribution(params).sample(generator, temperature)
        return sequence[:, 1:]
