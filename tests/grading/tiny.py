"""A tiny course that the tests of the grader make from code: one assignment with every kind of exercise.

`scale` takes tensors, `coupling` a function to call back, `make_flow` returns an object with methods, `slope` needs a
gradient through the student's code at an object that a given cell has made.
"""

import shutil
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NAME = "01_tiny"
ROOT = Path(__file__).resolve().parents[2]

SETUP = """\
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from dgm_course import checks

torch.manual_seed(0)"""

GIVEN = """\
class Square(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, x):
        return (self.weight * x**2).sum(-1)

square = Square()"""

ANSWERS = {
    "scale": """\
def scale(x, factor):
    ### BEGIN SOLUTION
    z = factor * x
    log_det = torch.full(x.shape[:1], x.shape[1] * math.log(abs(factor)))
    return z, log_det
    ### END SOLUTION""",
    "coupling": """\
def coupling(x, net):
    ### BEGIN SOLUTION
    x1, x2 = x.chunk(2, dim=1)
    shifted = x2 + net(x1)
    return torch.cat([x1, shifted], dim=1)
    ### END SOLUTION""",
    "make_flow": """\
class Flow:
    def __init__(self, shift):
        ### BEGIN SOLUTION
        self.translation = shift
        ### END SOLUTION

    def forward(self, x):
        ### BEGIN SOLUTION
        return x + self.translation
        ### END SOLUTION

    def inverse(self, z):
        ### BEGIN SOLUTION
        return z - self.translation
        ### END SOLUTION""",
    "slope": """\
def slope(critic, x):
    ### BEGIN SOLUTION
    values = critic(x)
    return values.mean()
    ### END SOLUTION""",
}

TESTS = {
    "scale_visible": """\
with checks.exercise("scale", points=2):
    layer = checks.wrap(scale, returns=("z", "log_det"))
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    z, log_det = layer(x, 2.0)
    checks.equal(z, 2 * x, "z", mistakes={"divided": x / 2})
    checks.equal(log_det, torch.full((2,), 2 * math.log(2)), "log_det")""",
    "scale_hidden": """\
# Other shapes and a negative factor.
### BEGIN HIDDEN TESTS
with checks.exercise("scale", points=1, hidden=True):
    layer = checks.wrap(scale, returns=("z", "log_det"))
    z, log_det = layer(torch.ones(3, 5), -3.0)
    checks.equal(log_det, torch.full((3,), 5 * math.log(3)), "log_det of five dimensions")
### END HIDDEN TESTS""",
    "coupling_visible": """\
with checks.exercise("coupling", points=2):
    layer = checks.wrap(coupling)
    z = layer(torch.tensor([[1.0, 2.0]]), lambda h: 10 * h)
    checks.equal(z, torch.tensor([[1.0, 12.0]]), "z")""",
    "coupling_hidden": """\
# Another network.
### BEGIN HIDDEN TESTS
with checks.exercise("coupling", points=1, hidden=True):
    layer = checks.wrap(coupling)
    z = layer(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), lambda h: h.flip(1) ** 2)
    checks.equal(z, torch.tensor([[1.0, 2.0, 7.0, 5.0]]), "z of four dimensions")
### END HIDDEN TESTS""",
    "make_flow_visible": """\
with checks.exercise("make_flow", points=1):
    flow = checks.wrap(Flow)(torch.tensor([1.0, -1.0]))
    checks.equal(flow.forward(torch.zeros(3, 2)), torch.tensor([[1.0, -1.0]] * 3), "z")""",
    "make_flow_hidden": """\
# The inverse.
### BEGIN HIDDEN TESTS
with checks.exercise("make_flow", points=1, hidden=True):
    flow = checks.wrap(Flow)(torch.tensor([2.0, -3.0]))
    checks.equal(flow.inverse(torch.zeros(3, 2)), torch.tensor([[-2.0, 3.0]] * 3), "x")
### END HIDDEN TESTS""",
    "slope_visible": """\
with checks.exercise("slope", points=1):
    value = checks.wrap(slope)(square, torch.tensor([[1.0, 2.0]]))
    checks.equal(value, torch.tensor(9.0), "slope")""",
    "slope_hidden": """\
# The gradients with respect to the input and to the critic.
### BEGIN HIDDEN TESTS
with checks.exercise("slope", points=1, hidden=True):
    value = checks.wrap(slope)(square, torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    checks.equal(value, torch.tensor(5.5), "slope of two points")
    got = checks.grad_of(slope, square, torch.tensor([[1.0, 3.0]]))
    checks.equal(got["weight"], torch.tensor([1.0, 9.0]), "gradient of the weight")
### END HIDDEN TESTS""",
}
LOCKED = {"coupling": {"dgm": {"locked": ["dgm_course.transforms.coupling"]}}}
POINTS = {"scale_visible": 2, "coupling_visible": 2}


