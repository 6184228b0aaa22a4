"""Checks for the test cells of the lectures.

A test cell calls the student's function through `wrap`, gets plain data back, and judges it with `equal` and its
neighbours. The same cell gives the same verdict in JupyterLab, under `nbgrader autograde`, and in the split grader,
where the student's function lives in another process:

    with checks.exercise("additive_coupling", points=2):
        layer = checks.wrap(additive_coupling, returns=("z", "log_det"))
        z, log_det = layer(x, conditioner)
        checks.equal(z, wanted, "z", mistakes={"the translation is subtracted": x - shift})

A failed check raises `CheckFailed`. Its text says what was wanted, what came, where they differ, and the usual cause.
"""

import html
import os
import random
import sys
import time
from contextlib import contextmanager, redirect_stderr

import numpy as np
import torch

_records: dict[str, tuple[float, float]] = {}  # exercise -> (points earned by its visible test, points of that test)
_blank: set[str] = set()  # exercises whose visible test met an answer that is not written yet
_started = time.monotonic()


class CheckFailed(AssertionError):
    """A result is not what was asked for.

    Attributes:
        what: name of the result that was judged, e.g. "log_det".
        kind: "value", "shape", "type", "not finite", "no error", "blank" or "missing".
        cause: the usual cause, or None.
    """

    def __init__(self, what, kind, lines=(), cause=None):
        self.what, self.kind, self.cause = what, kind, cause
        text = [f"{what}: {_TITLES[kind]}", *(f"  {line}" for line in lines)]
        if cause:
            text.append(f"  usual cause: {cause}")
        super().__init__("\n".join(text))

    def _render_traceback_(self):
        """IPython shows these lines instead of a traceback through the course's own code."""
        return str(self).splitlines()


_TITLES = {
    "value": "wrong value",
    "shape": "wrong shape",
    "type": "wrong type",
    "not finite": "not finite",
    "no error": "an error was expected",
    "blank": "still blank",
    "missing": "not there yet",
}


# ---------------------------------------------------------------------------------------------------- calling a student


def plain(value):
    """Reduces numbers, strings, containers, tensors and arrays to plain, detached copies on the CPU.

    Subclasses become their base type. Anything else is returned as an opaque `Student` handle, which can be called,
    or passed back to the student's code, and nothing more.
    """
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, torch.Tensor):
        return value.detach().as_subclass(torch.Tensor).cpu().clone()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return np.array(value)
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(plain(v) for v in value)
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    return value if isinstance(value, Student) else Student(value)


class Student:
    """A student's function or object, behind a face that only takes and gives plain data.

    Tensors are cloned on their way in, results are detached on their way out, functions among the arguments are
    treated the same way, and global state that student code may change (default dtype, random state, gradient mode)
    is restored.
    """

    def __init__(self, target, returns=None):
        self._target, self._returns = target, returns

    def __call__(self, *args, **kwargs):
        result = self._call(self._target, args, kwargs)
        return _unpack(result, self._returns, _name(self._target)) if self._returns else result

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return Student(getattr(self._target, name))

    @staticmethod
    def _call(target, args, kwargs):
        if hasattr(type(target), "__remote_grad__"):  # in another process already: only data crosses
            return target(*args, **kwargs)
        with _restored():
            try:
                return plain(target(*map(_inward, args), **{k: _inward(v) for k, v in kwargs.items()}))
            except NotImplementedError:  # what the stub of an answer that is not written yet raises
                raise blank(_name(target)) from None


def wrap(target, returns=None):
    """Wraps a student's function (or class, or object) for use in a test cell.

    Args:
        target: the student's name, or its proxy in the split grader.
        returns: names of the tensors that a call must return as a tuple, e.g. `("z", "log_det")`. A call that returns
            anything else fails with a message that says so.
    """
    return Student(target._target if isinstance(target, Student) else target, returns)


