"""What the grader needs to know of an assignment, and of a notebook that a student handed in."""

import copy
import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from autograder.align import align, names_defined

MAX_NOTEBOOK = 20 << 20  # bytes; a larger file is read without its outputs
MAX_FILE = 300 << 20  # bytes

# Drops outputs, in a process that may not take more than 4 GiB and a minute.
WITHOUT_OUTPUTS = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
notebook = json.loads(sys.stdin.buffer.read().decode("utf-8-sig"))
for cell in notebook["cells"]:
    cell.pop("attachments", None)
    cell["outputs"] = []
json.dump(notebook, sys.stdout)
"""


class CourseError(Exception):
    """The course folder does not have what a command needs. The message says what and where."""


class Unreadable(Exception):
    """A submission is no notebook. The message says why."""


def find_course(start="."):
    """The course folder: the nearest one upwards that has `nbgrader_config.py`."""
    start = Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / "nbgrader_config.py").is_file():
            return folder
    raise CourseError(f"no nbgrader_config.py in {start} or above it: run this in the course folder, or use --course")


def notebook_path(course, step, name, student=""):
    """Path of a notebook in nbgrader's folders, e.g. `submitted/STUDENT/NAME/NAME.ipynb`."""
    return Path(course) / step / student / name / f"{name}.ipynb"


def grader_metadata(cell):
    """The nbgrader metadata of a cell, or an empty dict."""
    found = cell.get("metadata", {}).get("nbgrader", {})
    return found if isinstance(found, dict) else {}


def grade_id(cell):
    """The cell's grade_id, or None."""
    found = grader_metadata(cell).get("grade_id")
    return found if isinstance(found, str) else None


def is_test(cell):
    """Whether a cell is an auto-graded test."""
    meta = grader_metadata(cell)
    return cell["cell_type"] == "code" and bool(meta.get("grade")) and not meta.get("solution")


def tags(cell):
    """The tags of a cell."""
    found = cell.get("metadata", {}).get("tags", [])
    return found if isinstance(found, list) else []


@dataclass(frozen=True)
class Test:
    """A test cell, with the points that it gives."""

    grade_id: str
    exercise: str
    points: float
    source: str

    @property
    def hidden(self):
        """Whether students do not get to see it."""
        return self.grade_id.endswith("_hidden")


@dataclass
class Assignment:
    """An assignment: its solution with all tests, and its release.

    Attributes:
        exercises: exercise -> its test cells, in order.
        written: grade_id -> points of the cells that people grade.
        released: grade_id -> cell of the release.
        setup: source of the set-up cell.
        locks: module of `dgm_course` -> the exercises that ask for what it has, see `lock.py`.
    """

    name: str
    solution: dict
    release: dict
    exercises: dict = field(default_factory=dict)
    written: dict = field(default_factory=dict)
    released: dict = field(default_factory=dict)
    setup: str = ""
    locks: dict = field(default_factory=dict)

    def __post_init__(self):
        for cell in self.solution["cells"]:
            key, meta = grade_id(cell), grader_metadata(cell)
            for module in cell["metadata"].get("dgm", {}).get("locked", []):
                self.locks.setdefault(module, set()).add(key)
            if is_test(cell):
                exercise = key.removesuffix("_visible").removesuffix("_hidden")
                test = Test(key, exercise, float(meta["points"]), cell["source"])
                self.exercises.setdefault(exercise, []).append(test)
            elif meta.get("grade"):
                self.written[key] = float(meta["points"])
            elif key == "setup":
                self.setup = cell["source"]
        self.released = {grade_id(cell): cell for cell in self.release["cells"] if grade_id(cell)}
        lost = [test.grade_id for test in self.tests if test.grade_id not in self.released]
        if lost or not self.exercises:
            what = ", ".join(lost) or "no tests"
            raise CourseError(f"lectures/{self.name} does not fit its solution ({what}): run `dgm release {self.name}`")

    @property
    def tests(self):
        """All test cells."""
        return [test for tests in self.exercises.values() for test in tests]


def load_assignment(course, name):
    """Reads the solution and the release of an assignment."""
    for step, remedy in (("solutions", "is the name right?"), ("lectures", f"run `dgm release {name}`")):
        if not notebook_path(course, step, name).is_file():
            raise CourseError(f"no {notebook_path(course, step, name)}: {remedy}")
    solution, release = (read_notebook(notebook_path(course, step, name)) for step in ("solutions", "lectures"))
    return Assignment(name, solution, release)


