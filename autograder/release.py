"""Releases: `lectures/` made from `solutions/`, and the test that no answer is in them."""

import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config, PyFileConfigLoader

from autograder.notebooks import CourseError, grade_id, grader_metadata, notebook_path
from dgm_course import __version__

# Beside outputs and counts: what editors leave in notebooks and no reader needs.
KEPT_CELL_METADATA = {"nbgrader", "dgm", "tags", "slideshow", "jupyter"}
KEPT_METADATA = {"kernelspec"}
FIRST = "# Run this cell first, and again whenever the kernel was restarted: without it no name below is known."


def course_config(course):
    """nbgrader's configuration of a course folder."""
    return PyFileConfigLoader("nbgrader_config.py", path=str(course)).load_config()


def assignments(course):
    """Names of the assignments that have a solution."""
    return sorted(path.stem for path in Path(course).glob("solutions/*/*.ipynb") if path.stem == path.parent.name)


def strip(notebook):
    """Removes outputs, execution counts and what editors add. In place; returns the notebook."""
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEPT_CELL_METADATA}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA}
    return notebook


def stamped_source(course, name):
    """The solution notebook, stripped; its set-up cell starts with version and name, and says when to run it."""
    path = notebook_path(course, "solutions", name)
    if not path.is_file():
        raise CourseError(f"no {path}; there are {', '.join(assignments(course)) or 'no solutions'}")
    notebook = strip(nbformat.read(path, as_version=4))
    for cell in notebook.cells:
        if grade_id(cell) == "setup":
            cell.source = f"# dgm-course {__version__}, {name}\n{FIRST}\n{cell.source}"
    return notebook


def release(course, name):
    """Makes `lectures/NAME/NAME.ipynb` with `nbgrader generate_assignment`, and returns its path.

    nbgrader works in a folder of its own and without a gradebook; `dgm grade` tells the gradebook of the cells. The
    same solution gives the same bytes.
    """
    source = stamped_source(course, name)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        path = notebook_path(folder, "solutions", name)
        shutil.copytree(notebook_path(course, "solutions", name).parent, path.parent)
        nbformat.write(source, path)
        config = Config(course_config(course))
        config.CourseDirectory.root = folder
        config.SaveCells.enabled = False
        directory = CourseDirectory(config=config, assignment_id=name)
        converter = GenerateAssignment(coursedir=directory, config=config, no_database=True)
        converter.log = quiet_log()
        with environment_on_path():
            converter.start()
        made = notebook_path(folder, "lectures", name)
        nbformat.write(strip(nbformat.read(made, as_version=4)), made)
        target = notebook_path(course, "lectures", name)
        shutil.rmtree(target.parent, ignore_errors=True)
        shutil.copytree(made.parent, target.parent)
    return target


@contextlib.contextmanager
def environment_on_path():
    """nbgrader asks the command `alembic` for a version; it is beside Python, which need not be on PATH."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def quiet_log(level=logging.WARNING):
    """A log that shows what nbgrader says at `level` and above."""
    log = logging.getLogger("dgm.nbgrader")
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.propagate = False
    log.setLevel(level)
    return log


def regions(source, kind):
    """The lines between `BEGIN kind` and `END kind` of a cell, one list for each region."""
    found, inside = [], False
    for line in source.splitlines():
        if f"BEGIN {kind}" in line:
            inside = True
            found.append([])
        elif f"END {kind}" in line:
            inside = False
        elif inside:
            found[-1].append(line)
    return found


def squeezed(lines):
    """Lines without white space, leaving out short ones, which tell nothing."""
    return [line for line in ("".join(line.split()) for line in lines) if len(line) >= 12]


COMMON = "|".join([
    r"[\w,]+=(checks\.wrap\(\w+(,returns=\([^()]*\))?\),?)+",
    r"[\w,]+=\w+\([\w,]*\)",
    r"g(,\w+)?=torch\.Generator\(\)\.manual_seed\(\w+\)(,[\d_]+)?",
    r"\w+=torch\.distributions\.\w+\([\d.,]*\)",
    r"def\w+\(\w+\):",
])  # fmt: skip


def is_common(line):
    """Whether a squeezed line of a test tells nothing: `layer = checks.wrap(f)`, `z = layer(x, b, c)`, a seed."""
    return bool(re.fullmatch(COMMON, line))


def triples(lines):
    """All runs of three consecutive lines."""
    return set(zip(lines, lines[1:], lines[2:], strict=False))


def leaks(course):
    """What `lectures/` gives away: a list of messages, empty if all is well."""
    return leaks_in(course, ((path.name, path.read_bytes()) for path in sorted(Path(course).glob("lectures/*/*"))))


def leaks_in(course, files):
    """What files give away, pairs of a name and bytes: a list of messages, empty if all is well.

    Three telling lines in a row of a solution, or one telling line of a hidden test, may stand in none of them.
    """
    told = {}  # a line, or three, that files hold -> the file
    for name, data in files:
        for text in texts(data):
            lines = squeezed(text.splitlines())
            told |= dict.fromkeys([*lines, *triples(lines)], name)
    found = []
    for name in assignments(course):
        for cell in nbformat.read(notebook_path(course, "solutions", name), as_version=4).cells:
            answers, hidden = regions(cell.source, "SOLUTION"), regions(cell.source, "HIDDEN TESTS")
            if not answers and grader_metadata(cell).get("solution"):
                answers = [cell.source.splitlines()]
            secrets = [run for lines in answers for run in triples(squeezed(lines))]
            secrets += [line for lines in hidden for line in squeezed(lines) if not is_common(line)]
            found += [f"{told[s]} holds a part of {name}, cell {grade_id(cell)}: {s}" for s in secrets if s in told]
    return found


def texts(data):
    """The texts of a file: the sources of its cells if it is a notebook."""
    text = data.decode("utf-8", errors="replace")
    if text.lstrip().startswith("{"):
        with contextlib.suppress(Exception):  # other JSON, or a notebook of an odd kind, is taken as it stands
            return [cell.source for cell in nbformat.reads(text, as_version=4).cells]
    return [text]