def grad_of(fn, wrt, *args):
    """Gradient of the scalar `fn(wrt, *args)` with respect to `wrt`, as plain tensors.

    Args:
        fn: a student's function that returns a scalar tensor.
        wrt: a tensor, or a module (then the gradient of each parameter by name).
    """
    fn, wrt = (v._target if isinstance(v, Student) else v for v in (fn, wrt))
    if hasattr(type(fn), "__remote_grad__"):
        return fn.__remote_grad__(wrt, args)
    with _restored(), torch.enable_grad():
        is_module = isinstance(wrt, torch.nn.Module)
        named = dict(wrt.named_parameters()) if is_module else {"": _inward(wrt).requires_grad_()}
        first = wrt if is_module else named[""]
        value = fn(first, *map(_inward, args))
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise CheckFailed(_name(fn), "type", ["wanted a scalar tensor", f"came   {describe(value)}"])
        if not value.requires_grad:
            raise CheckFailed(_name(fn), "value", ["no gradient flows"], "detach(), item() or .data cuts the graph")
        grads = torch.autograd.grad(value.reshape(()), list(named.values()), allow_unused=True)
        out = {k: torch.zeros_like(p) if g is None else g for (k, p), g in zip(named.items(), grads, strict=True)}
        return plain(out if is_module else out[""])


def _inward(value):
    if isinstance(value, Student):
        return value._target
    if isinstance(value, torch.Tensor | np.ndarray):
        return plain(value)
    if isinstance(value, list | tuple):
        return type(value)(map(_inward, value))
    if callable(value) and not isinstance(value, type | torch.nn.Module):
        return lambda *args, **kwargs: plain(value(*map(plain, args), **{k: plain(v) for k, v in kwargs.items()}))
    return value


_SPARE = np.random.MT19937(0)  # what numpy draws from within a student's function


@contextmanager
def _restored():
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    states, generator = (torch.get_rng_state(), random.getstate()), np.random.get_bit_generator()
    np.random.set_bit_generator(_SPARE)  # cheaper than to save and restore numpy's state
    try:
        with redirect_stderr(sys.stdout):  # a warning on stderr costs the cell under stock nbgrader
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_bit_generator(generator)


def _name(target):
    return getattr(target, "__name__", None) or type(target).__name__


def _unpack(result, names, where):
    want = f"a tuple ({', '.join(names)}) of tensors"
    if not isinstance(result, tuple | list) or len(result) != len(names):
        cause = f"`return {', '.join(names)}` is missing" if result is None else None
        raise CheckFailed(where, "type", [f"wanted {want}", f"came   {describe(result)}"], cause)
    for name, value in zip(names, result, strict=True):
        if not isinstance(value, torch.Tensor | np.ndarray | int | float):
            raise CheckFailed(where, "type", [f"wanted {want}", f"came   {name} = {describe(value)}"])
    return tuple(_as_tensor(value) for value in result)


def blank(name):
    """The failure that stands for an answer that has not been written yet."""
    return CheckFailed(name, "blank", ["the cell still raises NotImplementedError"])


# -------------------------------------------------------------------------------------------------------------- judging


def equal(got, want, what, *, rtol=1e-4, atol=1e-5, mistakes=None, hint=None):
    """Checks that `got` is `want` up to `atol + rtol * |want|`, in shape and in every entry.

    Args:
        got: what the student's code returned (tensor, array or number).
        want: the right tensor or number.
        what: name of the result for the message, e.g. "log_det".
        mistakes: dict from a usual mistake, in words, to the value that it leads to. If `got` is one of these values,
            the message names the mistake.
        hint: cause to name when no mistake matches.

    Raises:
        CheckFailed: with wanted, got, the place of the largest difference, and the cause.
    """
    want = torch.as_tensor(want)
    value = _tensor(got, want, what, hint)

    def matches(other):
        mine, other = value.double(), torch.as_tensor(other).double()
        if mine.shape != other.shape:
            return False
        return torch.equal(mine, other) or torch.allclose(mine, other, rtol=rtol, atol=atol)

    if matches(want):
        return
    cause = next((text for text, wrong in (mistakes or {}).items() if matches(wrong)), hint)
    if value.shape != want.shape:
        raise CheckFailed(what, "shape", [f"wanted {_shape(want)}", f"came   {_shape(value)}"], cause)
    if not bool(torch.isfinite(value.double()).all()) and bool(torch.isfinite(want.double()).all()):
        raise CheckFailed(what, "not finite", [f"came   {describe(value)}"], cause)
    off = (value.double() - want.double()).abs() - rtol * want.double().abs()
    at = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape)) if want.dim() else ()
    place = f" at index {at[0] if len(at) == 1 else at}" if at else ""
    lines = [f"wanted {want[at].item():.6g}{place}", f"came   {value[at].item():.6g}{place}"]
    if want.numel() > 1:
        share = int((off > atol).sum())
        lines.append(f"{share} of {want.numel()} entries differ")
    if cause is None and want.dtype == torch.float64 and value.dtype == torch.float32:
        cause = "computed in float32 although the input was float64"
    raise CheckFailed(what, "value", lines, cause)


