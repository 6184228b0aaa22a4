"""Marks arrive in nbgrader's own books, and what people wrote there stays."""

import csv

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from sqlalchemy import event

from autograder.gradebook import Book
from autograder.notebooks import load_assignment
from autograder.release import course_config, release
from autograder.runner import Grader
from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT, NAME


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A course with three graded students: ada has all right, bo a mistake and an essay, cy handed in junk."""
    course = tiny.make_course(tmp_path_factory.mktemp("marked"))
    release(course, NAME)
    essay = tiny.submission(course, {**ALL_RIGHT, "scale": "def scale(x, factor):\n    return x, 0"})
    for cell in essay.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "written_why":
            cell.source = "Because of the chain rule."
    paths = {
        "ada": tiny.hand_in(course, "ada", tiny.submission(course, ALL_RIGHT)),
        "bo": tiny.hand_in(course, "bo", essay),
        "cy": tiny.hand_in(course, "cy", b"junk"),
    }
    (paths["bo"].parent / "timestamp.txt").write_text("2030-01-02 03:04:05 UTC")
    assignment = load_assignment(course, NAME)
    with Grader(assignment) as grader, Book(course, assignment) as book:
        graded = list(grader.grade(paths))
        for student, result, cells in graded:
            book.write(student, result, cells)
        book.export(course / "gradebook.csv")
    return course, assignment, graded


def grades(course, student):
    """grade_id -> the gradebook's row."""
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        found = book.find_submission_notebook(NAME, NAME, student)
        return {g.name: (g.auto_score, g.manual_score, g.max_score, g.needs_manual_grade) for g in found.grades}


def test_the_gradebook_has_every_cells_score(marked):
    course, _, _ = marked
    ada, bo, cy = (grades(course, student) for student in ("ada", "bo", "cy"))
    assert ada["scale_visible"] == (2, None, 2, False) and bo["scale_visible"] == (0, None, 2, False)
    assert ada["written_why"] == (0, None, 4, False), "an essay that was not written needs nobody to read it"
    assert bo["written_why"] == (None, None, 4, True)
    assert {row[0] for row in cy.values()} == {0}
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        assert book.find_submission(NAME, "bo").timestamp.isoformat() == "2030-01-02T03:04:05"


def test_the_table_of_marks(marked):
    course, _, _ = marked
    with open(course / "gradebook.csv") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert (rows["ada"]["score"], rows["ada"]["max_score"], rows["ada"]["to_mark"]) == ("10.0", "14.0", "no")
    assert (rows["bo"]["score"], rows["bo"]["to_mark"]) == ("7.0", "yes")


def test_people_s_marks_and_comments_stay_when_grading_again(marked):
    course, assignment, graded = marked
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        book.find_grade("written_why", NAME, NAME, "bo").manual_score = 3
        book.find_grade("scale_visible", NAME, NAME, "bo").extra_credit = 0.5
        book.find_comment("written_why", NAME, NAME, "bo").manual_comment = "Nice."
        book.db.commit()
    with Book(course, assignment) as book:
        for student, result, cells in graded:
            book.write(student, result, cells)
    assert grades(course, "bo")["written_why"][1] == 3
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        assert book.find_grade("scale_visible", NAME, NAME, "bo").extra_credit == 0.5
        assert book.find_comment("written_why", NAME, NAME, "bo").comment == "Nice."
        assert book.find_submission(NAME, "bo").score == 10.5


def test_autograded_notebooks_are_whole(marked):
    course, assignment, _ = marked
    for student in ("ada", "bo", "cy"):
        notebook = nbformat.read(course / "autograded" / student / NAME / f"{NAME}.ipynb", as_version=4)
        nbformat.validate(notebook)
        ids = [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "nbgrader" in cell.metadata]
        assert sorted(ids) == sorted(assignment.released)


def test_a_submission_is_written_whole_or_not_at_all(marked, tmp_path):
    course, assignment, graded = marked
    _, result, cells = graded[0]
    broken = {**result, "exercises": {**result["exercises"], "none": {"cells": {"none": {"score": 1}}}}}
    with Book(course, assignment) as book, pytest.raises(KeyError):
        book.write("dee", broken, cells)
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        assert "dee" not in {student.id for student in book.students}

    commits = []
    with Book(course, assignment) as book:
        event.listen(book.gradebook.engine, "commit", lambda connection: commits.append(connection))
        book.write("eve", result, cells)
    assert len(commits) == 1
    assert grades(course, "eve")["scale_visible"][0] == 2


def test_nbgraders_own_view_of_the_course(marked):
    """What formgrader asks: an exchange that works, the assignment, its submissions, and that all are graded."""
    course, _, _ = marked
    api = NbGraderAPI(config=course_config(course))
    assert api.course_id == "dgm" and api.exchange_is_functional
    (assignment,) = api.get_assignments()
    assert (assignment["name"], assignment["num_submissions"], assignment["max_score"]) == (NAME, 3, 14)
    assert assignment["release_path"] == f"lectures/{NAME}"
    assert api.get_autograded_students(NAME) >= {"ada", "bo", "cy"}
