"""`dgm grade` killed at any moment goes on where it was; `--regrade` says what changed, and people's marks stay."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbgrader.api import Gradebook

from autograder.cli import main
from autograder.gradebook import Book
from autograder.notebooks import CourseError, load_assignment
from autograder.release import release
from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT, NAME

ROOT = Path(__file__).resolve().parents[2]
WRONG = "def scale(x, factor):\n    return x, 0"
MARKS = {f"s{k:02}": (10, 7, 0)[k % 3] for k in range(9)}


@pytest.fixture
def classroom(tmp_path):
    """A course in which nine students have handed in: all right, one exercise wrong, blank."""
    course = tiny.make_course(tmp_path / "course")
    release(course, NAME)
    for k, student in enumerate(MARKS):
        answers = (ALL_RIGHT, {**ALL_RIGHT, "scale": WRONG}, {})[k % 3]
        tiny.hand_in(course, student, tiny.submission(course, answers))
    return course


def start(course, *more):
    """`dgm grade` of the whole class as a process of its own."""
    command = [sys.executable, "-m", "autograder.cli", "grade", NAME, "--workers", "2", "--json", "marks.json", *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=course, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def whole(course):
    """Checks that each submission in the gradebook has all its marks. Returns the number of those that are there."""
    path = course / "gradebook.db"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"student", "submitted_notebook", "grade", "dgm_graded"} <= tables:  # killed in its first second
            return 0
        students = db.execute("SELECT count(*) FROM student").fetchone()[0]
        marked = db.execute("SELECT count(*), count(auto_score) FROM grade GROUP BY notebook_id").fetchall()
        records = db.execute("SELECT count(*) FROM dgm_graded").fetchone()[0]
    assert all(cells == len(tiny.TESTS) + 1 == scores for cells, scores in marked), "a submission is half-written"
    assert students == len(marked) == records
    for notebook in course.glob("autograded/*/*/*.ipynb"):
        nbformat.validate(nbformat.read(notebook, as_version=4))
    return len(marked)


def kill_and_go_on(course, moments):
    """Kills the grading of the class at random moments, half of them close to a write."""
    rng, kept, full = random.Random(0), [], 4.0
    for k in range(moments):
        if whole(course) == len(MARKS):  # from the start again: a new gradebook, or new work for this one
            kept.append(0)
            (course / "gradebook.db").unlink()
        begun, process = time.monotonic(), start(course)
        if k % 2:
            for _ in range(rng.randrange(1, 4)):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
        else:
            time.sleep(rng.uniform(0, full))
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        full = max(full, time.monotonic() - begun)
        kept.append(whole(course))
        assert kept[-1] >= kept[-2] if len(kept) > 1 else True, "marks were lost"
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, "processes outlive a killed dgm grade"
    process = start(course)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    assert whole(course) == len(MARKS)
    students = json.loads((course / "marks.json").read_text())["students"]
    assert {student: result["score"] for student, result in students.items()} == MARKS
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        assert {s.student_id: s.score for s in book.assignment_submissions(NAME)} == MARKS
    assert max(kept) > 0, "no kill came after a mark"


def test_killed_at_any_moment_it_goes_on_where_it_was(classroom):
    kill_and_go_on(classroom, 4)


@pytest.mark.slow
def test_killed_at_fifty_moments(classroom):
    kill_and_go_on(classroom, 50)


def grade(course, *more):
    """`dgm grade` in this process: what it printed is for `capsys`; returns the students of the JSON."""
    out = course / "marks.json"
    assert main(["grade", NAME, "--course", str(course), "--workers", "1", "--json", str(out), *more]) == 0
    return json.loads(out.read_text())


def only(course, *students):
    """The words that restrict `dgm grade` to some students."""
    return [word for student in students for word in ("--student", student)]


def open_book(course):
    """nbgrader's gradebook of a course, wherever its configuration puts it."""
    book = Book(course, load_assignment(course, NAME))
    return Gradebook(book.db_url, book.course_id)