def meta(grade_id, grade=False, solution=False, locked=False, points=None, **more):
    """Metadata of a cell that nbgrader knows."""
    found = {"grade_id": grade_id, "grade": grade, "solution": solution, "locked": locked,
             "schema_version": 3, "task": False}  # fmt: skip
    if points is not None:
        found["points"] = points
    return {"nbgrader": found, **more}


def solution_notebook():
    """The solution of the tiny assignment."""
    cells = [
        new_markdown_cell("# Tiny"),
        new_code_cell(SETUP, metadata=meta("setup", locked=True, tags=["setup"])),
        new_code_cell(GIVEN, metadata=meta("given_square", locked=True)),
    ]
    for name, source in ANSWERS.items():
        cells.append(new_code_cell(source, metadata=meta(name, solution=True, **LOCKED.get(name, {}))))
        for key in (f"{name}_visible", f"{name}_hidden"):
            metadata = meta(key, grade=True, locked=True, points=POINTS.get(key, 1), tags=["raises-exception"])
            cells.append(new_code_cell(TESTS[key], metadata=metadata))
    cells.append(new_code_cell("raise SystemError('not for grading')", metadata={"tags": ["skip-execution"]}))
    written = meta("written_why", grade=True, solution=True, points=4)
    cells.append(new_markdown_cell("Because.", metadata=written))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return new_notebook(cells=cells, metadata=kernel)


def make_course(folder):
    """A course folder with the tiny assignment's solution and the project's own configuration of nbgrader."""
    folder = Path(folder)
    (folder / "solutions" / NAME).mkdir(parents=True)
    nbformat.write(solution_notebook(), folder / "solutions" / NAME / f"{NAME}.ipynb")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    return folder


def right_answer(name):
    """The student's cell of an exercise, answered as in the solution."""
    return "\n".join(line for line in ANSWERS[name].splitlines() if "### " not in line)


def submission(course, answers, **extra):
    """The release with the given cells changed.

    Args:
        course: folder with a release.
        answers: exercise -> source of the student's cell, or "right".
        **extra: `before={exercise: source}` puts a cell of the student's own before an exercise's cell.
    """
    notebook = nbformat.read(course / "lectures" / NAME / f"{NAME}.ipynb", as_version=4)
    cells = []
    for cell in notebook.cells:
        key = cell.metadata.get("nbgrader", {}).get("grade_id")
        if key in extra.get("before", {}):
            cells.append(new_code_cell(extra["before"][key]))
        if key in answers:
            cell.source = right_answer(key) if answers[key] == "right" else answers[key]
        cells.append(cell)
    notebook.cells = cells
    return notebook


def hand_in(course, student, notebook):
    """Writes a notebook (or text, or bytes) to where a student's submission is expected, and returns the path."""
    path = Path(course) / "submitted" / student / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(notebook, bytes):
        path.write_bytes(notebook)
    else:
        path.write_text(notebook if isinstance(notebook, str) else nbformat.writes(notebook), encoding="utf-8")
    return path


ALL_RIGHT = dict.fromkeys(ANSWERS, "right")
