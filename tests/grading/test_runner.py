"""One verdict for each cell of each submission, whatever the submission does."""

import contextlib
import re
import time
from pathlib import Path

import nbformat
import pytest
import torch

from autograder.notebooks import CourseError, load_assignment
from autograder.runner import Grader, Limits, free_names
from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT

COUPLING = tiny.right_answer("coupling")


def outcomes(result):
    """grade_id -> outcome."""
    return {key: cell["outcome"] for e in result["exercises"].values() for key, cell in e["cells"].items()}


def message(result, grade_id):
    """The message of a cell."""
    return next(e["cells"][grade_id]["message"] for e in result["exercises"].values() if grade_id in e["cells"])


def test_all_right_gets_all_points(grade):
    result = grade(ALL_RIGHT)
    assert (result["score"], result["max_score"], result["written_max"]) == (10, 10, 4)
    assert result["repairs"] == []
    found = outcomes(result)
    assert found.pop("written_why") == "manual"
    assert set(found.values()) == {"passed"}


def test_blank_gets_none(grade):
    result = grade({})
    assert result["score"] == 0
    assert set(outcomes(result).values()) == {"blank", "manual"}


def test_the_message_of_a_visible_test_says_wanted_came_and_cause(grade):
    text = message(
        grade({**ALL_RIGHT, "scale": "def scale(x, factor):\n    return x / factor, torch.zeros(2)"}), "scale_visible"
    )
    for part in ("z: wrong value", "wanted 8", "came   2", "usual cause: divided"):
        assert part in text


def test_the_message_of_a_hidden_test_gives_no_input_away(grade):
    spy = """
class Spy(Exception):
    pass

def scale(x, factor):
    if x.shape == (3, 5):
        raise type(f"Shape{tuple(x.shape)}", (Exception,), {})(f"factor {factor}")
    return factor * x, torch.full((len(x),), x.shape[1] * math.log(factor))"""
    result = grade({**ALL_RIGHT, "scale": spy})
    assert outcomes(result)["scale_visible"] == "passed"
    assert message(result, "scale_hidden") == "your code raised an exception"
    honest = spy.replace('type(f"Shape{tuple(x.shape)}", (Exception,), {})', "ValueError")
    assert message(grade({**ALL_RIGHT, "scale": honest}), "scale_hidden") == "your code raised ValueError"
    wrong = "def scale(x, factor):\n    return factor * x, torch.full((len(x),), 2 * math.log(abs(factor)))"
    assert message(grade({**ALL_RIGHT, "scale": wrong}), "scale_hidden") == "log_det of five dimensions: wrong value"


def test_an_exception_names_the_line_of_the_students_cell(grade):
    source = "def scale(x, factor):\n    y = x + 1\n    return y[factor:, 0, 0, 'a']"
    result = grade({**ALL_RIGHT, "scale": source})
    assert outcomes(result)["scale_visible"] == "error"
    assert re.search(
        r"Error: .*\(line 3 of your cell: `return y\[factor:, 0, 0, 'a'\]`\)", message(result, "scale_visible")
    )
    assert result["score"] == 7


@pytest.mark.parametrize(
    ("source", "outcome", "text"),
    [
        ("def coupling(x, net):\n    while True:\n        pass", "timeout", "no answer within 2 s"),
        ("def coupling(x, net):\n    os._exit(3)", "died", "exit code 3"),
        ("def coupling(x, net):\n    os.kill(os.getpid(), 11)", "died", "SIGSEGV"),
        ("def coupling(x, net):\n    raise SystemExit", "error", "SystemExit"),
        ("def coupling(x, net):\n    raise MemoryError", "memory", "MemoryError"),
        ("def coupling(x, net):\n    return coupling(x, net)", "error", "RecursionError"),
        ("def coupling(x, net):\n    return net(torch.zeros(1 << 19))", "error", "too large"),
        ("def coupling(x, net):\n    return torch.zeros(1 << 19)", "error", "too large"),
        ("def coupling(x, net):\n    return 'z'", "failed", "wanted a tensor"),
        ("def coupling(x, net):\n    return lambda: 3", "failed", "wanted a tensor"),
        ("def coupling(x, net):\n    return net(x[:, :1]) + net('a')", "error", "TypeError"),
        ("def coupling(x):\n    return x", "error", "TypeError"),
        ("def coupling(x, net):\n    net(None)", "error", "TypeError"),
        ("def coupling(x, net:\n    pass", "error", "SyntaxError"),
        ("def koupling(x, net):\n    pass", "error", "name 'coupling' is not defined"),
        ("coupling = None", "error", "TypeError"),
        ("1 / 0\n" + COUPLING, "error", "ZeroDivisionError"),
        ("os._exit(4)\n" + COUPLING, "died", "exit code 4"),
        ("while True:\n    pass\n" + COUPLING, "timeout", "stopped after 2 s"),
        ("while True:\n    try:\n        time.sleep(9)\n    except BaseException: pass", "timeout", "did not stop"),
        ("exit()\n" + COUPLING, "error", ""),
    ],
)  # fmt: skip
def test_a_broken_answer_costs_its_own_exercise_and_no_other(grade, source, outcome, text):
    result = grade({**ALL_RIGHT, "coupling": f"import os, time\n{source}"})
    assert result["score"] == 7
    assert outcomes(result)["coupling_visible"] == outcome
    assert text in message(result, "coupling_visible")
    assert set(outcomes(result)) == set(tiny.TESTS) | {"written_why"}


