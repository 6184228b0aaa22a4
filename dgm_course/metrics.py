"""Likelihoods with their units: nats, nats/dim and bits/dim, never without the convention they were taken in.

A density has units. Divide pixels by 256 and the log-density of an image of D pixels grows by D log 256 nats, though
the model is the same. So a `Convention` prepares the data for the model and brings the result back to the scale of the
data, and a `LogLikelihood` carries it along.

References:
    A note on the evaluation of generative models, Theis, van den Oord, Bethge, 2016, section 3.1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

KINDS = ("exact", "lower bound", "estimate")


@dataclass(frozen=True)
class Convention:
    """How data become the x of a model: x = (data + noise) / scale. Make one with the three functions below.

    Attributes:
        name: what was done, in words; two results compare only if all of this is the same.
        discrete: True if the data are integers, so that bits/dim make sense.
        noise: True if uniform noise from [0, 1) is added.
        scale: what data are divided by.
    """

    name: str
    discrete: bool = False
    noise: bool = False
    scale: float = 1.0

    def prepare(self, data, generator=None):
        """The x of the model for data of any shape. New noise at each call; with it integers become float32.

        Raises:
            TypeError: the convention is for integers, and the data are not.
        """
        if self.discrete and data.is_floating_point() and not bool((data == data.round()).all()):
            raise TypeError(f"{self.name!r} needs integers, got {data.dtype} with other values")
        if self.discrete and not self.noise and self.scale == 1 and not data.is_floating_point():
            return data.long()
        x = data if data.is_floating_point() else data.float()
        if self.noise:
            where = x.device if generator is None else generator.device
            u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=where).to(x.device)
            # In float32, 255 + u may round up to 256: stay inside the pixel's own interval.
            x = torch.minimum(x + u, torch.nextafter(x + 1, x))
        return x / self.scale if self.scale != 1 else x

    def log_volume(self, dims):
        """-dims log(scale): nats to add to a log-density of x to get that of the data (with noise) on their scale."""
        return -dims * math.log(self.scale)


def continuous(name="continuous data as given") -> Convention:
    """Data that are real numbers, given to the model as they are. Their density has nats, but no bits/dim."""
    return Convention(name)


def discrete(name="integers as given") -> Convention:
    """Integers for a model of probabilities, e.g. "binarized at 0.5": two ways to binarize do not compare."""
    return Convention(name, discrete=True)


def dequantized(levels=256, scale=None) -> Convention:
    """Integers 0 to `levels - 1` plus uniform noise, divided by `scale` (None: by `levels`, which gives [0, 1))."""
    scale = levels if scale is None else scale
    divided = f", divided by {scale:g}" if scale != 1 else ""
    return Convention(f"integers 0 to {levels - 1} + uniform noise{divided}", True, True, float(scale))


@dataclass(frozen=True)
class LogLikelihood:
    """Mean log-likelihood of a set of examples, in nats per example. Higher is better.

    Differences (`a - b`, in nats) and comparisons (`a < b`) are for the same convention and number of dimensions.

    Attributes:
        nats: mean over examples, on the scale that the model saw.
        standard_error: of that mean, from the spread between examples.
        n, dims: number of examples, and of dimensions of each.
        kind: "exact", "lower bound" or "estimate" of the log-likelihood of x.
        convention: how data became x.
    """

    nats: float
    standard_error: float
    n: int
    dims: int
    kind: str = "exact"
    convention: Convention = Convention("continuous data as given")

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")

    @property
    def nats_per_dim(self) -> float:
        """Nats divided by the number of dimensions."""
        return self.nats / self.dims

    @property
    def log_volume(self) -> float:
        """Nats to add to `nats` to get to the scale of the data."""
        return self.convention.log_volume(self.dims)

    @property
    def bits_per_dim(self) -> float:
        """Negative log-likelihood of the discrete data in bits for each dimension. Lower is better.

        With noise, or a lower bound, this is an upper bound (Jensen's inequality; Theis et al., 2016).

        Raises:
            ValueError: the data are not discrete.
        """
        if not self.convention.discrete:
            raise ValueError(f"bits/dim are for discrete data; the convention here is {self.convention.name!r}")
        return -(self.nats + self.log_volume) / (self.dims * math.log(2))

    def __sub__(self, other) -> float:
        self._same(other)
        return self.nats - other.nats

    def __lt__(self, other) -> bool:
        return self - other < 0

    def _same(self, other):
        if not isinstance(other, LogLikelihood):
            raise TypeError(f"a LogLikelihood compares with another one, got {type(other).__name__}")
        mine, theirs = ((one.dims, one.convention) for one in (self, other))
        if mine != theirs:
            raise ValueError(
                f"different conventions: {self.convention.name!r} with {self.dims} dimensions, "
                f"and {other.convention.name!r} with {other.dims}"
            )

    def __str__(self):
        text = f"{self.nats:.3f} ± {self.standard_error:.3f} nats ({self.nats_per_dim:.3f} nats/dim"
        if self.convention.discrete:
            bound = "<= " if self.convention.noise or self.kind == "lower bound" else ""
            text += f", {bound}{self.bits_per_dim:.3f} bits/dim"
        return f"{text}), {self.kind}, {self.n} examples of {self.dims} dimensions; {self.convention.name}"


def evaluate(
    model: torch.nn.Module,
    data: torch.Tensor,
    convention: Convention | None = None,
    context: torch.Tensor | None = None,
    score: Callable | None = None,
    kind: str | None = None,
    batch_size: int = 1000,
    seed: int = 0,
) -> LogLikelihood:
    """Mean log-likelihood of data under a model, batch by batch, in evaluation mode and without gradients.

    Batches are moved to the device of the model's parameters.

    Args:
        model: has `log_prob(x)` (taken as exact) or else `elbo(x)` (a lower bound), each `(batch,)` in nats.
        data: `(n, ...)` on their own scale, e.g. uint8 pixels.
        convention: how they become x; None for `continuous()`.
        context: conditioning variables `(n, ...)`.
        score: another function from x (and `context=`) to log-likelihoods `(batch,)` in nats; then give `kind`.
        kind: "exact", "lower bound" or "estimate"; None for what the method promises.
        batch_size: examples at a time.
        seed: of the convention's noise.

    Raises:
        ValueError: no data, a result of another shape, or one that is NaN or infinite.
        TypeError: the model has neither method; or a score without kind.
    """
    convention = convention or continuous()
    if score is None:
        names = [name for name in ("log_prob", "elbo") if hasattr(model, name)]
        if not names:
            raise TypeError(f"{type(model).__name__} has neither log_prob nor elbo; give score= and kind=")
        score, kind = getattr(model, names[0]), kind or {"log_prob": "exact", "elbo": "lower bound"}[names[0]]
    elif kind is None:
        raise TypeError(f"say what the score is: kind= one of {', '.join(KINDS)}")
    if len(data) == 0:
        raise ValueError("no data to evaluate")
    parameter = next(model.parameters(), torch.empty(0))
    generator, training, values = torch.Generator().manual_seed(seed), model.training, []
    model.eval()
    try:
        for i in range(0, len(data), batch_size):
            x = convention.prepare(data[i : i + batch_size], generator).to(parameter.device)
            more = {} if context is None else {"context": context[i : i + batch_size].to(parameter.device)}
            with torch.no_grad():
                values.append(score(x, **more).double().cpu())
            if values[-1].shape != x.shape[:1]:
                raise ValueError(f"log-likelihoods must have shape ({len(x)},), got {tuple(values[-1].shape)}")
    finally:
        model.train(training)
    nats = torch.cat(values)
    if not bool(nats.isfinite().all()):
        raise ValueError(f"{int((~nats.isfinite()).sum())} of {len(nats)} log-likelihoods are NaN or infinite")
    error = float(nats.std() / math.sqrt(len(nats))) if len(nats) > 1 else math.nan
    return LogLikelihood(float(nats.mean()), error, len(nats), data[0].numel(), kind, convention)
