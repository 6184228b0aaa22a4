"""A tiny course, released once for all tests of a worker, and a warm grader for it."""

import pytest

from autograder.notebooks import load_assignment
from autograder.release import release
from autograder.runner import Grader, Limits
from tests.grading import tiny

LIMITS = Limits(exercise_seconds=2, cell_seconds=2, reply_bytes=1 << 20)


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A course folder with the release of the tiny assignment."""
    folder = tiny.make_course(tmp_path_factory.mktemp("course"))
    release(folder, tiny.NAME)
    return folder


@pytest.fixture(scope="session")
def grader(course):
    """A grader of the tiny assignment, with small limits."""
    with Grader(load_assignment(course, tiny.NAME), LIMITS) as made:
        yield made


@pytest.fixture
def grade(course, grader):
    """Grades answers (exercise -> source, or "right") in this process; returns the student's part of the JSON."""

    def run(answers, **extra):
        notebook = tiny.submission(course, answers, **extra)
        return grader.grade_file(tiny.hand_in(course, "somebody", notebook))[0]

    return run