def change_tests(course, old, new, points=()):
    """Corrects the solution's test cells, and points (grade_id -> points), and releases it."""
    path = course / "solutions" / NAME / f"{NAME}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if meta.get("grade"):
            cell.source = cell.source.replace(old, new)
            meta["points"] = dict(points).get(meta["grade_id"], meta["points"])
    nbformat.write(notebook, path)
    release(course, NAME)


def regrade_story(course, capsys):
    """Grades, lets people mark, corrects a test and points, grades again."""
    three = only(course, "s00", "s01", "s02")
    first = grade(course, *three)
    with open_book(course) as book:
        book.find_grade("written_why", NAME, NAME, "s00").manual_score = 3
        book.find_grade("written_why", NAME, NAME, "s00").needs_manual_grade = False
        book.find_grade("slope_hidden", NAME, NAME, "s01").manual_score = 0.5
        book.find_grade("scale_visible", NAME, NAME, "s01").extra_credit = 0.25
        book.find_comment("scale", NAME, NAME, "s01").manual_comment = "Look at the factor."
        book.db.commit()
    capsys.readouterr()
    assert grade(course, *three) == first
    assert "0 graded" in (told := capsys.readouterr().out) and "3 as graded before" in told

    # The first test of scale wants too much: now any log-det will do. And the coupling is worth more.
    change_tests(course, "checks.equal(z, 2 * x", "checks.equal(z, x + 0 * x if float(z[0, 0]) == 1 else 2 * x",
                 {"coupling_visible": 5})  # fmt: skip
    change_tests(course, 'checks.equal(log_det, torch.full((2,), 2 * math.log(2)), "log_det")', "pass")
    grade(course, *three, "--regrade")
    lines = capsys.readouterr().out.splitlines()
    changed = [line for line in lines if " -> " in line]
    assert sorted(changed) == [
        "s00 coupling coupling_visible 2 -> 5 (of 5)",
        "s01 coupling coupling_visible 2 -> 5 (of 5)",
        "s01 scale scale_visible 0 -> 2 (of 2)",
    ]
    assert "of the marks given before, 3 changed, 24 stayed" in lines
    with open_book(course) as book:
        assert book.find_grade_cell("coupling_visible", NAME, NAME).max_score == 5
        written = book.find_grade("written_why", NAME, NAME, "s00")
        assert (written.manual_score, written.needs_manual_grade) == (3, False), "nothing new to read"
        assert book.find_submission(NAME, "s00").score == 16
        assert book.find_submission(NAME, "s01").score == 13 - 1 - 1 + 0.5 + 0.25

    # A new version is handed in: marks and comments that people gave stay, and are to be looked at again.
    tiny.hand_in(course, "s01", tiny.submission(course, {}))
    grade(course, *three)
    told = capsys.readouterr().out
    assert "1 graded" in told and "2 as graded before" in told and "s01 scale scale_visible 2 -> 0 (of 2)" in told
    with open_book(course) as book:
        slope = book.find_grade("slope_hidden", NAME, NAME, "s01")
        assert (slope.auto_score, slope.manual_score, slope.needs_manual_grade) == (0, 0.5, True)
        assert book.find_grade("scale_visible", NAME, NAME, "s01").extra_credit == 0.25
        assert book.find_comment("scale", NAME, NAME, "s01").comment == "Look at the factor."
        assert book.find_submission(NAME, "s01").score == 0.75


def test_regrading_tells_what_changed_and_peoples_marks_stay(classroom, capsys):
    regrade_story(classroom, capsys)


def test_cells_may_not_come_or_go_once_there_are_submissions(classroom):
    grade(classroom, *only(classroom, "s00"))
    path = classroom / "solutions" / NAME / f"{NAME}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") != "slope_hidden"]
    nbformat.write(notebook, path)
    release(classroom, NAME)
    with pytest.raises(CourseError, match="may not come or go"), Book(classroom, load_assignment(classroom, NAME)):
        pass


def test_one_writer_at_a_time(classroom):
    code = f"import fcntl, time; f = open({str(classroom / '.gradebook.lock')!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX)"
    code += "; print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CourseError, match="another dgm grade"), Book(classroom, load_assignment(classroom, NAME)):
            pass
        other.kill()
    with Book(classroom, load_assignment(classroom, NAME)):
        pass
