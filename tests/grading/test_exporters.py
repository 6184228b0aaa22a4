"""Marks leave as the tables that Canvas and Moodle import, less late penalties."""

import csv
import subprocess
import sys
from datetime import datetime

import pytest
from nbgrader.api import Gradebook
from traitlets.config import Config

from autograder.gradebook import Book
from autograder.late import DailyPenalty
from autograder.notebooks import load_assignment
from autograder.release import release
from autograder.runner import Grader
from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT, NAME

LATE = 'c.AssignLatePenalties.plugin_class = "autograder.late.DailyPenalty"\nc.DailyPenalty.per_day = 0.2\n'


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """ada was in time, bo two days late, cy has handed in nothing and has an evil name."""
    course = tiny.make_course(tmp_path_factory.mktemp("exported"))
    with open(course / "nbgrader_config.py", "a") as file:
        file.write(LATE)
    release(course, NAME)
    assignment, url = load_assignment(course, NAME), f"sqlite:///{course}/gradebook.db"
    paths = {name: tiny.hand_in(course, name, tiny.submission(course, ALL_RIGHT)) for name in ("ada", "bo")}
    (paths["ada"].parent / "timestamp.txt").write_text("2030-01-01 11:00:00 UTC")
    (paths["bo"].parent / "timestamp.txt").write_text("2030-01-03 11:00:00 UTC")
    with Book(course, assignment), Gradebook(url) as book:
        book.update_or_create_assignment(NAME, duedate=datetime(2030, 1, 1, 12))
        book.add_student("ada", first_name="Ada", last_name="Lovelace", email="ada@example.org", lms_user_id="77")
        book.add_student("cy", first_name="=HYPERLINK(1)", last_name="+1")
    with Grader(assignment) as grader, Book(course, assignment) as book:
        for student, result, cells in grader.grade(paths):
            book.write(student, result, cells)
    return course


def export(course, kind, *more):
    command = [sys.executable, "-m", "nbgrader", "export", f"--exporter=autograder.exporters.{kind}", "--to=out.csv"]
    done = subprocess.run([*command, *more], cwd=course, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(csv.reader((course / "out.csv").open(encoding="utf-8")))


def test_canvas(course):
    head, possible, ada, bo, cy = export(course, "CanvasExporter")
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", NAME]
    assert possible[0].strip() == "Points Possible" and possible[5] == "14"
    assert ada == ["Lovelace, Ada", "77", "ada", "ada@example.org", "", "10"]
    assert bo == ["bo", "", "bo", "bo", "", "6"], "two days begun at 20 % each"
    assert cy[0].startswith("'+1") and cy[5] == ""


def test_moodle_of_one_student(course):
    head, cy = export(course, "MoodleExporter", '--student=["cy"]')
    assert head == ["ID number", "First name", "Last name", "Email address", NAME]
    assert cy == ["cy", "'=HYPERLINK(1)", "'+1", "", "-"]


@pytest.mark.parametrize(
    ("seconds", "penalty"), [(0, None), (600, None), (601, 1), (86_400, 1), (86_400 + 601, 2), (10**8, 5)]
)
def test_penalty(seconds, penalty):
    plugin = DailyPenalty(config=Config({"DailyPenalty": {"per_day": 0.1}}))
    assert plugin.late_submission_penalty("ada", 10.0, seconds) == penalty
