"""`dgm demo`: a lecture's whole life, with a class of eight made from the right and wrong answers of the tests."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from autograder import feedback, report
from autograder.gradebook import Book
from autograder.notebooks import CourseError, grade_id, load_assignment, notebook_path
from autograder.release import release

MARKER = ".made-by-dgm-demo"
NOISE = """\
import warnings

warnings.warn("this warning costs nothing")
print("neither do many lines\\n" * 1000)
plt.plot([1, 2, 3])
plt.show()"""
CRASH = """\
import os

print("this cell ends the process")
os._exit(1)"""


def demo(course, name=None):
    """Releases, hands in, grades, and shows the marks. Returns the exit status."""
    started = time.monotonic()
    sys.path.insert(0, str(course))  # the variants are among the tests
    from tests.grading import variants

    lists = sorted(path for path in (course / "tests" / "mutants").glob("*.py") if path.stem[0].isdigit())
    found = [path for path in lists if name in (None, path.stem)]
    if not found:
        raise CourseError(f"no tests/mutants/{name or '*'}.py in {course}: the demo makes its class from these answers")
    name, folder = found[0].stem, fresh_folder(course / "demo")
    shutil.copytree(course / "solutions" / name, folder / "solutions" / name)
    shutil.copy(course / "nbgrader_config.py", folder)
    say(f"1. release: solutions/{name} -> lectures/{name}, without answers and hidden tests")
    released = nbformat.read(release(folder, name), as_version=4)
    assignment = load_assignment(folder, name)

    say("2. a class of eight hands in")
    notebooks, about = make_class(assignment, released, variants.load(found[0]), variants, folder)
    for student, notebook in notebooks.items():
        path = notebook_path(folder, "submitted", name, student)
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        print(f"   {student:<9} {about[student]}")

    say("3. grading: the tests run in one process, the answers in another")
    command = [sys.executable, "-m", "autograder.cli", "grade", name, "--json", "marks.json", "--workers", "2"]
    done = subprocess.run(command, cwd=folder)
    if done.returncode:
        return done.returncode
    with Book(folder, assignment) as book:
        book.export(folder / "gradebook.csv")

    say("4. a page of feedback for every student, and a report on the class")
    feedback.write_pages(folder, assignment)
    report.write_page(folder, assignment)
    print_marks(json.loads((folder / "marks.json").read_text()))
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    print(f"\nDone in {time.monotonic() - started:.0f} s. Look at")
    for path, text in (
        (f"lectures/{name}/{name}.ipynb", "what students get"),
        ("gradebook.csv", "the marks; written answers wait for a person"),
        ("marks.json", "outcome and message of every cell"),
        (f"feedback/dmitri/{name}/{name}.html", "feedback; there is a page for each student"),
        (f"report/{name}.html", "the class at a glance"),
    ):
        print(f"  {shown / path}  {text}")
    print(f"and, for nbgrader's formgrader on these files:  cd {shown} && jupyter lab")
    return 0


def say(text):
    """A heading."""
    print(f"\n{text}", flush=True)


def fresh_folder(folder):
    """An empty work folder. One that something else has made is left alone."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise CourseError(f"{folder} was not made by dgm demo, so it stays as it is: move it away")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARKER).touch()
    return folder


def make_class(assignment, released, listed, variants, course):
    """Eight notebooks: student -> notebook, and student -> what is in it."""
    solutions = variants.solution_cells(course, assignment.name)
    exercises = list(assignment.exercises)
    reference = {name: variants.without_markers(solutions[name]) for name in exercises}

    def variant(name, k, right=False):
        found = [v for v in listed if v.exercise == name and bool(v.loses) != right]
        return found[k % len(found)].cell_source(solutions[name]) if found else reference[name]

    def notebook(sources, before=None):
        made = variants.fill_in(released, sources)
        at = next(i for i, cell in enumerate(made.cells) if grade_id(cell) == exercises[1 % len(exercises)])
        made.cells[at:at] = [new_code_cell(before)] if before else []
        return made

    half = len(exercises) // 2
    unusual = {name: variant(name, 0, right=True) for name in exercises}
    first_wrong = {name: variant(name, 0) for name in exercises}
    mixed = {name: variant(name, k) if k % 2 else reference[name] for k, name in enumerate(exercises)}
    slips = reference | {name: variant(name, 1) for name in exercises[-2:]}
    begun = {name: reference[name] for name in exercises[:half]} | {exercises[half]: first_wrong[exercises[half]]}
    return {
        "ada": notebook(reference),
        "bruno": notebook({}),
        "carla": notebook(unusual),
        "dmitri": notebook(mixed),
        "esi": notebook(slips),
        "farid": notebook(reference, before=CRASH),
        "grete": notebook(unusual, before=NOISE),
        "hiro": notebook(begun),
    }, {
        "ada": "everything right, as in the solution",
        "bruno": "the notebook as it was released",
        "carla": "everything right, in unusual ways",
        "dmitri": "a mistake in every second exercise",
        "esi": "a mistake in each of the last two exercises",
        "farid": "everything right, and a cell that kills the process",
        "grete": "everything right, with warnings, a flood of prints, and a plot",
        "hiro": "the first half right, then a mistake, the rest not begun",
    }


def print_marks(report):
    """A table of marks, a column for each exercise, and the commonest mistakes."""
    students = report["students"]
    exercises = [k for k, e in next(iter(students.values()))["exercises"].items() if e["outcome"] != "manual"]
    widths = [max(len(name), 10) for name in exercises]
    print("\n" + " " * 10 + "points  " + "  ".join(f"{name:<{w}}" for name, w in zip(exercises, widths, strict=True)))
    for student, result in students.items():
        marks = [f"{result['exercises'][name]['score']:g} {result['exercises'][name]['outcome']}" for name in exercises]
        row = "  ".join(f"{mark:<{w}}" for mark, w in zip(marks, widths, strict=True))
        print(f"{student:<9} {result['score']:>3g}/{result['max_score']:<3g} {row}".rstrip())
    mistakes = Counter()
    for result in students.values():
        for name in exercises:
            exercise = result["exercises"][name]
            if exercise["outcome"] not in ("passed", "blank"):
                text = exercise["message"].splitlines()
                cause = re.search(r"usual cause: (.*)", exercise["message"])
                mistakes[f"{name}: {text[0]}" + (f" ({cause[1]})" if cause else "")] += 1
    print("\nCommonest mistakes")
    for text, count in mistakes.most_common(6):
        print(f"  {count} x {text}")