def read_notebook(path):
    """A notebook of the course itself, as plain dicts of nbformat 4."""
    notebook = json.loads(nbformat.writes(nbformat.read(path, as_version=4)))
    join_lines(notebook)
    return notebook


def join_lines(notebook):
    """Cell sources may be lists of lines; make each a string."""
    for cell in notebook["cells"]:
        if isinstance(cell["source"], list):
            cell["source"] = "".join(cell["source"])


def handed_in(path):
    """The bytes of the notebook that a student handed in, and what was odd about the file, in words.

    If the file is not there under its name, the only notebook in its folder counts, also one in a zip.

    Raises:
        Unreadable: if there is none, or more than one, or one that is too large. Links are not followed.
    """
    path = Path(path)
    if path.is_file() and not path.is_symlink():
        return limited(path.read_bytes, path.stat().st_size), []
    if path.is_symlink():
        raise Unreadable(f"{path.name} is a link, not a file")
    there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    files = [file for file in there if file.is_file() and not file.is_symlink()]
    notebooks = [file for file in files if file.suffix.lower() == ".ipynb"]
    archives = [file for file in files if file.suffix.lower() == ".zip"]
    if len(notebooks) == 1:
        data = limited(notebooks[0].read_bytes, notebooks[0].stat().st_size)
        return data, [f"the file is named {notebooks[0].name}, not {path.name}"]
    if len(notebooks) > 1:
        names = ", ".join(file.name for file in notebooks)
        raise Unreadable(f"there is no file {path.name}, and more than one other notebook: {names}")
    if len(archives) == 1:
        try:
            with zipfile.ZipFile(archives[0]) as archive:
                listed = [entry for entry in archive.infolist() if "__MACOSX" not in entry.filename]
                inside = [entry for entry in listed if entry.filename.endswith(".ipynb")]
                if len(inside) == 1:
                    data = limited(lambda: archive.read(inside[0]), inside[0].file_size)
                    return data, [f"the notebook was in {archives[0].name}"]
        # zipfile raises NotImplementedError for a compression that it does not know
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
            raise Unreadable(f"{archives[0].name} cannot be opened") from None
        raise Unreadable(f"{archives[0].name} holds {len(inside)} notebooks, not one")
    raise Unreadable(f"there is no file {path.name}")


