"""Stock `nbgrader autograde`, with the course's own configuration, repairs notebooks and runs answers apart."""

import json
import os
import subprocess
import sys
from pathlib import Path

from nbgrader.api import Gradebook

from autograder.notebooks import load_assignment
from autograder.release import environment_on_path
from autograder.runner import Grader
from tests.grading import tiny
from tests.grading.test_align import DAMAGE
from tests.grading.tiny import ALL_RIGHT, NAME, right_answer

ROOT = Path(__file__).resolve().parents[2]
REFUSED = "odd metadata"  # nbgrader itself checks the form of a file before its first step
ANSWERS = {
    "blank": {},
    "right": ALL_RIGHT,
    "warns": ALL_RIGHT | {"scale": "import warnings\nwarnings.warn('x')\n" + right_answer("scale")},
    "dies": ALL_RIGHT | {"scale": "import os\nos._exit(1)"},
    "wrong": ALL_RIGHT | {"coupling": right_answer("coupling").replace("+ net", "- net")},
}


def nbgrader(course, *command):
    """Runs one of nbgrader's commands; it must end well."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "nbgrader", *command], cwd=course, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-4000:]


def test_same_marks_as_the_split_grader(tmp_path):
    course = tiny.make_course(tmp_path)
    with environment_on_path():
        nbgrader(course, "generate_assignment", NAME)
        paths = {name: tiny.hand_in(course, name, tiny.submission(course, a)) for name, a in ANSWERS.items()}
        for number, (name, (damage, _)) in enumerate(DAMAGE.items()):
            if name != REFUSED:
                notebook = tiny.submission(course, ALL_RIGHT)
                damage(notebook)
                paths[f"damaged{number}"] = tiny.hand_in(course, f"damaged{number}", json.dumps(notebook))
        nbgrader(course, "autograde", NAME)
        nbgrader(course, "generate_feedback", NAME)
        nbgrader(course, "validate", f"lectures/{NAME}/{NAME}.ipynb")
        book = Gradebook(f"sqlite:///{course}/gradebook.db")
    with book:
        stock = {}
        for student in paths:
            grades = book.find_submission_notebook(NAME, NAME, student).grades
            stock[student] = {grade.name: grade.auto_score for grade in grades if grade.name in tiny.TESTS}
    with Grader(load_assignment(course, NAME)) as grader:
        graded = {student: result for student, result, _ in grader.grade(paths)}
    split = {
        student: {key: c["score"] for e in result["exercises"].values() for key, c in e["cells"].items()}
        for student, result in graded.items()
    }
    assert stock == {student: {k: v for k, v in s.items() if k in tiny.TESTS} for student, s in split.items()}
    full = {student for student, result in graded.items() if result["score"] == 10}
    assert full == paths.keys() - {"blank", "dies", "wrong"}
    assert all((course / "feedback" / student / NAME / f"{NAME}.html").is_file() for student in paths)
