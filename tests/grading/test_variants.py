"""Wrong answers lose exactly their cells and right ones keep all: in the split grader, and under stock nbgrader."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder.notebooks import load_assignment, notebook_path
from autograder.release import environment_on_path, release
from autograder.runner import Grader
from tests.grading import tiny, variants

ROOT = Path(__file__).resolve().parents[2]
LISTS = {tiny.NAME: Path(__file__).parent / "tiny_variants.py"}
LISTS |= {path.stem: path for path in sorted((ROOT / "tests" / "mutants").glob("*.py")) if path.stem[0].isdigit()}

# What somebody who knows nothing of this project would write: folder names, nothing else.
STOCK_CONFIG = """
c = get_config()
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "lectures"
"""


@pytest.fixture(scope="module", params=LISTS)
def lecture(request, tmp_path_factory):
    """An assignment in a course folder of its own, with its variants packed into notebooks."""
    name, folder = request.param, tmp_path_factory.mktemp("variants")
    if name == tiny.NAME:
        tiny.make_course(folder)
    else:
        shutil.copytree(ROOT / "solutions" / name, folder / "solutions" / name)
        shutil.copy(ROOT / "nbgrader_config.py", folder)
    released = nbformat.read(release(folder, name), as_version=4)
    assignment, solutions = load_assignment(folder, name), variants.solution_cells(folder, name)
    listed = variants.load(LISTS[name])
    packed = variants.pack(listed, released, solutions, assignment.exercises)
    reference = {exercise: variants.without_markers(solutions[exercise]) for exercise in assignment.exercises}
    packed = [(variants.fill_in(released, reference), {}), *packed]
    return SimpleNamespace(
        name=name, course=folder, assignment=assignment, release=released, packed=packed, listed=listed
    )


def hand_in(course, name, student, notebook):
    """Puts a notebook where nbgrader looks for it."""
    path = notebook_path(course, "submitted", name, student)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def wanted(lecture, chosen):
    """grade_id -> points that a packed notebook must get."""
    lost = {grade_id for variant in chosen.values() for grade_id in variant.loses}
    return {test.grade_id: 0.0 if test.grade_id in lost else test.points for test in lecture.assignment.tests}


def differences(lecture, chosen, got, messages=None):
    """What a packed notebook got that it should not have got, in words that name the variant."""
    return [
        f"{chosen.get(test.exercise, test.exercise + ': reference')}: {test.grade_id} got {got[test.grade_id]:g} of "
        f"{test.points:g} {(messages or {}).get(test.grade_id, '')}"
        for test in lecture.assignment.tests
        if got[test.grade_id] != wanted(lecture, chosen)[test.grade_id]
    ]


def test_split_grader(lecture):
    with Grader(lecture.assignment) as grader:
        found = []
        for notebook, chosen in lecture.packed:
            result, _ = grader.grade_file(hand_in(lecture.course, lecture.name, "split", notebook))
            cells = {key: cell for e in result["exercises"].values() for key, cell in e["cells"].items()}
            got = {key: cell["score"] for key, cell in cells.items()}
            found += differences(lecture, chosen, got, {key: cell["message"] for key, cell in cells.items()})
        assert found == [], "\n".join(found)

        blank, _ = grader.grade_file(hand_in(lecture.course, lecture.name, "split", lecture.release))
        assert blank["score"] == 0
        assert {e["outcome"] for e in blank["exercises"].values()} == {"blank", "manual"}


@pytest.mark.parametrize("config", ["folder names", "drop-in"])
def test_stock_nbgrader_gives_the_same_marks(config, lecture, tmp_path):
    """Configured by folder names alone, or by the course, `nbgrader autograde` gives the same points, cell by cell."""
    name = lecture.name
    packed = lecture.packed[:4] if name == tiny.NAME else lecture.packed  # some 3 s each
    shutil.copytree(lecture.course / "solutions", tmp_path / "solutions")
    ours = (ROOT / "nbgrader_config.py").read_text()
    (tmp_path / "nbgrader_config.py").write_text(STOCK_CONFIG if config == "folder names" else ours)
    for k, (notebook, _) in enumerate(packed):
        hand_in(tmp_path, name, f"student{k}", notebook)
    with environment_on_path():
        for command in (["generate_assignment", name], ["autograde", name]):
            run = [sys.executable, "-m", "nbgrader", *command]
            done = subprocess.run(run, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
            assert done.returncode == 0, done.stderr.decode()[-4000:]
        book = Gradebook(f"sqlite:///{tmp_path}/gradebook.db")
    found = []
    with book:
        for k, (_, chosen) in enumerate(packed):
            grades = book.find_submission_notebook(name, name, f"student{k}").grades
            found += differences(lecture, chosen, {grade.name: grade.auto_score for grade in grades})
    assert found == [], "\n".join(found)


def test_enough_variants(lecture):
    """At least five wrong and two unusual right answers for every exercise of a lecture."""
    least = {"wrong": 2, "right": 1} if lecture.name == tiny.NAME else {"wrong": 5, "right": 2}
    for exercise in lecture.assignment.exercises:
        mine = [variant for variant in lecture.listed if variant.exercise == exercise]
        assert sum(bool(v.loses) for v in mine) >= least["wrong"], exercise
        assert sum(not v.loses for v in mine) >= least["right"], exercise
