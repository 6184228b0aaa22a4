"""What a student sees who checks a notebook before handing it in."""

import shutil

import nbformat
import pytest

from autograder.cli import main
from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT, NAME


@pytest.fixture
def student(course, tmp_path):
    """A folder with the release alone: no solutions, no configuration."""
    shutil.copytree(course / "lectures", tmp_path / "lectures")
    return tmp_path


def save(student, notebook, name):
    path = student / name
    nbformat.write(notebook, path)
    return str(path)


def test_all_right(course, student, capsys):
    path = save(student, tiny.submission(course, ALL_RIGHT), f"lectures/{NAME}/{NAME}.ipynb")
    assert main(["check", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["scale", "2", "of", "2", "passed"] and "hidden tests come with grading" in lines[-1]


def test_the_cause_is_shown_and_the_file_may_have_any_name(course, student, capsys):
    wrong = tiny.right_answer("scale").replace("factor * x", "x / factor")
    path = save(student, tiny.submission(course, {"scale": wrong}), "my homework (1).ipynb")
    assert main(["check", path]) == 1
    out = capsys.readouterr().out
    assert "failed" in out and "wanted" in out and "blank" in out


def test_what_is_no_notebook_or_no_lecture(student, capsys):
    (student / "junk.ipynb").write_text("junk")
    assert main(["check", str(student / "junk.ipynb")]) == 2
    assert "no Jupyter notebook" in capsys.readouterr().err
    path = save(student, nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), "other.ipynb")
    assert main(["check", path]) == 2
    assert "--lecture" in capsys.readouterr().err
