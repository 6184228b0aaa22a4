"""Training: one `fit` for every model with a loss, and the budget that says how long and where to train."""

import dataclasses
import itertools
import math
import os
import pickle
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm.auto import tqdm

BUDGETS = ("smoke", "cpu", "gpu")


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much to compute: `name` is "smoke" (a quick check), "cpu" or "gpu"; `device` is where."""

    name: str
    device: torch.device

    def pick(self, *, smoke, cpu, gpu=None):
        """The value for this budget, e.g. `steps=budget().pick(smoke=50, cpu=2000, gpu=20_000)`; gpu=None: as cpu."""
        return {"smoke": smoke, "cpu": cpu, "gpu": cpu if gpu is None else gpu}[self.name]


def budget() -> Budget:
    """The budget that the environment variable `DGM_BUDGET` names; unset: "gpu" where CUDA is there, else "cpu".

    The device is CUDA for "gpu" and the CPU for the others.

    Raises:
        ValueError: `DGM_BUDGET` is none of smoke, cpu, gpu; or it is gpu and torch sees no CUDA device.
    """
    name = os.environ.get("DGM_BUDGET") or ("gpu" if torch.cuda.is_available() else "cpu")
    if name not in BUDGETS:
        raise ValueError(f"DGM_BUDGET must be one of {', '.join(BUDGETS)}, got {name!r}")
    if name == "gpu" and not torch.cuda.is_available():
        raise ValueError("DGM_BUDGET is gpu, but torch sees no CUDA device; set it to cpu or smoke")
    return Budget(name, torch.device("cuda" if name == "gpu" else "cpu"))


@dataclasses.dataclass
class History:
    """What happened in a run of `fit`.

    Attributes:
        train: training loss of each step, the first at index 0.
        valid_steps, valid: steps after which the validation loss was taken, and its values.
        best_step: step whose parameters the model has now (None without validation: those of the last step).
        seconds: time spent, that of interrupted runs included.
        budget, device, seed: how it was run.
        stopped_early: True if `patience` ran out.
    """

    train: list[float] = dataclasses.field(default_factory=list)
    valid_steps: list[int] = dataclasses.field(default_factory=list)
    valid: list[float] = dataclasses.field(default_factory=list)
    best_step: int | None = None
    seconds: float = 0.0
    budget: str = ""
    device: str = ""
    seed: int = 0
    stopped_early: bool = False

    @property
    def steps(self) -> int:
        """Number of steps made."""
        return len(self.train)

    @property
    def best_valid(self) -> float:
        """Lowest validation loss, that of `best_step`; inf without one."""
        return math.inf if self.best_step is None else self.valid[self.valid_steps.index(self.best_step)]

    def plot(self, ax=None):
        """Draws the learning curve and returns the axes."""
        from dgm_course import plotting  # only here: drawing takes long to import

        return plotting.learning_curve(self, ax)

    def __repr__(self):
        text = f"{self.steps} steps in {self.seconds:.1f} s on {self.device} (budget {self.budget}, seed {self.seed})"
        if self.train:
            text += f", training loss {self.train[-1]:.4g}"
        if self.best_step:
            text += f", best validation loss {self.best_valid:.4g} at step {self.best_step}"
        return text + (", stopped early" if self.stopped_early else "")


def fit(
    model: torch.nn.Module,
    x: torch.Tensor,
    *,
    steps: int,
    valid=None,
    context: torch.Tensor | None = None,
    loss: Callable | None = None,
    batch_size: int = 256,
    lr: float = 1e-3,
    schedule: str | Callable | None = None,
    weight_decay: float = 0.0,
    clip: float | None = 10.0,
    ema: float | None = None,
    eval_every: int | None = None,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    device=None,
) -> History:
    """Minimizes `model.loss(x)` over minibatches with Adam, and keeps the parameters that do best on `valid`.

    The model is moved to `device` for the training and back to where it was at the end; the progress bar and the
    history say where. Batches are moved one at a time. Afterwards the model is in evaluation mode. Everything random in
    the run follows from `seed`; torch's global random state is left as it was found.

    Args:
        model: has `loss(x)`, or `loss(x, context=context)` if a context is given; a scalar.
        x: data `(n, ...)`. Every epoch goes through them in a new order; an incomplete last batch is left out.
        steps: number of steps (gradient updates).
        valid: data for validation, or a pair `(data, context)`. The noise in its loss is the same each time.
        context: conditioning variables `(n, ...)`, one row for each row of x.
        loss: another loss, called as `loss(model, x)` or `loss(model, x, context)`. Here fresh noise may be added.
        batch_size: rows in a batch (at most n).
        lr: learning rate.
        schedule: None (constant); "cosine" (falls to zero); or a function from progress in [0, 1) to a factor.
        weight_decay: decoupled weight decay (AdamW).
        clip: upper limit of the norm of the gradient, None for none.
        ema: decay of an exponential moving average of the parameters, e.g. 0.999. The average is what is validated, and
            what the model has at the end. It forgets faster in the first steps: decay (1 + step) / (10 + step).
        eval_every: steps between validations (and checkpoints); None for a twentieth of `steps`.
        patience: stop after so many validations in a row without a better one.
        seed: an integer.
        checkpoint: file that keeps the state of the run. If it exists, the run goes on from there, and on a CPU ends
            with the same bits as a run that was never interrupted. A finished run is not run again.
        progress: show a bar, with the loss and the time left, on standard output.
        device: None for the device of `budget()`.

    Raises:
        FloatingPointError: the training loss or its gradient is NaN or infinite; the message has the step. The model
            keeps the parameters from before that step.
        ValueError: no data, rows that do not match, or a checkpoint of a run with other settings or data.

    References:
        Adam: A Method for Stochastic Optimization, Kingma, Ba, 2015.
    """
    chosen = budget()
    device = torch.device(device or chosen.device)
    data = _rows("x", x, context)
    held_out = None if valid is None else _rows("valid", *(valid if isinstance(valid, tuple | list) else (valid,)))
    params = [p for p in model.parameters() if p.requires_grad]
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not params:
        raise ValueError(f"{type(model).__name__} has no parameters to train")
    if patience and held_out is None:
        raise ValueError("patience counts validations, so it needs valid=")
    factor = {None: lambda done: 1.0, "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2}.get(schedule, schedule)
    if not callable(factor):
        raise ValueError(f"schedule must be None, 'cosine' or a function, got {schedule!r}")
    loss = loss or _model_loss
    batch_size, eval_every = min(batch_size, len(data[0])), eval_every or max(1, steps // 20)
    settings = {
        "steps": steps, "batch_size": batch_size, "lr": lr, "schedule": getattr(schedule, "__name__", schedule),
        "weight_decay": weight_decay, "clip": clip, "ema": ema, "eval_every": eval_every, "patience": patience,
        "seed": seed, "data": _fingerprint(data), "valid": _fingerprint(held_out or ()),
    }  # fmt: skip
    history = History(budget=chosen.name, device=str(device), seed=seed)
    average = best = None

    with _on(model, device), _seeded(seed, device):
        optimizer = torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=True)
        if ema:
            average = _copy(model)
        if checkpoint and Path(checkpoint).exists():
            saved = _load(checkpoint, settings, device)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            average, best, history = saved["average"], saved["best"], History(**saved["history"])
            _set_random_state(saved["random"], device)
        began = time.perf_counter() - history.seconds
        indices = _batches(len(data[0]), batch_size, seed, history.steps)
        with tqdm(
            total=steps, initial=history.steps, desc=f"{type(model).__name__} on {device}", unit="step",
            file=sys.stdout, disable=not progress, dynamic_ncols=True,
        ) as bar:  # fmt: skip
            while history.steps < steps and not history.stopped_early:
                step = history.steps + 1
                for group in optimizer.param_groups:
                    group["lr"] = lr * factor((step - 1) / steps)
                index = next(indices)
                value = loss(model, *(rows[index].to(device) for rows in data))
                optimizer.zero_grad()
                value.backward()
                norm = torch.nn.utils.clip_grad_norm_(params, clip).item() if clip else 0.0
                if not (math.isfinite(value.item()) and math.isfinite(norm)):
                    raise FloatingPointError(
                        f"the loss is {value.item():g} and the norm of its gradient {norm:g} at step {step}: "
                        "try a smaller lr, a smaller clip, or look for a log or a division by zero"
                    )
                optimizer.step()
                if average is not None:
                    _update(average, model, min(ema, (1 + step) / (10 + step)))
                history.train.append(value.item())
                bar.set_postfix_str(f"loss {history.train[-1]:.4g}", refresh=False)
                bar.update()
                if step % eval_every and step < steps:
                    continue
                if held_out:
                    with _parameters(model, average):
                        history.valid.append(_mean_loss(model, held_out, loss, batch_size, seed, device))
                    history.valid_steps.append(step)
                    if history.valid[-1] < history.best_valid:
                        best, history.best_step = _copy(average or model), step
                    since = sum(s > (history.best_step or 0) for s in history.valid_steps)
                    history.stopped_early = patience is not None and since >= patience and step < steps
                history.seconds = time.perf_counter() - began
                if checkpoint:
                    _save(checkpoint, {
                        "settings": settings, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                        "average": average, "best": best, "history": dataclasses.asdict(history),
                        "random": _random_state(device),
                    })  # fmt: skip
        if (chosen_state := best or average) is not None:
            model.load_state_dict(chosen_state)
    return history


def _model_loss(model, x, context=None):
    return model.loss(x) if context is None else model.loss(x, context=context)


def _rows(name, x, context=None):
    """`(x,)` or `(x, context)` as tensors with the same number of rows, at least one."""
    rows = tuple(torch.as_tensor(part) for part in (x, context) if part is not None)
    lengths = [len(part) if part.dim() else 0 for part in rows]
    if not rows or min(lengths) == 0 or max(lengths) != min(lengths):
        raise ValueError(f"{name} and its context must have the same number of rows, at least one, got {lengths}")
    return rows


def _fingerprint(rows):
    """Shape and checksum of the data, so that a checkpoint is not resumed with other data."""
    return [[list(part.shape), zlib.crc32(part.detach().cpu().contiguous().numpy())] for part in rows]


def _batches(n, batch_size, seed, first):
    """Rows of each batch from step `first` on: a new order in each epoch, found again without the earlier ones."""
    per_epoch = n // batch_size
    for k in itertools.count(first):
        if k == first or k % per_epoch == 0:
            order = torch.randperm(n, generator=torch.Generator().manual_seed(1_000_003 * seed + k // per_epoch))
        start = k % per_epoch * batch_size
        yield order[start : start + batch_size]


def _mean_loss(model, rows, loss, batch_size, seed, device):
    """Mean loss over all rows, in evaluation mode and with the same noise each time."""
    model.eval()
    total = 0.0
    with torch.no_grad(), _seeded(seed, device):
        for batch in zip(*(part.split(batch_size) for part in rows), strict=True):
            total += len(batch[0]) * loss(model, *(part.to(device) for part in batch)).item()
    model.train()
    return total / len(rows[0])


def _copy(state):
    """A copy of the parameters and buffers of a model, or of such a copy."""
    state = state.state_dict() if isinstance(state, torch.nn.Module) else state
    return {name: value.detach().clone() for name, value in state.items()}


@torch.no_grad()
def _update(average, model, decay):
    """Moves the average towards the model; what is not a real number (a counter) is copied."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


