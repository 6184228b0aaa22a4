"""Releases hold no answer and no hidden test, are the same each time, and leave nothing else behind."""

import shutil
from pathlib import Path

import nbformat
import pytest

from autograder.notebooks import CourseError, grade_id
from autograder.release import leaks, release
from dgm_course import __version__
from tests.grading import tiny

ROOT = Path(__file__).resolve().parents[2]


def files(folder):
    """Relative paths of all files."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def sources(path):
    """grade_id -> source of the released cells."""
    return {grade_id(cell): cell.source for cell in nbformat.read(path, as_version=4).cells}


def test_a_release_is_the_solution_without_answers(course):
    released = sources(course / "lectures" / tiny.NAME / f"{tiny.NAME}.ipynb")
    assert released["scale"] == "def scale(x, factor):\n    raise NotImplementedError()"
    assert released["scale_visible"] == tiny.TESTS["scale_visible"]
    assert released["scale_hidden"] == "# Other shapes and a negative factor."
    assert released["written_why"] == "*Write your answer here.*"
    assert released["setup"].splitlines()[0] == f"# dgm-course {__version__}, {tiny.NAME}"
    assert leaks(course) == []


def test_the_same_solution_gives_the_same_bytes_and_no_other_file(tmp_path):
    tiny.make_course(tmp_path)
    before = files(tmp_path)
    path = release(tmp_path, tiny.NAME)
    first = path.read_bytes()
    assert files(tmp_path) - before == {f"lectures/{tiny.NAME}/{tiny.NAME}.ipynb"}
    assert release(tmp_path, tiny.NAME).read_bytes() == first


def test_outputs_editor_metadata_and_text_twins_stay_behind(tmp_path):
    tiny.make_course(tmp_path)
    path = tmp_path / "solutions" / tiny.NAME / f"{tiny.NAME}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["language_info"] = {"name": "python", "version": "3.0"}
    notebook.metadata["widgets"] = {"state": {}}
    for cell in notebook.cells:
        cell.metadata["collapsed"] = cell.metadata["execution"] = {"iopub.execute_input": "2020"}
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="private")]
    notebook.cells[1].execution_count = 7
    nbformat.write(notebook, path)
    path.with_suffix(".py").write_text("the answers")
    path.with_name("picture.svg").write_text("<svg/>")
    text = release(tmp_path, tiny.NAME).read_text()
    for word in ("language_info", "widgets", "collapsed", "iopub", "private", '"execution_count": 7'):
        assert word not in text
    assert files(tmp_path / "lectures") == {f"{tiny.NAME}/{tiny.NAME}.ipynb", f"{tiny.NAME}/picture.svg"}


@pytest.mark.parametrize(
    ("leaked", "where"),
    [
        (
            "x1, x2  = x.chunk(2, dim=1)\nshifted = x2+net(x1)\n\nreturn torch.cat([x1, shifted], dim=1)",
            "cell coupling:",
        ),
        (
            'checks.equal(flow.inverse(torch.zeros(3, 2)), torch.tensor([[-2.0, 3.0]] * 3), "x")',
            "make_flow_hidden:",
        ),
    ],
)
def test_a_leak_is_found_wherever_it_stands(course, tmp_path, leaked, where):
    tiny.make_course(tmp_path)
    release(tmp_path, tiny.NAME)
    assert leaks(tmp_path) == []
    other = tmp_path / "lectures" / "02_other" / "02_other.ipynb"
    other.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"Look:\n{leaked}\n")]), other)
    found = leaks(tmp_path)
    assert len(found) == 1 and where in found[0] and "02_other.ipynb" in found[0]


def test_two_lines_in_a_row_are_no_leak_but_telling_ones_of_a_hidden_test_are(tmp_path):
    tiny.make_course(tmp_path)
    other = tmp_path / "lectures" / "02_other" / "02_other.ipynb"
    other.parent.mkdir(parents=True)
    text = "x1, x2 = x.chunk(2, dim=1)\nshifted = x2 + net(x1)\nlayer = checks.wrap(coupling)"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text)]), other)
    assert leaks(tmp_path) == []


def test_an_unknown_assignment_names_those_that_exist(course):
    with pytest.raises(CourseError, match=tiny.NAME):
        release(course, "99_none")


@pytest.mark.parametrize("path", sorted(ROOT.glob("solutions/*/*.ipynb")), ids=lambda path: path.stem)
def test_lectures_are_up_to_date(path, tmp_path):
    """Run `make release` if this fails."""
    shutil.copytree(path.parent, tmp_path / "solutions" / path.stem)
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    made = release(tmp_path, path.stem).read_bytes()
    assert (ROOT / "lectures" / path.stem / path.name).read_bytes() == made


def test_no_lecture_holds_an_answer():
    assert leaks(ROOT) == []