def shape(got, want, what, *, hint=None):
    """Checks that `got` is a tensor of shape `want`."""
    value = _tensor(got, None, what, hint)
    if tuple(value.shape) != tuple(want):
        raise CheckFailed(what, "shape", [f"wanted {tuple(want)}", f"came   {tuple(value.shape)}"], hint)


def true(condition, what, wanted, came, *, hint=None):
    """Checks a condition that the test cell has computed from plain data."""
    if not bool(condition):
        raise CheckFailed(what, "value", [f"wanted {wanted}", f"came   {came}"], hint)


def raises(error, fn, *args, what=None, hint=None):
    """Checks that `fn(*args)` raises the built-in exception class `error` (or a subclass of it)."""
    what = what or "bad input"
    wanted = f"wanted {error.__name__}"
    try:
        value = fn(*args)
    except CheckFailed:
        raise
    except Exception as e:
        if isinstance(e, error) or error.__name__ in getattr(e, "remote_types", ()):
            return
        name = getattr(e, "remote_types", (type(e).__name__,))[0]
        raise CheckFailed(what, "no error", [wanted, f"came   {name}"], hint) from None
    raise CheckFailed(what, "no error", [wanted, f"came   {describe(value)}"], hint)


def numerical_log_det(fn, x, step=1e-5):
    """log|det dz/dx| by central differences in float64, for a function that maps a batch to a batch.

    Args:
        fn: maps `(batch, ...)` to a tensor of the same size, or to a tuple whose first entry is that tensor.
        x: points, `(batch, ...)`, float64.

    Returns:
        Tensor `(batch,)`, float64. The error is about `step ** 2`. All shifted points go through `fn` in one call.
    """
    x = x.double()
    batch, dim = x.shape[0], x[0].numel()
    shift = step * torch.eye(dim, dtype=x.dtype).reshape(dim, 1, *x.shape[1:])
    points = torch.cat([x + shift, x - shift])  # (2 dim, batch, ...)
    z = fn(points.reshape(-1, *x.shape[1:]))
    z = torch.as_tensor(z[0] if isinstance(z, tuple | list) else z).double()
    if z.numel() != points.numel():
        raise CheckFailed("output", "shape", [f"wanted {points.numel()} entries", f"came   {_shape(z)}"])
    plus, minus = z.reshape(2, dim, batch, dim)
    jacobian = ((plus - minus) / (2 * step)).permute(1, 2, 0)  # (batch, output, input)
    return torch.linalg.slogdet(jacobian).logabsdet


def integral(log_prob, low, high, n=200):
    """Integral of `exp(log_prob)` over the square `[low, high]^2`, by the midpoint rule on an n x n grid."""
    ticks = low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    points = torch.cartesian_prod(ticks, ticks)
    values = _tensor(log_prob(points), points[:, 0], "log_prob")
    shape(values, (n * n,), "log_prob")
    return float(values.double().exp().sum() * ((high - low) / n) ** 2)


def describe(value):
    """A value in a few words, for messages."""
    if isinstance(value, torch.Tensor | np.ndarray):
        size = _shape(value)
        bad = "" if torch.as_tensor(value).double().isfinite().all() else " with NaN or infinite entries"
        return f"a {'tensor' if isinstance(value, torch.Tensor) else 'numpy array'} of shape {size}{bad}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(describe(v) for v in value[:4])})"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)[:80]
    return f"an object of type {_name(type(value))}"


