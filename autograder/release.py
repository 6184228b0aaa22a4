"""Releases: `lectures/` made from `solutions/`, and the test that no answer is in them."""

import logging
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbgrader.apps import NbGrader
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config, PyFileConfigLoader

from autograder.notebooks import CourseError, grade_id, is_test, notebook_path
from dgm_course import __version__

# Beside outputs and counts: what editors leave in notebooks and no reader needs.
KEPT_CELL_METADATA = {"nbgrader", "tags", "slideshow", "jupyter"}
KEPT_METADATA = {"kernelspec"}


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
    """The solution notebook, stripped, with version and name in the first line of its set-up cell."""
    path = notebook_path(course, "solutions", name)
    if not path.is_file():
        raise CourseError(f"no {path}; there are {', '.join(assignments(course)) or 'no solutions'}")
    notebook = strip(nbformat.read(path, as_version=4))
    for cell in notebook.cells:
        if grade_id(cell) == "setup":
            cell.source = f"# dgm-course {__version__}, {name}\n{cell.source}"
    return notebook


def release(course, name):
    """Makes `lectures/NAME/NAME.ipynb` with `nbgrader generate_assignment`, and returns its path.

    nbgrader works in a folder of its own, so that no gradebook is asked for, made or changed. The same solution gives
    the same bytes.
    """
    source = stamped_source(course, name)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        path = notebook_path(folder, "solutions", name)
        shutil.copytree(notebook_path(course, "solutions", name).parent, path.parent)
        nbformat.write(source, path)
        config = Config(course_config(course))
        config.CourseDirectory.root = folder
        directory = CourseDirectory(config=config, assignment_id=name)
        converter = GenerateAssignment(coursedir=directory, config=config, no_database=False)
        converter.log = quiet_log()
        converter.start()
        made = notebook_path(folder, "lectures", name)
        nbformat.write(strip(nbformat.read(made, as_version=4)), made)
        target = notebook_path(course, "lectures", name)
        shutil.rmtree(target.parent, ignore_errors=True)
        shutil.copytree(made.parent, target.parent)
    return target


def quiet_log():
    """A log that shows nbgrader's warnings and errors only."""
    log = logging.getLogger("dgm.nbgrader")
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.propagate = False
    log.setLevel(logging.WARNING)
    return log
