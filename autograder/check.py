"""`dgm check NOTEBOOK`: a student runs the visible tests of a lecture exactly as the grader will."""

import argparse
import re
import sys
from pathlib import Path

from autograder.notebooks import Assignment, CourseError, Unreadable, notebook_path, read_notebook, read_submission
from autograder.runner import Grader

CHECKOUT = Path(__file__).resolve().parents[1]


def main(argv):
    """Checks one notebook. Returns 0 if every visible test passes."""
    parser = argparse.ArgumentParser(prog="dgm check", description="Run a lecture's visible tests as the grader will.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--lecture", metavar="NAME", help="which lecture it is, if its name does not say so")
    args = parser.parse_args(argv)
    try:
        notebook, _ = read_submission(args.notebook)
        released = find_release(args.notebook, notebook, args.lecture)
        return show(check(args.notebook, released))
    except (Unreadable, CourseError) as error:
        print(f"dgm check: {error}", file=sys.stderr)
        return 2


def find_release(path, notebook, name=None):
    """Path of the release that a notebook belongs to.

    The lecture's name comes from `name`, from the line that its set-up cell starts with, or from the file's name. Its
    release is looked for in the folders around the notebook, then in this checkout: in `.release/` of a student
    repository, where `lectures/` holds the student's work, else in `lectures/`.
    """
    texts = [cell["source"] for cell in notebook["cells"]]
    stamps = [found[1] for text in texts if (found := re.match(r"# dgm-course \S+, (\w+)$", text, re.MULTILINE))]
    for candidate in [name] if name else [*stamps, path.stem]:
        for folder in (*path.resolve().parents, CHECKOUT):
            for step in (".release", "lectures"):
                if (released := notebook_path(folder, step, candidate)).is_file():
                    return released
    raise CourseError(f"cannot tell which lecture {path.name} is; say it with --lecture NAME")


def check(path, released):
    """Grades a notebook by the visible tests of its release. Returns the student's part of the grader's JSON."""
    release = read_notebook(released)
    assignment = Assignment(released.stem, release, release)  # without hidden tests, the release is all that is needed
    for name, tests in assignment.exercises.items():
        assignment.exercises[name] = [test for test in tests if not test.hidden]
    with Grader(assignment) as grader:
        return grader.grade_file(path)[0]


def show(result):
    """Prints a line for each exercise, and the cause of what is wrong. Returns the exit status."""
    exercises = {name: e for name, e in result["exercises"].items() if e["outcome"] != "manual"}
    width = max(map(len, exercises))
    for name, exercise in exercises.items():
        print(f"{name:<{width}}  {exercise['score']:g} of {exercise['max_score']:g}  {exercise['outcome']}")
        if exercise["outcome"] not in ("passed", "blank"):
            print("".join(f"    {line}\n" for line in exercise["message"].splitlines()), end="")
    for repair in result["repairs"]:
        print(f"put right: {repair}")
    total = f"{result['score']:g} of {result['max_score']:g}"
    print(f"{'visible points':<{width}}  {total}; hidden tests come with grading")
    return 0 if all(exercise["outcome"] == "passed" for exercise in exercises.values()) else 1