def _tensor(got, want, what, hint=None):
    if isinstance(got, torch.Tensor | np.ndarray | np.generic | bool | int | float):
        return _as_tensor(got)
    if isinstance(got, list | tuple) and want is not None and want.dim() == 1:
        if all(isinstance(v, bool | int | float) for v in got):
            return _as_tensor(got)
        if all(isinstance(v, torch.Tensor) and v.numel() == 1 for v in got):
            return torch.stack([v.reshape(()) for v in got])
    cause = hint or ("`return` is missing" if got is None else None)
    size = "" if want is None else f" of shape {_shape(want)}"
    raise CheckFailed(what, "type", [f"wanted a tensor{size}", f"came   {describe(got)}"], cause)


def _as_tensor(value):
    """`torch.as_tensor`, but numbers of Python keep all their digits."""
    is_float = isinstance(value, float) or (
        isinstance(value, list | tuple) and any(isinstance(v, float) for v in value)
    )
    return torch.as_tensor(value, dtype=torch.float64 if is_float else None)


def _shape(value):
    return tuple(value.shape)


# ------------------------------------------------------------------------------------------------------------ reporting


@contextmanager
def exercise(name, points, hidden=False):
    """Frame of a test cell: shows one line when all checks inside have passed, and keeps the score for `summary`."""
    if not hidden:
        _records[name] = (0.0, points)
        _blank.discard(name)
    try:
        yield
    except CheckFailed as failure:
        if failure.kind == "blank" and not hidden:
            _blank.add(name)
        raise
    except NameError as error:
        if not _raised_by_the_cell(error):
            raise
        lines = [f"the name {error.name} is not known: its cell has not been run since the kernel started"]
        raise CheckFailed(error.name, "missing", [*lines, "choose Run, Run All Above Selected Cell"]) from None
    if not hidden:
        _records[name] = (points, points)
    text = f"{name}: all {'hidden' if hidden else 'visible'} checks passed ({_points(points)})"
    _show(text, _card(html.escape(text), "success"))


def _raised_by_the_cell(error):
    """Whether a test cell itself misses a name, and not a student's function."""
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name.startswith(("<module", "<cell"))


def summary(**visible_points):
    """Shows the visible points so far, which exercises are blank or open, and how to hand in.

    Args:
        **visible_points: exercise name -> points of its visible test.
    """
    rows = []
    for name, points in visible_points.items():
        earned = _records.get(name, (0.0, points))[0]
        state = "passed" if earned else "blank" if name in _blank else "open" if name in _records else "not run yet"
        rows.append((name, f"{earned:g} of {_points(points)}", state))
    total = sum(visible_points.values())
    earned = sum(_records[n][0] for n in visible_points if n in _records)
    minutes = round((time.monotonic() - _started) / 60)
    rows.append(("visible points", f"{earned:g} of {_points(total)}", f"({_points(minutes, 'minute')})"))
    end = "Hidden tests count as well; they run when the notebook is graded."
    end += f"\nTo hand in: save the notebook, then {_way_to_hand_in()}."
    widths = [max(len(row[k]) for row in rows) for k in range(2)]
    text = "\n".join(f"{name:<{widths[0]}}  {points:<{widths[1]}}  {state}" for name, points, state in rows)
    cells = ("".join(f"<td style='text-align: left'>{html.escape(text)}</td>" for text in row) for row in rows)
    table = "".join(f"<tr>{cell}</tr>" for cell in cells)
    below = html.escape(end).replace("\n", "<br>")
    _show(f"{text}\n{end}", _card(f"<table>{table}</table>{below}", "success" if earned == total else "warn"))


def _show(text, card):
    """Prints a text. A front end that can shows a card of HTML instead; the notebook keeps both."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is None:
        print(text)
    else:
        shell.display_pub.publish({"text/plain": text, "text/html": card})


def _card(inside, kind):
    colour = {"success": "#388e3c", "warn": "#f57c00"}[kind]  # where there is no theme of JupyterLab
    return f"<div style='border-left: 4px solid var(--jp-{kind}-color1, {colour}); padding: 2px 12px'>{inside}</div>"


def _way_to_hand_in():
    if "google.colab" in sys.modules:
        return "download it (File, Download .ipynb) and upload it where your instructor said"
    if os.environ.get("JUPYTERHUB_USER"):
        return "press Submit in the hub's list of assignments, or upload it where your instructor said"
    return "upload it where your instructor said"


def _points(number, unit="point"):
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