@pytest.mark.parametrize(
    ("body", "outcome", "text"),
    [
        ("while True:\n        pass", "timeout", "no answer within 2 s"),
        ("os._exit(3)", "died", "exit code 3"),
        ("os._exit(0)", "died", "exit code 0"),
        ("ctypes.string_at(0)", "died", "SIGSEGV"),
        ("os.kill(os.getppid(), 9)\n    return torch.zeros(())", None, ""),
        ("os.closerange(3, 99)", "died", "exit code"),
        ("raise ValueError('x')", "error", "ValueError"),
        ("threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\n    return 3.0", "failed", "wrong value"),
    ],
)  # fmt: skip
def test_the_last_exercise_is_as_safe_as_the_others(grade, body, outcome, text):
    """No process is forked for its tests: the one that has run the cells answers itself."""
    result = grade({**ALL_RIGHT, "slope": f"import ctypes, os, threading\ndef slope(critic, x):\n    {body}"})
    found = outcomes(result)
    assert result["score"] == 8
    assert outcome in (None, found["slope_visible"])
    assert text in message(result, "slope_visible")
    assert set(found) == set(tiny.TESTS) | {"written_why"}


def test_a_cell_after_the_last_exercise_is_run_and_shown(course, grader):
    notebook = tiny.submission(course, ALL_RIGHT)
    notebook.cells.append(nbformat.v4.new_code_cell("print('the', 'end')"))
    result, cells = grader.grade_file(tiny.hand_in(course, "end", notebook))
    assert result["score"] == 10
    assert cells[-1]["outputs"][0]["text"] == "the end\n"


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\n!ls\n%pip --version\n%no_such_magic",
        "import warnings\nwarnings.warn('x')\nprint('y' * 10**6)\nimport sys\nsys.stderr.write('z' * 10**6)",
        "import subprocess\nsubprocess.run('yes | head -c 1000000', shell=True)",
        "plt.plot([1, 2])\nplt.show()",
        "from tqdm.auto import tqdm\nfor _ in tqdm(range(3)):\n    pass",
        "torch.set_num_threads(4)\ntorch.ones(300, 300) @ torch.ones(300, 300)",
        "torch.ones(3, requires_grad=True).sum().backward()",
        "torch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)",
        "import threading\nthreading.Thread(target=lambda: None).start()",
        "await __import__('asyncio').sleep(0)",
        "raise ValueError('in a cell of my own')",
        "import os\nos._exit(1)",
        "import os, signal\nos.kill(0, signal.SIGKILL)",
    ],
)
def test_what_students_do_beside_the_answer_costs_nothing(grade, source):
    result = grade(ALL_RIGHT, before={"coupling": source})
    assert result["score"] == 10


def test_prints_and_warnings_inside_an_answer_cost_nothing(grade):
    noisy = COUPLING.replace("x1, x2", "import warnings\n    warnings.warn('x')\n    print('y' * 10**6)\n    x1, x2", 1)
    assert grade({**ALL_RIGHT, "coupling": noisy})["score"] == 10


