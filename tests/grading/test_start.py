"""The start page tells the state of each lecture from the saved notebooks."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from autograder import start
from autograder.cli import main
from autograder.publish import publish
from tests.grading import tiny
from tests.grading.test_publish import LECTURE, clone, git, school  # noqa: F401  (a fixture)


def line(page, name):
    return next(line for line in page.splitlines() if name in line)


def run_all(path, passed):
    """What is left of Run All and Save: outputs in the visible tests, an error where an exercise did not pass."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        key = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        name = key.removesuffix("_visible")
        if name in passed and key.endswith("_visible"):
            text = f"{name}: all visible checks passed (2 points)\n"
            stream = nbformat.v4.new_output("stream", name="stdout", text=text)
            card = nbformat.v4.new_output("display_data", data={"text/plain": text, "text/html": f"<div>{text}</div>"})
            cell.outputs = [stream if name == "scale" else card]
        elif key.endswith("_visible"):
            cell.outputs = [nbformat.v4.new_output("error", ename="CheckFailed", evalue=f"{name}: wrong value")]
    nbformat.write(notebook, path)


@pytest.fixture
def student(school, tmp_path):  # noqa: F811
    (school / ".gitignore").write_text((tiny.ROOT / ".gitignore").read_text())
    publish(school, tmp_path / "published")
    return clone(tmp_path / "published", tmp_path / "student")


def test_state_and_points_of_each_lecture(student, monkeypatch):
    monkeypatch.chdir(student / "lectures")
    assert main(["start", "--page"]) == 0
    page = (student / "START.md").read_text()
    assert f"[{tiny.NAME}]({LECTURE})" in page
    assert line(page, tiny.NAME).split("|")[3:5] == [" not started ", " 0 of 6 "]
    assert "not there yet" in line(page, "Glow") and "](" not in line(page, "Glow")
    assert git(student, "status", "--porcelain").stdout == ""  # `git pull` and `dgm update` do not mind it
    run_all(student / LECTURE, {"scale", "slope"})
    main(["start", "--page"])
    page = (student / "START.md").read_text()
    assert line(page, tiny.NAME).split("|")[3:5] == [" 2 of 4 exercises done ", " 3 of 6 "]
    assert "**3 of 6** visible points so far" in page


def test_a_notebook_that_lost_its_metadata_counts_and_a_broken_one_does_no_harm(student):
    run_all(student / LECTURE, {"scale"})
    stripped = json.loads((student / LECTURE).read_text())
    for cell in stripped["cells"]:
        cell["metadata"] = {}
    (student / LECTURE).write_text(json.dumps(stripped))
    assert "1 of 4 exercises done" in line(start.page(student), tiny.NAME)
    (student / LECTURE).write_text((student / LECTURE).read_text()[:1000])
    assert "cannot be read" in line(start.page(student), tiny.NAME)


def test_the_titles_are_those_of_sixteen_lectures():
    assert [int(name[:2]) for name in start.TITLES] == list(range(1, 17))
    assert {path.name for path in (tiny.ROOT / "lectures").iterdir()} <= start.TITLES.keys()


def test_jupyterlab_opens_on_the_page_and_students_see_no_panels_of_teachers(student, monkeypatch):
    commands = []
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append((command, dict(os.environ))))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/mine")
    monkeypatch.chdir(student)
    main(["start", "--no-browser"])
    (command, environment), folder = commands.pop(), str(student)
    assert "--LabApp.default_url=/lab/tree/START.md" in command
    assert f"--ServerApp.root_dir={folder}" in command and command[-1] == "--no-browser"
    code = "from jupyterlab_server.config import get_page_config as c; print(*c([])['disabledExtensions'])"
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.split()
    assert {"@jupyterlab/apputils-extension:announcements", "@jupyter/nbgrader:create-assignment"} <= set(shown)
    assert environment["JUPYTER_CONFIG_PATH"].endswith("/mine")
    (student / "solutions").mkdir()  # a teacher's checkout
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "")
    main(["start"])
    environment = commands.pop()[1]
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.split()
    assert "@jupyter/nbgrader:create-assignment" not in shown


def test_outside_of_a_course_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["start"]) == 2
    assert "run this in the folder of the course" in capsys.readouterr().err