@contextmanager
def _parameters(model, state):
    """The model with other parameters for a while (None: its own)."""
    if state is None:
        yield
        return
    own = _copy(model)
    model.load_state_dict(state)
    try:
        yield
    finally:
        model.load_state_dict(own)


@contextmanager
def _on(model, device):
    """The model in training mode on `device`; afterwards in evaluation mode where it was."""
    home = next(model.parameters()).device
    model.to(device).train()
    try:
        yield
    finally:
        model.to(home).eval()


@contextmanager
def _seeded(seed, device):
    """Random numbers of torch from `seed`; afterwards the global random state is as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _random_state(device):
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_random_state(states, device):
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1].cpu(), device)


def _save(path, state):
    """Writes a checkpoint so that a kill at any moment leaves the old one or the new one, never half of one."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch wraps what the disk says
        partial.unlink(missing_ok=True)
        raise OSError(f"no checkpoint could be written to {path}: make room, or give another path ({error})") from error


def _load(path, settings, device):
    """Reads a checkpoint of a run with the same settings. Only tensors and plain data are read, never code."""
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        different = [key for key in settings if saved["settings"][key] != settings[key]]
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a checkpoint of fit, or it is damaged: remove it to start anew") from error
    if different:
        had, has = ({key: some[key] for key in different} for some in (saved["settings"], settings))
        raise ValueError(f"{path} is a run with {had}, this one has {has}: remove the file, or give another")
    return saved
