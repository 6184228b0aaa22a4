"""Wrong answers that the tests must reject, and unusual right ones that they must accept.

`tests/mutants/NN_topic.py` lists them, a call each:

    from tests.grading.variants import right, wrong

    wrong("additive_coupling", "sign of the translation", '''
    def additive_coupling(x, net):
        x1, x2 = x.chunk(2, dim=1)
        return torch.cat([x1, x2 - net(x1)], dim=1), torch.zeros(len(x))
    ''', loses="visible hidden")

    wrong("additive_coupling", "log-det summed over the batch", swap=("torch.zeros(len(x))", "torch.zeros(())"))

    right("additive_coupling", "in place", '''...''')

`loses` names the test cells that the answer must lose, exactly: "visible hidden" (as if not said), "hidden" or
"visible". `swap=(old, new)` changes the solution's cell instead of writing it anew.
"""

import copy
import runpy
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import nbformat

from autograder.notebooks import grade_id

_listed = []


@dataclass(frozen=True)
class Variant:
    """An answer to one exercise. `loses` is the set of grade_ids that it must lose; empty for a right answer."""

    exercise: str
    name: str
    source: str | None
    swap: tuple | None
    loses: frozenset

    def cell_source(self, solution):
        """The student's cell, given the source of the solution's."""
        if self.source is not None:
            return dedent(self.source).strip()
        old, new = self.swap
        answer = without_markers(solution)
        if old not in answer:
            raise ValueError(f"{self}: the solution of {self.exercise} has no {old!r}")
        return answer.replace(old, new)

    def __str__(self):
        return f"{self.exercise}: {self.name}"


def wrong(exercise, name, source=None, swap=None, loses="visible hidden"):
    """Lists a wrong answer."""
    _list(exercise, name, source, swap, frozenset(f"{exercise}_{kind}" for kind in loses.split()))


def right(exercise, name, source=None, swap=None):
    """Lists an unusual right answer."""
    _list(exercise, name, source, swap, frozenset())


def _list(exercise, name, source, swap, loses):
    if (source is None) == (swap is None):
        raise ValueError(f"{exercise}: {name}: give either a source or a swap")
    _listed.append(Variant(exercise, name, source, swap, loses))


def load(path):
    """The variants that a file lists."""
    _listed.clear()
    runpy.run_path(str(Path(path)))
    return list(_listed)


def without_markers(source):
    """A solution's cell without the lines that mark the solution."""
    return "\n".join(line for line in source.splitlines() if not line.strip().startswith("### "))


def solution_cells(course, name):
    """exercise -> source of the solution's cell."""
    notebook = nbformat.read(Path(course) / "solutions" / name / f"{name}.ipynb", as_version=4)
    return {grade_id(cell): cell.source for cell in notebook.cells if grade_id(cell)}


def fill_in(release, sources):
    """A copy of the released notebook with some cells answered (grade_id -> source)."""
    notebook = copy.deepcopy(release)
    for cell in notebook.cells:
        cell.source = sources.get(grade_id(cell), cell.source)
    return notebook


def pack(variants, release, solutions, exercises):
    """Packs variants into as few notebooks as there are variants of one exercise.

    Args:
        variants: list of `Variant`.
        release: the released notebook.
        solutions: grade_id -> source of the solution's cell.
        exercises: names of the exercises.

    Returns:
        List of `(notebook, chosen)`: notebook k holds variant k of every exercise, and the reference where there is
        none; `chosen` maps exercise -> variant.
    """
    by_exercise = {name: [v for v in variants if v.exercise == name] for name in exercises}
    unknown = [str(v) for v in variants if v.exercise not in by_exercise]
    if unknown:
        raise ValueError(f"no such exercise: {unknown}; there are {list(exercises)}")
    packed = []
    for k in range(max(map(len, by_exercise.values()))):
        chosen = {name: found[k] for name, found in by_exercise.items() if k < len(found)}
        sources = {name: without_markers(solutions[name]) for name in exercises}
        sources |= {name: variant.cell_source(solutions[name]) for name, variant in chosen.items()}
        packed.append((fill_in(release, sources), chosen))
    return packed
