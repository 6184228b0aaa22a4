"""On a hub: nbgrader's exchange carries a lecture to students and back, and `dgm grade` takes it from there."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from autograder.release import environment_on_path, release
from tests.grading import tiny
from tests.grading.tiny import NAME

pytestmark = pytest.mark.slow
NBGRADER = ("-m", "nbgrader")
DGM = ("-m", "autograder.cli")


def run(folder, *words):
    """Runs a command in a folder; it must end well."""
    env = {**os.environ, "PYTHONPATH": str(tiny.ROOT), "JUPYTER_CONFIG_DIR": str(folder), "USER": "ada"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_and_back(tmp_path):
    course, student, exchange = tmp_path / "course", tmp_path / "ada", tmp_path / "exchange"
    tiny.make_course(course)
    release(course, NAME)
    for folder in (student, exchange):
        folder.mkdir()
    exchange.chmod(0o777)
    line = f'c.Exchange.root = "{exchange}"\n'
    with (course / "nbgrader_config.py").open("a") as config:
        config.write(line)
    (student / "nbgrader_config.py").write_text(f'c = get_config()\nc.CourseDirectory.course_id = "dgm"\n{line}')
    with environment_on_path():
        run(course, *NBGRADER, "release_assignment", NAME)
        run(student, *NBGRADER, "fetch_assignment", NAME)
        path = student / NAME / f"{NAME}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") == "scale":
                cell.source = tiny.right_answer("scale")
        nbformat.write(notebook, path)
        run(student, *NBGRADER, "submit", NAME)
        run(course, *NBGRADER, "collect", NAME)
        run(course, *DGM, "grade", NAME, "--json", "marks.json")
        run(course, *DGM, "feedback", NAME)
        run(course, *NBGRADER, "release_feedback", NAME)
        run(student, *NBGRADER, "fetch_feedback", NAME)
    (result,) = json.loads((course / "marks.json").read_text())["students"].values()
    assert result["score"] == 3 and result["repairs"] == []
    (page,) = (student / NAME / "feedback").rglob("*.html")
    assert "scale" in page.read_text()
