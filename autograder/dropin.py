"""Repair and split execution as steps of stock `nbgrader autograde`, and so of formgrader's button.

`nbgrader_config.py` names both: `Repair` among `Autograde.sanitize_preprocessors`, and `SplitExecute` in place of
`Execute`. What happens before any step stays nbgrader's: a renamed file, or one that is no notebook, is refused there;
`dgm grade` takes these too.
"""

import atexit
import json

import nbformat
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor

from autograder.notebooks import grade_id, intake, join_lines, load_assignment, notebook_path
from autograder.runner import Grader, grade_notebook, settings

_graders = {}  # (course, assignment, times of its files) -> a warm grader, kept for the next submission


def plain(notebook):
    """nbformat's notebook as plain dicts."""
    made = json.loads(nbformat.writes(notebook))
    join_lines(made)
    return made


class Repair(NbGraderPreprocessor):
    """Recognises the released cells of a damaged notebook and puts back the locked ones."""

    def preprocess(self, nb, resources):
        """Replaces the cells of `nb`."""
        assignment = load_assignment(CourseDirectory(parent=self).root, resources["nbgrader"]["assignment"])
        taken = intake(plain(nb), assignment)
        for line in taken.repairs:
            self.log.warning("%s: %s", resources["nbgrader"]["student"], line)
        nb.cells = [nbformat.from_dict({**cell, "id": f"cell-{n}"}) for n, cell in enumerate(taken.cells)]
        for cell in nb.cells:
            if cell.cell_type != "code":
                cell.pop("outputs", None)
                cell.pop("execution_count", None)
            else:
                cell.setdefault("execution_count", None)
        nb.nbformat_minor = max(nb.nbformat_minor, 5)  # the first with cell ids
        return nb, resources


class SplitExecute(NbGraderPreprocessor):
    """Runs the tests in this process and the answers in another, and writes verdicts where nbgrader reads them."""

    def preprocess(self, nb, resources):
        """Fills in the outputs of the cells of `nb`."""
        grader = warm_grader(CourseDirectory(parent=self).root, resources["nbgrader"]["assignment"])
        _, cells = grade_notebook(plain(nb), grader.assignment, grader.tests, grader.parent, grader.limits)
        outputs = {grade_id(cell): cell.get("outputs", []) for cell in cells}
        for cell in nb.cells:
            if cell.cell_type == "code":
                found = outputs.get(grade_id(cell), []) if grade_id(cell) else []
                cell.outputs = [nbformat.from_dict(output) for output in found]
        return nb, resources


def warm_grader(course, name):
    """A grader of the assignment as it is now. It ends with this process."""
    stamp = tuple(notebook_path(course, step, name).stat().st_mtime_ns for step in ("solutions", "lectures"))
    if (course, name, stamp) not in _graders:
        close_graders()
        limits, level = settings(course, name)
        assignment = load_assignment(course, name)
        _graders[course, name, stamp] = Grader(assignment, limits, level=level, course=course).__enter__()
    return _graders[course, name, stamp]


@atexit.register
def close_graders():
    """Ends the warm parents."""
    while _graders:
        _graders.popitem()[1].__exit__()
