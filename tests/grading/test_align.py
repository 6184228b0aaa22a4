"""Damage that honest students and their editors do: every point stays, and the report says what was put right."""

import json
import random
import zipfile

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT

BLANK_COUPLING = "def coupling(x, net):\n    raise NotImplementedError()"


def key_of(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def find(notebook, key):
    return next(i for i, cell in enumerate(notebook.cells) if key_of(cell) == key)


def strip(notebook, ids=True):
    """What an editor that knows nothing of nbgrader leaves."""
    for number, cell in enumerate(notebook.cells):
        cell.metadata = {}
        if ids:
            cell.id = f"new-{number}"


def colab(notebook):
    """Colab keeps ids in the metadata and writes nbformat 4.0."""
    for cell in notebook.cells:
        cell.metadata = {"id": cell.pop("id"), "colab": {"base_uri": "https://example.org/"}}
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    notebook.update(nbformat_minor=0)


def move_answer_to_the_end(notebook):
    notebook.cells.append(notebook.cells.pop(find(notebook, "scale")))


def double_answer(notebook):
    """A copy below with the work, the first one left as it was."""
    place = find(notebook, "coupling")
    copy = new_code_cell(notebook.cells[place].source, metadata=dict(notebook.cells[place].metadata))
    notebook.cells[place].source = BLANK_COUPLING
    notebook.cells.insert(place + 1, copy)


def stub_below_the_work(notebook):
    """A copy of the blank cell, as somebody makes who starts anew and then does not."""
    place = find(notebook, "coupling")
    copy = new_code_cell(BLANK_COUPLING, metadata=dict(notebook.cells[place].metadata))
    notebook.cells.insert(place + 1, copy)


def merge_answers(notebook):
    first, second = find(notebook, "scale"), find(notebook, "coupling")
    notebook.cells[first].source += "\n\n" + notebook.cells[second].source
    del notebook.cells[second]


def split_answer(notebook):
    place = find(notebook, "make_flow")
    lines = notebook.cells[place].source.splitlines()
    notebook.cells[place].source = "\n".join(lines[:1])
    notebook.cells.insert(place + 1, new_code_cell("\n".join(lines[1:])))


def stripped_and_split(notebook):
    strip(notebook)
    place = next(i for i, cell in enumerate(notebook.cells) if cell.source.startswith("def slope"))
    lines = notebook.cells[place].source.splitlines()
    notebook.cells[place].source = "import torch  # my answer"
    notebook.cells.insert(place + 1, new_code_cell("\n".join(lines)))


def turn_into_markdown(notebook):
    cell = notebook.cells[find(notebook, "slope")]
    cell.cell_type = "markdown"
    for field in ("outputs", "execution_count"):
        cell.pop(field, None)


def delete_tests_and_setup(notebook):
    notebook.cells = [c for c in notebook.cells if key_of(c) not in ("setup", "scale_visible", "scale_hidden")]


def edit_setup(notebook):
    notebook.cells[find(notebook, "setup")].source = "import math"


def windows_lines(notebook):
    for cell in notebook.cells:
        cell.source = cell.source.replace("\n", "\r\n")


def nul_characters(notebook):
    notebook.cells[find(notebook, "scale")].source += "\n\0"


def odd_metadata(notebook):
    for cell in notebook.cells:
        cell.metadata = {"nbgrader": "lost", "tags": "none"}


def broken_points(notebook):
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.points = 100


DAMAGE = {
    "metadata stripped, ids kept": (lambda nb: strip(nb, ids=False), "recognised by the cell's id"),
    "metadata and ids stripped": (strip, "recognised by what it defines (scale)"),
    "Colab": (colab, "recognised by the cell's id"),
    "answer moved below its tests": (move_answer_to_the_end, "stands below its tests"),
    "answer doubled, work in the copy": (double_answer, "there were copies"),
    "a blank copy below the work": (stub_below_the_work, None),
    "two answers merged": (merge_answers, "the cell coupling is missing"),
    "answer split in two": (split_answer, "split over 2 cells"),
    "stripped, and an answer in two cells": (stripped_and_split, "recognised by what it defines (slope)"),
    "answer turned into markdown": (turn_into_markdown, "it was a markdown cell"),
    "tests and set-up deleted": (delete_tests_and_setup, "put back the deleted cell setup"),
    "set-up edited": (edit_setup, "setup: the text was changed"),
    "Windows line ends": (windows_lines, None),
    "NUL characters": (nul_characters, None),
    "odd metadata": (odd_metadata, "recognised by"),
    "points changed": (broken_points, None),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_costs_nothing(name, course, grader):
    damage, report = DAMAGE[name]
    notebook = tiny.submission(course, ALL_RIGHT)
    damage(notebook)
    result = grader.grade_file(tiny.hand_in(course, "damaged", json.dumps(notebook)))[0]
    assert (result["score"], result["max_score"]) == (10, 10), result
    assert report is None or any(report in line for line in result["repairs"]), result["repairs"]


def test_demonstrations_stay_skipped_without_their_tag(course, grader):
    notebook = tiny.submission(course, ALL_RIGHT)
    strip(notebook)
    _, cells = grader.grade_file(tiny.hand_in(course, "stripped", notebook))
    demonstration = next(cell for cell in cells if "SystemError" in cell["source"])
    assert demonstration["metadata"]["tags"] == ["skip-execution"]


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_never_loses_a_point(seed, course, grader):
    """As long as the text of each answer is there, in whatever place and with whatever metadata."""
    rng = random.Random(seed)
    notebook = tiny.submission(course, ALL_RIGHT)
    for _ in range(rng.randint(2, 6)):
        kind, place = rng.randrange(5), rng.randrange(len(notebook.cells))
        cell = notebook.cells[place]
        if kind == 0:
            cell.metadata = {}
        elif kind == 1:
            cell.id = f"other-{rng.random()}"
        elif kind == 2:
            notebook.cells.insert(rng.randrange(len(notebook.cells)), notebook.cells.pop(place))
        elif kind == 3 and key_of(cell) not in ALL_RIGHT:
            del notebook.cells[place]
        elif kind == 4:
            notebook.cells.insert(place, new_code_cell(f"mine_{seed} = {rng.random()}"))
    result = grader.grade_file(tiny.hand_in(course, "random", json.dumps(notebook)))[0]
    assert result["score"] == 10, result


def folder_of(course, student):
    folder = course / "submitted" / student / tiny.NAME
    folder.mkdir(parents=True)
    return folder


def test_other_names_and_zips(course, grader):
    notebook = nbformat.writes(tiny.submission(course, ALL_RIGHT))
    renamed = folder_of(course, "renamed")
    (renamed / "tiny (2).ipynb").write_text("\ufeff" + notebook, encoding="utf-8")
    result = grader.grade_file(renamed / f"{tiny.NAME}.ipynb")[0]
    assert result["score"] == 10 and result["repairs"] == ["the file is named tiny (2).ipynb, not 01_tiny.ipynb"]
    zipped = folder_of(course, "zipped")
    with zipfile.ZipFile(zipped / "upload.zip", "w") as archive:
        archive.writestr("me/work.ipynb", notebook)
        archive.writestr("__MACOSX/me/._work.ipynb", "junk")
    result = grader.grade_file(zipped / f"{tiny.NAME}.ipynb")[0]
    assert result["score"] == 10 and result["repairs"] == ["the notebook was in upload.zip"]


def test_what_cannot_be_read_says_why(course, grader):
    two = folder_of(course, "two")
    for name in ("a.ipynb", "b.ipynb"):
        (two / name).write_text("{}")
    bad_zip = folder_of(course, "bad_zip")
    (bad_zip / "upload.zip").write_bytes(b"PK nonsense")
    link = folder_of(course, "link")
    (link / f"{tiny.NAME}.ipynb").symlink_to("/etc/passwd")
    for folder, words in [(two, "more than one other notebook"), (bad_zip, "cannot be opened"), (link, "is a link")]:
        result = grader.grade_file(folder / f"{tiny.NAME}.ipynb")[0]
        outcomes = {cell["outcome"] for e in result["exercises"].values() for cell in e["cells"].values()}
        assert outcomes == {"unreadable", "manual"}
        assert words in result["exercises"]["scale"]["message"]
