"""Grading a class on lecture 06: `dgm grade` with two workers against stock `nbgrader autograde`, in turns.

The class is made of right answers and of those in tests/mutants. Stock nbgrader is the nbgrader that is installed, with
folder names and a time limit as its only configuration, one submission after the other as it works. It grades a
handful; its time for the class is extrapolated. `python -m benchmarks.grading 4` is for a class of four.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import psutil
import torch

from autograder.cli import cores
from autograder.notebooks import load_assignment, notebook_path
from autograder.processes import Answers, keep_to_core
from autograder.release import release
from autograder.runner import Grader, settings
from autograder.wire import Closed, Line, Peer
from benchmarks.timing import RESULTS, machine
from tests.grading import variants

ROOT, NAME = Path(__file__).parents[1], "06_coupling_flows"
FOLDERS = re.compile(r"^c\.CourseDirectory\.(root|source_directory|release_directory|ignore|course_id)")


def make_class(folder, students):
    """A course folder with lecture 06, in which the class has handed in. Returns the names of the students."""
    shutil.copytree(ROOT / "solutions" / NAME, folder / "solutions" / NAME)
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    released = nbformat.read(release(folder, NAME), as_version=4)
    solutions = variants.solution_cells(folder, NAME)
    exercises = list(load_assignment(folder, NAME).exercises)
    listed = variants.load(ROOT / "tests" / "mutants" / f"{NAME}.py")
    packed = [notebook for notebook, _ in variants.pack(listed, released, solutions, exercises)]
    right = variants.fill_in(released, {name: variants.without_markers(solutions[name]) for name in exercises})
    names = [f"s{k:03}" for k in range(students)]
    for k, student in enumerate(names):  # two in three have all right
        path = notebook_path(folder, "submitted", NAME, student)
        path.parent.mkdir(parents=True)
        nbformat.write(packed[k // 3 % len(packed)] if k % 3 == 2 else right, path)
    return names


def make_stock(folder, course):
    """A second course folder with the same files, for stock nbgrader: of the configuration, folders alone stay."""
    shutil.copytree(course, folder)
    config = folder / "nbgrader_config.py"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("c.") or FOLDERS.match(line)]
    head = "\n".join(lines).split("# `nbgrader autograde`")[0]
    config.write_text(head + "\nc.ExecutePreprocessor.timeout = 120\n")
    nbgrader(folder, "generate_assignment", NAME, "--force")
    return folder


def nbgrader(folder, *argv):
    """Runs stock nbgrader in a course folder."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "nbgrader", *argv]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nbgrader {' '.join(argv)} failed:\n{done.stderr[-2000:]}")


class Memory(threading.Thread):
    """Watches the memory of all processes that come from this one, and keeps the peak.

    Counted is the proportional set size, in which a page that n processes share counts 1/n for each.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.done = 0, threading.Event()

    def run(self):
        while not self.done.wait(0.2):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.done.set()
        self.join()


def timed(run, *args):
    """Seconds and peak bytes of a call that starts processes."""
    begun = time.perf_counter()
    with Memory() as memory:
        run(*args)
    return time.perf_counter() - begun, memory.peak


def dgm_grade(course):
    """Grades the class."""
    command = [
        sys.executable,
        "-m",
        "autograder.cli",
        "grade",
        NAME,
        "--workers",
        "2",
        "--regrade",
        "--course",
        str(course),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"dgm grade failed:\n{done.stderr[-2000:]}")


def beyond_own_cells(course, students):
    """Milliseconds of grading beyond those in which the student's own cells run, for each submission but the first.

    One after the other in this process, which keeps to one core as a worker does. What the tests take, the calls of the
    student's functions too, counts.
    """
    own, run = [], Answers._run

    def watched(self, source):
        begun = time.perf_counter()
        try:
            return run(self, source)
        finally:
            own.append(time.perf_counter() - begun)

    limits, level = settings(course, NAME)
    found, Answers._run, cores = [], watched, os.sched_getaffinity(0)
    try:
        with Grader(load_assignment(course, NAME), limits, level=level, course=course) as grader:
            keep_to_core(1, len(cores))
            for student in students:
                own.clear()
                begun = time.perf_counter()
                grader.grade_file(notebook_path(course, "submitted", NAME, student))
                found.append(1000 * (time.perf_counter() - begun - sum(own)))
    finally:
        Answers._run = run
        os.sched_setaffinity(0, cores)
    return found[1:]


class Echo(Peer):
    """Returns what it is called with."""

    refer = resolve = None

    def perform(self, operation, parts):
        return parts[0]


def a_call(n, times=50):
    """Milliseconds (median) of a call with n floats that returns them, between two processes: a yardstick."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        with contextlib.suppress(Closed):
            while True:
                Echo(Line(theirs)).reply(*Line(theirs).receive())
        os._exit(0)
    theirs.close()
    x, taken = torch.randn(n), []
    for _ in range(times):
        begun = time.perf_counter()
        Echo(Line(ours)).ask("call", x)
        taken.append(1000 * (time.perf_counter() - begun))
    ours.close()
    os.wait()
    return statistics.median(taken)


def main(rounds=60, students=60, stock_students=3):
    """Runs the benchmark, prints and writes its figures."""
    ours, stock, starts, turns = [], [], [], max(1, rounds // 30)
    with tempfile.TemporaryDirectory(prefix="class-") as folder:
        course = Path(folder) / "course"
        names = make_class(course, students)
        other = make_stock(Path(folder) / "stock", course)
        some = f"s00[0-{stock_students - 1}]"
        for _ in range(turns):
            stock.append(timed(nbgrader, other, "autograde", NAME, "--student", some, "--force"))
            ours.append(timed(dgm_grade, course))
            starts.append(timed(nbgrader, other, "autograde", NAME, "--student", some))  # all done: starts and ends
        calls = {f"a call with {n:,} floats there and back, ms": a_call(n) for n in (10_000, 1_000_000)}
        beyond = beyond_own_cells(course, names[: min(students, 21)])
    start = statistics.median(seconds for seconds, _ in starts)
    each = (statistics.median(seconds for seconds, _ in stock) - start) / stock_students
    wall = statistics.median(seconds for seconds, _ in ours)
    figures = {
        "students": students,
        "dgm grade, 2 workers: wall seconds": wall,
        "dgm grade: ms a submission beyond its own cells (median)": statistics.median(beyond),
        "dgm grade: peak memory of all processes, MB": max(peak for _, peak in ours) / 1e6,
        f"nbgrader autograde: seconds a submission (mean of {stock_students}, without its start)": each,
        "nbgrader autograde: seconds for the class (extrapolated)": start + students * each,
        "nbgrader autograde: peak memory of all processes, MB": max(peak for _, peak in stock) / 1e6,
        "ratio of wall times": (start + students * each) / wall,
    } | calls
    print(f"\nGrading {NAME}, {cores()} cores, {turns} turns")
    for name, value in figures.items():
        print(f"{name:>82}  {value:,.2f}" if isinstance(value, float) else f"{name:>82}  {value}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "grading.json"
    about = {"machine": machine(("nbgrader",)), "cores": cores(), "turns": turns, "figures": figures}
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main(students=int(sys.argv[1]) if len(sys.argv) > 1 else 60)