def limited(read, size):
    """What `read()` gives, without outputs if its `size` in bytes is large; too large, and it is not read at all."""
    if size > MAX_FILE:
        raise Unreadable(f"the file has {size:,} bytes, more than {MAX_FILE:,}")
    if size <= MAX_NOTEBOOK:
        return read()
    command = [sys.executable, "-I", "-c", WITHOUT_OUTPUTS]
    try:
        slim = subprocess.run(command, input=read(), capture_output=True, timeout=60, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        slim = None
    if slim is None or len(slim) > MAX_NOTEBOOK:
        raise Unreadable(
            f"the file has {size:,} bytes, and without outputs still more than {MAX_NOTEBOOK:,}, or no cells"
        )
    return slim


def read_submission(path):
    """A student's notebook, as plain dicts of nbformat 4, and what was odd about its file, in words.

    Raises:
        Unreadable: if the file is missing, too large, or no notebook.
    """
    data, repairs = handed_in(path)
    return parse(data), repairs


def parse(data):
    """A notebook of any version, given as bytes, as plain dicts of nbformat 4.

    Raises:
        Unreadable: if it is no notebook.
    """
    try:
        text = data.decode("utf-8-sig")
        notebook = json.loads(text)
        if notebook["nbformat"] != 4:
            notebook = json.loads(json.dumps(nbformat.reads(text, as_version=4)))
        join_lines(notebook)
        for cell in notebook["cells"]:
            if not (isinstance(cell["source"], str) and isinstance(cell.setdefault("metadata", {}), dict)):
                raise ValueError("a cell without source")
            cell["cell_type"] = str(cell["cell_type"])
    except Exception as error:  # a file of any kind may come
        raise Unreadable(f"the file is no Jupyter notebook ({type(error).__name__}: {str(error)[:100]})") from None
    return notebook


def sha256(path):
    """The hash of what a student handed in, as hexadecimal digits; None if it cannot be read."""
    try:
        return hashlib.sha256(handed_in(path)[0]).hexdigest()
    except (Unreadable, OSError):
        return None


@dataclass
class Step:
    """Something to do with a submission: run a cell, or test an exercise.

    Attributes:
        test: the exercise to test, or None.
        cell: index of the cell to run, in `Intake.cells`.
    """

    test: str | None = None
    cell: int | None = None


@dataclass
class Intake:
    """A submission, matched to its assignment.

    Attributes:
        cells: the cells, with locked ones as released.
        steps: what to do, in order.
        blank, missing: the exercises whose cell is as released, or is not there.
        repairs: what was put right, in words.
    """

    cells: list
    steps: list
    blank: set
    missing: set
    repairs: list


def intake(notebook, assignment):
    """Rebuilds a notebook from the release and the student's answers.

    Locked cells count as released, whatever was done to them; test cells only say where the tests are run. An exercise
    whose tests are not in the notebook is tested at the end, one whose answer stands below its tests after the answer.
    """
    aligned, repairs = align(notebook, assignment)
    notebook = {**notebook, "cells": aligned}
    cells, steps, seen = [], [], set()
    waiting = list(assignment.exercises)
    of_test = {test.grade_id: test.exercise for test in assignment.tests}
    keys = [grade_id(cell) for cell in notebook["cells"]]
    present = set(keys)
    blank, missing = set(), {name for name in waiting if name in assignment.released and name not in present}
    handed_in, place = list(notebook["cells"]), 0
    for key, released in assignment.released.items():
        if key in present:
            place = keys.index(key) + 1
        elif is_given(released):
            repairs.append(f"put back the deleted cell {key}")
            handed_in.insert(place, released)
            keys.insert(place, key)
            place += 1

    stubs = {c["source"].strip() for c in assignment.released.values() if grader_metadata(c).get("solution")}

    def is_stub(cell):  # a copy of a blank answer would undo the answer above it
        return cell["source"].strip() in stubs

    def add(cell, key):
        cells.append(cell)
        if key in of_test:
            if of_test[key] in waiting:
                waiting.remove(of_test[key])
                steps.append(Step(test=of_test[key]))
        elif cell["cell_type"] == "code" and "skip-execution" not in tags(cell) and not (key is None and is_stub(cell)):
            steps.append(Step(cell=len(cells) - 1))

    for cell in handed_in:
        cell = {**cell, "outputs": []}
        key = grade_id(cell)
        if key in assignment.released and key not in seen:
            seen.add(key)
            released = assignment.released[key]
            if not grader_metadata(released).get("solution"):
                cell = copy.deepcopy(released)
            else:
                cell = {**copy.deepcopy(released), "source": cell["source"]}
                if same_text(cell["source"], released["source"]):
                    blank.add(key)
        else:  # the student's own, or a copy of a cell that was there before
            cell["metadata"] = {"tags": tags(cell)}
            key = None
        add(cell, key)
    for key, released in assignment.released.items():
        if key not in present and not is_given(released):
            repairs.append(f"the cell {key} is missing")
            if grader_metadata(released).get("grade"):  # so that its mark can be shown
                add(copy.deepcopy(released), key)
    for name in assignment.exercises:
        if name in assignment.released and test_after_answer(name, assignment.released[name], cells, steps):
            repairs.append(f"{name}: the answer stands below its tests; it is tested after it")
    return Intake(cells, steps, blank, missing, repairs)


def test_after_answer(name, released, cells, steps):
    """Moves the tests of an exercise behind the last cell that answers it, if all such cells stand below them."""
    wanted = names_defined(released["source"])
    place = next(i for i, step in enumerate(steps) if step.test == name)
    answers = [
        i
        for i, step in enumerate(steps)
        if step.cell is not None
        and wanted & names_defined(cells[step.cell]["source"])
        and not same_text(cells[step.cell]["source"], released["source"])
    ]
    if not answers or answers[0] < place:
        return False
    steps.insert(answers[-1], steps.pop(place))
    return True


def is_given(cell):
    """Whether a cell is locked code that the notebook needs: the set-up cell, a given object."""
    return cell["cell_type"] == "code" and bool(grader_metadata(cell).get("locked")) and not is_test(cell)


def same_text(a, b):
    """Whether two sources differ in white space at line ends at most."""
    return [line.rstrip() for line in a.strip().splitlines()] == [line.rstrip() for line in b.strip().splitlines()]