def test_exercises_do_not_touch_each_other(grade):
    """State that one exercise's calls leave behind is gone in the next; names of the notebook's cells are not."""
    vandal = """
calls = []

def scale(x, factor):
    calls.append(1)
    torch.cat = torch.Tensor.chunk = None
    return factor * x, torch.full((len(x),), x.shape[1] * math.log(abs(factor)))"""
    result = grade({**ALL_RIGHT, "scale": vandal}, before={"coupling": "assert calls == [], calls"})
    assert result["score"] == 10


def test_a_reference_is_the_real_thing_once_its_exercise_is_graded(course, grader):
    """However it was imported before: by itself, as a module, or through another module that needs it."""
    early = """
from dgm_course import flows
from dgm_course.transforms import coupling as module
from dgm_course.transforms.coupling import Coupling as early"""
    late = """
import inspect
from dgm_course.transforms import coupling
from dgm_course.transforms.coupling import Coupling
assert inspect.isclass(Coupling) and coupling.Coupling is Coupling and module.Coupling is Coupling
layer = next(part for part in flows.nice(2).modules() if isinstance(part, Coupling))
assert isinstance(layer, early)
print("open now")"""
    locked = "try:\n    flows.nice(2)\nexcept ImportError as error:\n    print(error)"
    notebook = tiny.submission(course, ALL_RIGHT, before={"scale": early, "coupling": locked, "slope": late})
    result, cells = grader.grade_file(tiny.hand_in(course, "early", notebook))
    assert result["score"] == 10
    printed = "".join(out.get("text", "") for cell in cells if cell["cell_type"] == "code" for out in cell["outputs"])
    assert "is locked until the exercises that ask for it are graded" in printed
    assert "open now" in printed


def test_a_reference_planted_by_the_student_in_checks_earns_nothing(grade):
    cheat = "checks.equal = lambda *a, **k: None\ncoupling = lambda x, net: x\nscale = lambda x, f: (x, x)"
    result = grade({"coupling": cheat})
    assert result["score"] == 0


def test_answers_in_another_cell_count(grade):
    """Somebody left the given cells alone and wrote below them, and below the tests of the first."""
    result = grade({}, before={"coupling_visible": COUPLING + "\n" + tiny.right_answer("scale")})
    assert result["exercises"]["coupling"]["outcome"] == "passed"
    assert result["exercises"]["scale"]["outcome"] == "passed"
    assert result["repairs"] == ["scale: the answer stands below its tests; it is tested after it"]


def test_deleted_and_edited_cells(course, grader):
    notebook = tiny.submission(course, ALL_RIGHT)
    kept = []
    for cell in notebook.cells:
        key = cell.metadata.get("nbgrader", {}).get("grade_id")
        if key == "scale_visible":
            cell.source = "print('all passed')"
        if key not in ("given_square", "coupling", "make_flow_hidden"):
            kept.append(cell)
    notebook.cells = kept
    result, cells = grader.grade_file(tiny.hand_in(course, "editor", notebook))
    assert result["score"] == 7
    assert result["exercises"]["coupling"]["outcome"] == "missing"
    assert result["repairs"] == [
        "scale_visible: the text was changed; it counts as released", "put back the deleted cell given_square",
        "the cell coupling is missing", "the cell make_flow_hidden is missing",
    ]  # fmt: skip
    shown = {cell["metadata"].get("nbgrader", {}).get("grade_id"): cell for cell in cells}
    assert "checks.exercise" in shown["scale_visible"]["source"]
    assert shown["make_flow_hidden"]["outputs"]


def test_a_notebook_without_nbgraders_metadata_is_graded(course, grader):
    notebook = tiny.submission(course, ALL_RIGHT)
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.cells = [cell for cell in notebook.cells if "SystemError" not in cell.source]
    assert grader.grade_file(tiny.hand_in(course, "stripped", notebook))[0]["score"] == 10


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01", b"[]", b'{"nbformat": 4}', b'{"cells": [1], "nbformat": 4}', b"{" * 10**5]
)
def test_what_is_no_notebook_is_unreadable_and_says_why(course, grader, content):
    result, _ = grader.grade_file(tiny.hand_in(course, "junk", content))
    assert (result["score"], result["max_score"]) == (0, 10)
    assert set(outcomes(result).values()) == {"unreadable", "manual"}
    assert "no Jupyter notebook" in message(result, "scale_visible")


