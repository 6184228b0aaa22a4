"""Checks: what a student reads when something is wrong, and that a test cell cannot be hurt by what it judges."""

import subprocess
import sys

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from dgm_course import checks
from dgm_course.checks import CheckFailed


def message(fn, *args, **kwargs):
    with pytest.raises(CheckFailed) as caught:
        fn(*args, **kwargs)
    return str(caught.value)


def test_a_right_value_passes_in_any_plain_form():
    want = torch.tensor([1.0, 2.0])
    numbers, tensors = [1.0, 2.0], [torch.tensor(1.0), torch.tensor(2.0)]
    for got in (want, want.double(), want.numpy(), numbers, tensors, want + 1e-7):
        checks.equal(got, want, "x")
    checks.equal(np.float32(3), 3.0, "x")
    checks.equal(torch.tensor([]), torch.tensor([]), "x")


def test_a_wrong_value_is_shown_with_its_place():
    text = message(checks.equal, torch.tensor([[1.0, 2.0], [3.0, 9.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "z")
    assert text.splitlines() == ["z: wrong value", "  wanted 4 at index (1, 1)", "  came   9 at index (1, 1)",
                                 "  1 of 4 entries differ"]  # fmt: skip


def test_a_usual_mistake_is_named():
    want = torch.tensor([1.0, -1.0])
    mistakes = {"the sign is flipped": -want, "summed over the batch": 0.0}
    assert "usual cause: the sign is flipped" in message(checks.equal, -want, want, "log_det", mistakes=mistakes)
    text = message(checks.equal, torch.tensor(0.0), want, "log_det", mistakes=mistakes)
    assert text.splitlines()[1:] == ["  wanted (2,)", "  came   ()", "  usual cause: summed over the batch"]
    assert "usual cause" not in message(checks.equal, want + 3, want, "log_det", mistakes=mistakes)
    assert "usual cause: look again" in message(checks.equal, want + 3, want, "log_det", hint="look again")


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (None, "usual cause: `return` is missing"),
        ("text", "came   'text'"),
        (torch.tensor([float("nan"), 1.0]), "not finite"),
        ((torch.zeros(2), torch.zeros(2)), "came   a tuple of 2"),
        (object(), "came   an object of type object"),
        (torch.zeros(2, 1), "came   (2, 1)"),
    ],
)
def test_other_things_are_refused_in_words(got, says):
    assert says in message(checks.equal, got, torch.zeros(2), "x")


def test_float32_where_float64_was_wanted_is_named():
    want = torch.tensor([1 / 3], dtype=torch.float64)
    assert "computed in float32" in message(checks.equal, want.float(), want, "x", rtol=0, atol=1e-12)


def test_ipython_shows_the_message_and_no_traceback():
    with pytest.raises(CheckFailed) as caught:
        checks.shape(torch.zeros(3), (2,), "x")
    assert caught.value._render_traceback_() == ["x: wrong shape", "  wanted (2,)", "  came   (3,)"]


def test_the_input_of_a_student_is_a_copy():
    x = torch.zeros(3)

    def spoil(v):
        return v.add_(1), v

    out, same = checks.wrap(spoil)(x)
    assert torch.equal(x, torch.zeros(3)) and torch.equal(out, torch.ones(3)) and out is not same


def test_what_comes_back_is_plain():
    class Liar(torch.Tensor):
        def __eq__(self, other):
            return torch.tensor(True)

    class Text(str):
        __slots__ = ()

    things = [torch.nn.Parameter(torch.ones(2)), torch.zeros(2).as_subclass(Liar), Text("a"), {"k": True}]
    got = checks.wrap(lambda: things)()
    assert [type(v) for v in got] == [torch.Tensor, torch.Tensor, str, dict] and not got[0].requires_grad
    message(checks.equal, got[1], torch.ones(2), "x")


def test_objects_come_back_as_handles():
    class Layer:
        def double(self, x):
            return 2 * x

    layer = checks.wrap(Layer)()
    checks.equal(layer.double(torch.ones(2)), 2 * torch.ones(2), "x")
    assert checks.wrap(lambda obj: type(obj).__name__)(layer) == "Layer"
    with pytest.raises(TypeError):
        layer + 1


def test_global_state_is_restored():
    def rude():
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(0)
        np.random.seed(0)
        torch.set_grad_enabled(False)

    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    checks.wrap(rude)()
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


def test_what_a_student_writes_to_stderr_goes_to_stdout(capsys):
    checks.wrap(lambda: print("a progress bar, or a warning", file=sys.stderr))()
    assert capsys.readouterr() == ("a progress bar, or a warning\n", "")


def test_functions_given_to_a_student_take_and_give_plain_copies():
    seen = []

    def c(h):
        seen.append(h)
        return h * torch.ones(2, requires_grad=True)

    def student(x, c, functions):
        out = c(x.requires_grad_())
        assert not out.requires_grad
        return out + functions[0](x)

    checks.equal(checks.wrap(student)(torch.ones(2), c, [c]), 2 * torch.ones(2), "x")
    assert not seen[0].requires_grad


def test_a_missing_return_and_a_blank_cell_have_their_own_words():
    layer = checks.wrap(lambda x: None, returns=("z", "log_det"))
    assert "`return z, log_det` is missing" in message(layer, torch.ones(2))
    assert "came   a tensor of shape (2,)" in message(checks.wrap(lambda: torch.ones(2), returns=("z", "log_det")))

    def empty():
        raise NotImplementedError

    assert message(checks.wrap(empty)).startswith("empty: still blank")


def test_raises():
    def picky(x):
        raise ValueError("no")

    checks.raises(ValueError, checks.wrap(picky), torch.ones(1))
    assert "came   ValueError" in message(checks.raises, TypeError, checks.wrap(picky), torch.ones(1))
    assert "came   1" in message(checks.raises, TypeError, checks.wrap(lambda: 1))


def test_gradients_of_tensors_and_modules():
    x = torch.tensor([1.0, 2.0])
    checks.equal(checks.grad_of(lambda v: (v**3).sum(), x), 3 * x**2, "gradient")
    net = torch.nn.Linear(2, 1)
    grads = checks.grad_of(lambda f, v: f(v).sum(), net, torch.ones(4, 2))
    checks.equal(grads["weight"], 4 * torch.ones(1, 2), "gradient")
    assert "detach()" in message(checks.grad_of, lambda v: v.detach().sum(), x)
    assert "wanted a scalar" in message(checks.grad_of, lambda v: v, x)


def test_numerical_log_det_agrees_with_autograd():
    x = torch.randn(4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mix = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def fn(v):
        return torch.sinh(v.flatten(1) @ mix).reshape(v.shape)

    want = [torch.linalg.slogdet(torch.autograd.functional.jacobian(fn, v[None]).reshape(4, 4)).logabsdet for v in x]
    checks.equal(checks.numerical_log_det(fn, x), torch.stack(want), "log_det", rtol=1e-7, atol=1e-7)


def test_integral_of_a_known_density():
    normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    assert checks.integral(lambda v: normal.log_prob(v).sum(1), -8, 8, 100) == pytest.approx(1, abs=1e-9)
    assert "wrong shape" in message(checks.integral, lambda v: normal.log_prob(v), -8, 8, 100)


def test_points_so_far(capsys, monkeypatch):
    monkeypatch.setattr(checks, "_records", {})
    with checks.exercise("first", points=2):
        pass
    with pytest.raises(CheckFailed), checks.exercise("second", points=1):
        checks.true(False, "x", "yes", "no")
    with checks.exercise("first", points=3, hidden=True):
        pass
    checks.summary(first=2, second=1, third=4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["first: all visible checks passed (2 points)", "first: all hidden checks passed (3 points)"]
    assert [" ".join(line.split()) for line in lines[2:5]] == [
        "first 2 of 2 points passed", "second 0 of 1 point open", "third 0 of 4 points not run yet"
    ]  # fmt: skip
    assert "2 of 7 points" in lines[5]


def test_the_end_of_a_lecture_says_what_is_blank_and_how_to_hand_in(capsys, monkeypatch):
    monkeypatch.setattr(checks, "_records", {})
    monkeypatch.setattr(checks, "_blank", set())
    monkeypatch.delenv("JUPYTERHUB_USER", raising=False)

    def empty():
        raise NotImplementedError

    def end():
        checks.summary(first=2)
        return capsys.readouterr().out

    with pytest.raises(CheckFailed), checks.exercise("first", points=2):
        checks.wrap(empty)()
    assert "blank" in end()
    with pytest.raises(CheckFailed), checks.exercise("first", points=2):
        checks.true(False, "x", "yes", "no")
    assert "open" in (text := end()) and "blank" not in text and "then upload it" in text
    monkeypatch.setenv("JUPYTERHUB_USER", "ada")
    assert "press Submit" in end()
    monkeypatch.setitem(sys.modules, "google.colab", object())
    assert "download it" in end()


def test_a_notebook_keeps_a_card_and_the_text_that_a_plain_process_prints():
    cells = [
        "from dgm_course import checks\nwith checks.exercise('f', points=2):\n    pass",
        "with checks.exercise('f<g', points=1):\n    checks.true(False, 'x', 'yes', 'no')",
        "print('before')\nchecks.summary(**{'f': 2, 'f<g': 1})",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, kernel_name="python3", allow_errors=True, timeout=120).execute()
    passed, failed, end = (cell.outputs for cell in notebook.cells)
    assert [output.output_type for output in (*passed, *failed, *end)] == [
        "display_data",
        "error",
        "stream",
        "display_data",
    ]
    assert passed[0].data["text/plain"] == "f: all visible checks passed (2 points)"
    assert "f: all visible checks passed (2 points)" in passed[0].data["text/html"]
    assert failed[0].traceback == ["x: wrong value", "  wanted yes", "  came   no"]
    assert "<td" in end[1].data["text/html"] and "f&lt;g" in end[1].data["text/html"]
    failing = cells[1].replace("\n", "\n    ")
    code = f"{cells[0]}\ntry:\n    {failing}\nexcept AssertionError:\n    pass\n{cells[2]}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    texts = [passed[0].data["text/plain"], "before", end[1].data["text/plain"]]
    assert done.stdout == "\n".join(texts) + "\n" and done.stderr == ""
