"""A student in a real browser: opens a published lecture, answers, runs all, saves, and gets full marks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from autograder.notebooks import grade_id
from autograder.publish import publish
from tests.grading.variants import solution_cells, without_markers

pytest.importorskip("playwright", reason="the Python package playwright is not installed")
if not shutil.which("chromium"):
    pytest.skip("Chromium is not installed (Debian: apt-get install chromium)", allow_module_level=True)

from tests.browser.lab import Lab, chromium, server, until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
NAME = "06_coupling_flows"
EXERCISE = "additive_coupling"
LECTURE = f"lectures/{NAME}/{NAME}.ipynb"
MESSAGE = f"{EXERCISE}: all visible checks passed"


@pytest.fixture
def student(tmp_path):
    """A student's clone of what the course publishes."""
    publish(ROOT, tmp_path / "published")
    folder = tmp_path / "student"
    subprocess.run(["git", "clone", "-q", tmp_path / "published", folder], check=True)
    return folder


@pytest.fixture
def lab(student, tmp_path):
    """JupyterLab on the student's folder in a browser. `DGM_PICTURES` names a folder that keeps the screenshots."""
    pictures, home = Path(os.environ.get("DGM_PICTURES", tmp_path / "pictures")), tmp_path / "home"
    home.mkdir()
    pictures.mkdir(parents=True, exist_ok=True)
    with server(student, home) as address, chromium() as page:
        made = Lab(page, address, pictures)
        try:
            yield made
        finally:
            made.picture("end")


def place(path, key):
    """The number of the cell with a grade_id, or an id."""
    cells = nbformat.read(path, as_version=4).cells
    return next(number for number, cell in enumerate(cells) if key in (grade_id(cell), cell.id))


def grade(path, folder):
    """What `dgm grade` gives a notebook, in a course folder of its own."""
    shutil.copytree(ROOT / "solutions" / NAME, folder / "solutions" / NAME)
    shutil.copytree(ROOT / "lectures" / NAME, folder / "lectures" / NAME)
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    target = folder / "submitted" / "ada" / NAME / f"{NAME}.ipynb"
    target.parent.mkdir(parents=True)
    shutil.copy(path, target)
    command = [sys.executable, "-m", "autograder.cli", "grade", NAME, "--course", folder, "--json", folder / "marks"]
    subprocess.run(command, check=True, cwd=ROOT)
    return json.loads((folder / "marks").read_text())["students"]["ada"]


def test_from_the_first_click_to_full_marks(lab, student, tmp_path):
    path = student / LECTURE
    answer, test, last = (place(path, key) for key in (EXERCISE, f"{EXERCISE}_visible", "hand-in"))
    assert "not started" in lab.start_page()
    lab.picture("start")
    lab.follow("Coupling flows")
    lab.picture("opened")
    lab.type_into(answer, without_markers(solution_cells(ROOT, NAME)[EXERCISE]))
    lab.picture("answered", answer)
    lab.menu("Run", "Run All Cells")
    end = lab.output(last, "To hand in")
    lab.idle()
    assert MESSAGE in lab.output(test, MESSAGE)
    assert "1 of 1" in end and "blank" in end and "upload it" in end
    lab.picture("passed", test)
    lab.picture("blank", place(path, "influence_visible"))
    lab.picture("summary", last)
    lab.menu("File", "Save Notebook")
    until(lambda: MESSAGE in path.read_text(), "the notebook was not saved")
    told = lab.validate()
    assert "additive_coupling" not in told and "influence" in told  # the answered one passes, a blank one does not
    result = grade(path, tmp_path / "course")
    exercise = result["exercises"][EXERCISE]
    assert exercise["outcome"] == "passed" and exercise["score"] == exercise["max_score"] > 0
    assert result["score"] == exercise["score"] and result["repairs"] == []