def test_old_formats_and_byte_order_marks_are_read(course, grader):
    notebook = tiny.submission(course, ALL_RIGHT)
    with_mark = b"\xef\xbb\xbf" + nbformat.writes(notebook).encode()
    assert grader.grade_file(tiny.hand_in(course, "mark", with_mark))[0]["score"] == 10
    old = nbformat.writes(nbformat.convert(notebook, 3), version=3)
    assert grader.grade_file(tiny.hand_in(course, "old", old.encode()))[0]["score"] == 10


def test_a_submission_that_keeps_dying_still_gets_every_outcome(course, grader):
    notebook = tiny.submission(course, ALL_RIGHT)
    deadly = [nbformat.v4.new_code_cell("import os; os._exit(1)") for _ in range(9)]
    notebook.cells = notebook.cells[:6] + deadly + notebook.cells[6:]
    result, _ = grader.grade_file(tiny.hand_in(course, "deadly", notebook))
    found = outcomes(result)
    assert set(found) == set(tiny.TESTS) | {"written_why"}
    assert found["scale_visible"] == "passed" and found["slope_hidden"] == "died"


def test_workers_give_the_same_marks_as_one_process(course, grader):
    paths = {}
    for k, answers in enumerate(
        [ALL_RIGHT, {}, {"scale": "right"}, {**ALL_RIGHT, "slope": "import os; os._exit(1)"}] * 2
    ):
        paths[f"s{k}"] = tiny.hand_in(course, f"s{k}", tiny.submission(course, answers))
    paths["nobody"] = course / "submitted" / "nobody.ipynb"

    def without_times(graded):
        found = {student: result for student, result, _ in graded}
        for result in found.values():
            del result["seconds"]
            for exercise in result["exercises"].values():
                del exercise["seconds"]
        return found

    alone = without_times(grader.grade(paths))
    with Grader(load_assignment(course, tiny.NAME), Limits(), workers=2) as two:
        assert without_times(two.grade(paths)) == alone
    assert alone["nobody"]["exercises"]["scale"]["outcome"] == "unreadable"


def test_nothing_is_left_running(course, grader):
    source = "import subprocess\nsubprocess.Popen(['sleep', '4321'])\n" + COUPLING
    notebook = tiny.submission(course, {**ALL_RIGHT, "coupling": source})
    assert grader.grade_file(tiny.hand_in(course, "sleeper", notebook))[0]["score"] == 10
    deadline = time.monotonic() + 3
    while (left := running("sleep\0004321")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def running(command):
    """Ids of the processes whose command line holds `command`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if command in path.read_text(errors="replace"):
                found.append(path.parent.name)
    return found


def test_answers_see_no_test_and_little_environment(course, grader, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "hunter2")
    look = """
import gc, os
held = [o for o in gc.get_objects() if isinstance(o, (dict, list, str))]
assert "five dimensions" not in str([o for o in held if isinstance(o, str)])
assert not any("exercise(" in str(v) for o in held if isinstance(o, dict) for k, v in list(o.items()) if k == "source")
assert "MY_SECRET" not in os.environ
found = os.getcwd(), os.listdir(".")
print(found)"""
    with Grader(load_assignment(course, tiny.NAME), Limits()) as fresh:
        notebook = tiny.submission(course, ALL_RIGHT, before={"slope": look})
        _, cells = fresh.grade_file(tiny.hand_in(course, "looker", notebook))
    cell = next(cell for cell in cells if cell["source"] == look)
    assert re.fullmatch(r"\('/.*answer-\w+', \[\]\)\n", cell["outputs"][0]["text"])


def test_marks_do_not_depend_on_the_graders_random_state(grade):
    lucky = COUPLING.replace("return", "x2 = x2 * (torch.rand(()) * 0 + 1)\n    return")
    torch.manual_seed(time.time_ns())
    assert grade({**ALL_RIGHT, "coupling": lucky})["score"] == 10


def test_free_names():
    source = "from a import b\nx = b(c)\ndef f(y):\n    return y + z + x + sum(w for w in v)\nclass K:\n    k = u\n"
    assert free_names(source) == {"c", "z", "v", "u", "sum"}


def test_a_release_that_does_not_fit_is_reported(course, tmp_path):
    with pytest.raises(CourseError, match="run `dgm release 01_tiny`"):
        load_assignment(tiny.make_course(tmp_path), tiny.NAME)
    with pytest.raises(CourseError, match="is the name right"):
        load_assignment(course, "02_none")
