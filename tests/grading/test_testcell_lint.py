"""The lint of test cells: what a test cell may not do, each with the message that says why."""

import pytest

from autograder.testcell_lint import check_notebook, check_source
from tests.grading import tiny

SETUP_NAMES = {"torch", "np", "math", "checks"}
STUDENT_NAMES = {"scale", "Flow", "critic"}

GOOD = [
    'layer = checks.wrap(scale)\nz = layer(torch.ones(2), lambda h: h)\nchecks.equal(z[0] + 1, 2, "z")\nprint("ok")',
    'flow = checks.wrap(Flow)(3)\nz = flow.forward(critic, x=[1])\nchecks.equal(z, 1, "z")\nprint("ok")',
    'with checks.exercise("scale", points=1):\n    a, b = checks.wrap(scale, returns=("a", "b"))(critic)\n    a * b',
    'got = checks.grad_of(scale, critic, torch.ones(1))\nchecks.equal(got["w"], 1, "g")\nprint("ok")',
    'g = torch.Generator().manual_seed(1)\nx = torch.randn(2, generator=g)\nchecks.wrap(scale)(x)\nprint("ok")',
    'def net(h):\n    return h.sum(1)\nfor n in range(3):\n    checks.wrap(scale)(net, n)\nprint("ok")',
]

BAD = [
    ("z = scale(torch.ones(2))\nprint(1)", "scale is the student's"),
    ("print(scale.__code__)", "scale is the student's"),
    ("x = critic[0]\nprint(1)", "critic is the student's"),
    ("checks.wrap(scale)(critic.weight)\nprint(1)", "critic is the student's"),
    ("print(critic + 1)", "critic is the student's"),
    ("isinstance(Flow, type)\nprint(1)", "Flow is the student's"),
    ("checks.wrap(scale)(unknown)\nprint(1)", "unknown is neither imported"),
    ("checks.wrap(scale)", "must end with print"),
    ("", "must end with print"),
    ("torch.manual_seed(0)\nprint(1)", "torch.manual_seed: a seed does not reach"),
    ("np.random.seed(0)\nprint(1)", "a seed does not reach"),
    ("g = torch.Generator()\nchecks.wrap(scale)(1, g)\nprint(1)", "g is a random generator"),
    ("g = torch.Generator()\nchecks.wrap(scale)(1, generator=g)\nprint(1)", "g is a random generator"),
    ("from tqdm import tqdm\nprint(1)", "imports belong into the set-up cell"),
    ("opt = torch.optim.Adam([])\nprint(1)", "optim: no training"),
    ("torch.ones(1).backward()\nprint(1)", "backward: use checks.grad_of"),
    ("for i in tqdm(range(3)):\n    pass\nprint(1)", "tqdm: writes to stderr"),
    ("warnings.warn('x')\nprint(1)", "warnings: writes to stderr"),
    ("def f(:\n    pass", "no Python"),
]


@pytest.mark.parametrize("source", GOOD)
def test_cells_that_speak_data_pass(source):
    assert check_source(source, SETUP_NAMES, STUDENT_NAMES) == []


@pytest.mark.parametrize(("source", "text"), BAD)
def test_others_are_told_why(source, text):
    assert any(text in error for error in check_source(source, SETUP_NAMES, STUDENT_NAMES))


def notebook_without(**changes):
    """The tiny solution with metadata of `scale_hidden` changed, or its source."""
    notebook = tiny.solution_notebook()
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("grade_id") == "scale_hidden":
            if "source" in changes:
                cell.source = changes["source"]
            if "tags" in changes:
                cell.metadata.tags = changes["tags"]
            meta.update({k: v for k, v in changes.items() if k not in ("source", "tags")})
    return notebook


def test_a_good_notebook_passes():
    assert check_notebook(notebook_without()) == []


HIDDEN = tiny.TESTS["scale_hidden"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"points": 0}, "scale_hidden: has no points"),
        ({"locked": False}, "scale_hidden: is not locked"),
        ({"tags": []}, "scale_hidden: has no tag raises-exception"),
        ({"grade_id": "scale_secret"}, "scale_visible: a test is a pair"),
        ({"source": HIDDEN.split("\n", 1)[1]}, "scale_hidden: keeps no comment"),
        ({"source": "\n".join(s for s in HIDDEN.splitlines() if "###" not in s)}, "scale_hidden: a hidden test"),
    ],
)
def test_what_a_notebook_lacks_is_named(changes, text):
    assert any(error.startswith(text) for error in check_notebook(notebook_without(**changes)))
