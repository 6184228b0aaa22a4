"""The test process: runs the test cells of the solution against answers that live in another process."""

import ast
import builtins
import contextlib
import gc
import hashlib
import io
import re
import signal
import symtable
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import torch
from IPython.core.inputtransformer2 import TransformerManager

from autograder import isolation, lock
from autograder.notebooks import CourseError, Unreadable, handed_in, intake, notebook_path, parse
from autograder.processes import AnswerDied, Answers, Limits, WarmParent, keep_to_core
from autograder.remote import Remote, RemoteError
from autograder.wire import Late, Lost, WireError, clean, seed
from dgm_course.checks import _TITLES, CheckFailed

DRAWING = ("matplotlib", "dgm_course.plotting")


class TestTimeout(BaseException):
    """A test cell itself takes too long, e.g. over a huge result."""


class TestCells:
    """The test cells of an assignment, ready to run."""

    def __init__(self, assignment):
        self.namespace = {"__name__": "__main__"}
        needed = set().union(*(free_names(test.source) for test in assignment.tests))
        setup = without_drawing(TransformerManager().transform_cell(assignment.setup), needed)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(setup, "<setup cell>", "exec"), self.namespace)
        self.code = {
            test.grade_id: (
                compile(test.source, f"<test cell {test.grade_id}>", "exec"),
                free_names(test.source) - self.namespace.keys() - set(dir(builtins)),
            )
            for test in assignment.tests
        }

    def run(self, test, caller, seconds):
        """Runs one test cell. Returns `(outcome, message, output)`; raises `Lost` if the answer process is lost."""
        code, names = self.code[test.grade_id]
        namespace = self.namespace | {name: Remote(caller, ("name", name), name) for name in names}
        output = io.StringIO()
        seed()
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()), alarm(seconds):
                exec(code, namespace)
        except CheckFailed as error:
            what = re.sub(r" *\([^)]*\d[^)]*\)", "", error.what)  # "influence(4, 2, 1)" would give inputs away
            told = f"{what}: {_TITLES[error.kind]}" if test.hidden else str(error)
            return "failed", told, ""
        except RemoteError as error:
            kind = error.remote_types[0] if hasattr(builtins, error.remote_types[0]) else "an exception"
            told = f"your code raised {kind}" if test.hidden else str(error)
            return ("memory" if kind == "MemoryError" else "error"), told, ""
        except WireError as error:
            return "error", f"what your code returned cannot be graded: {error}", ""
        except TestTimeout:
            return "timeout", f"no verdict within {seconds:g} s", ""
        except Exception as error:
            told = "" if test.hidden else f": {clean(str(error), 300)}"
            return "failed", f"the test could not use what your code returned ({type(error).__name__}{told})", ""
        return "passed", "", output.getvalue()


@contextlib.contextmanager
def alarm(seconds):
    """Raises TestTimeout after `seconds`, where Python can do that: in a main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum, frame):
        raise TestTimeout

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def global_names(source):
    """The global names that a cell reads, and those that it binds."""
    used, bound = set(), set()

    def look(table):
        for symbol in table.get_symbols():
            top = table.get_type() == "module"
            if top and (symbol.is_assigned() or symbol.is_imported()):
                bound.add(symbol.get_name())
            if symbol.is_referenced() and (top or symbol.is_global()):
                used.add(symbol.get_name())
        for child in table.get_children():
            look(child)

    look(symtable.symtable(TransformerManager().transform_cell(source), "<cell>", "exec"))
    return used, bound


def free_names(source):
    """The global names that a cell reads and does not bind itself."""
    used, bound = global_names(source)
    return used - bound


def without_drawing(source, needed):
    """The set-up cell as a syntax tree, without what only draws: nobody looks, and matplotlib takes 30 MB.

    Args:
        source: the cell, as plain Python.
        needed: names that test cells use; these stay.
    """
    tree, drawing = ast.parse(source), set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            package = getattr(node, "module", None)
            for alias in list(node.names):
                name = alias.asname or alias.name.split(".")[0]
                path = f"{package}.{alias.name}" if package else alias.name
                if path.startswith(DRAWING) and name not in needed:
                    node.names.remove(alias)
                    drawing.add(name)
    kept = []
    for node in tree.body:
        is_empty = isinstance(node, ast.Import | ast.ImportFrom) and not node.names
        draws = isinstance(node, ast.Expr) and drawing & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if not (is_empty or draws):
            kept.append(node)
    if drawing & {n.id for node in kept for n in ast.walk(node) if isinstance(n, ast.Name)}:
        return ast.parse(source)  # something that stays needs it
    tree.body = kept
    return tree


def imported_modules(source):
    """The modules that a cell imports, e.g. for warming up."""
    names = set()
    for node in ast.walk(ast.parse(TransformerManager().transform_cell(source))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return sorted(names)


def grade_notebook(notebook, assignment, tests, parent, limits):
    """Grades one notebook.

    Args:
        notebook: plain dicts of nbformat 4, from `read_submission`.
        assignment: `Assignment`.
        tests: `TestCells` of the assignment.
        parent: `WarmParent`.
        limits: `Limits`.

    Returns:
        `(result, cells)`: the student's part of what `dgm grade --json` writes, and the cells for `autograded/`.
    """
    started, taken = time.monotonic(), intake(notebook, assignment)
    verdicts, seconds, excuses = {}, dict.fromkeys(assignment.exercises, 0.0), {}
    for name in taken.missing:
        excuses[name] = "missing", f"the cell {name} is not in the notebook"
    for name in taken.blank:
        excuses[name] = "blank", "still blank"
    locks = {module: set(exercises) & assignment.exercises.keys() for module, exercises in assignment.locks.items()}
    with tempfile.TemporaryDirectory(prefix="answer-", ignore_cleanup_errors=True) as folder:
        answers = Answers(parent, folder, limits)
        try:
            for number, step in enumerate(taken.steps):
                if step.test is None:
                    run_cell(answers, taken.cells[step.cell], excuses)
                else:
                    begun, last = time.monotonic(), number + 1 == len(taken.steps)
                    verdicts |= run_tests(answers, tests, assignment.exercises[step.test], excuses, limits, last)
                    seconds[step.test] = time.monotonic() - begun
                    for asked_by in locks.values():
                        asked_by.discard(step.test)
                    tests_follow = any(later.test for later in taken.steps[number + 1 :])
                    if tests_follow and (opened := [module for module, asked_by in locks.items() if not asked_by]):
                        answers.unlock({module: lock.sources()[module] for module in opened})
                        locks = {module: asked_by for module, asked_by in locks.items() if asked_by}
        except AnswerDied as death:  # more often than it is started again
            left = [test for test in assignment.tests if test.grade_id not in verdicts]
            verdicts |= {test.grade_id: (death.outcome, str(death), "") for test in left}
        finally:
            with contextlib.suppress(Lost):
                answers.close()
    verdicts = {key: (outcome, same_always(text, folder), output) for key, (outcome, text, output) in verdicts.items()}
    show_verdicts(taken.cells, verdicts)
    result = tally(assignment, verdicts, seconds)
    return {**result, "seconds": round(time.monotonic() - started, 4), "repairs": taken.repairs}, taken.cells


def same_always(text, folder):
    """A message without what differs from run to run: the addresses of objects, the name of the folder."""
    return re.sub(r"\b0x[0-9a-f]{6,}", "0x...", text.replace(folder, "."))


def run_cell(answers, cell, excuses):
    """Runs a student's cell, and notes what it printed and, for an exercise, what went wrong."""
    report = answers.run(cell["source"])
    key = cell["metadata"].get("nbgrader", {}).get("grade_id")
    if report["output"]:
        cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": report["output"]})
    if report["outcome"] and key:
        place = f" (line {report['line']} of your cell)" if report["line"] else ""
        excuses.setdefault(key, (report["outcome"], f"your cell: {report['message']}{place}"))


def run_tests(answers, tests, of_exercise, excuses, limits, last):
    """Runs the tests of one exercise. Returns grade_id -> `(outcome, message, output)`.

    The excuse of an exercise (its cell is blank, is missing, was stopped) stands for a failure that comes from it. When
    nothing comes after these tests, they are the `last`.
    """
    verdicts, lost = {}, None
    with answers.serving(last) as caller:
        for test in of_exercise:
            verdict = lost
            if lost is None:
                try:
                    left = caller.line.deadline - time.monotonic()
                    verdict = tests.run(test, caller, max(left + limits.grace_seconds, 0.01))
                except Late:
                    verdict = lost = "timeout", f"no answer within {limits.exercise_seconds:g} s", ""
                except Lost:
                    if not answers.has_served():  # the process died between two cells: once more, from its start
                        return run_tests(answers, tests, of_exercise, excuses, limits, last)
                    verdict = lost = "died", answers.how_server_ended(), ""
            outcome, message, output = verdict
            if outcome == "timeout":
                lost = verdict
            name_is_unknown = outcome == "error" and "NameError" in message
            excuse = excuses.get(test.exercise)
            if outcome not in ("passed", "timeout", "died") and excuse and (name_is_unknown or excuse[0] != "error"):
                outcome, message = excuse
            verdicts[test.grade_id] = outcome, message, output
    return verdicts


def tally(assignment, verdicts, seconds):
    """Scores and outcomes of one student, as in the JSON."""
    exercises = {}
    for name, of_exercise in assignment.exercises.items():
        cells = {
            test.grade_id: {
                "score": test.points if verdicts[test.grade_id][0] == "passed" else 0.0,
                "max_score": test.points,
                "outcome": verdicts[test.grade_id][0],
                "message": verdicts[test.grade_id][1],
            }
            for test in of_exercise
        }
        worst = next((cell for cell in cells.values() if cell["outcome"] != "passed"), None)
        exercises[name] = {
            "score": sum(cell["score"] for cell in cells.values()),
            "max_score": sum(cell["max_score"] for cell in cells.values()),
            "outcome": worst["outcome"] if worst else "passed",
            "message": worst["message"] if worst else "",
            "seconds": round(seconds.get(name, 0.0), 4),
            "cells": cells,
        }
    for key in assignment.written:  # people give these points; they are not counted here
        cell = {"score": 0.0, "max_score": 0.0, "outcome": "manual", "message": ""}
        exercises[key] = {**cell, "seconds": 0.0, "cells": {key: cell}}
    return {
        "score": sum(exercise["score"] for exercise in exercises.values()),
        "max_score": sum(exercise["max_score"] for exercise in exercises.values()),
        "written_max": sum(assignment.written.values()),
        "exercises": exercises,
    }


def show_verdicts(cells, verdicts):
    """Writes the outcomes into the test cells, as outputs that nbgrader and its feedback can show."""
    for cell in cells:
        key = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if key not in verdicts:
            continue
        outcome, message, output = verdicts[key]
        if outcome == "passed":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": output or "passed\n"}]
        else:
            text = f"{outcome}: {message}" if message else outcome
            cell["outputs"] = [
                {"output_type": "error", "ename": outcome, "evalue": message, "traceback": text.splitlines()}
            ]


def unreadable(assignment, reason):
    """The result of a submission that is no notebook: every cell `unreadable`, and the release to show it in."""
    verdicts = {test.grade_id: ("unreadable", reason, "") for test in assignment.tests}
    taken = intake(assignment.release, assignment)
    show_verdicts(taken.cells, verdicts)
    return {**tally(assignment, verdicts, {}), "seconds": 0.0, "repairs": []}, taken.cells


def versions():
    """Versions of what marks may depend on."""
    names = ("dgm-course", "torch", "numpy", "ipython", "nbgrader")
    found = {"python": sys.version.split()[0]}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def conditions(course, name, limits, level):
    """What the marks of an assignment depend on beside the submissions: the head of what `--json` writes."""
    paths = {step: notebook_path(course, step, name) for step in ("solutions", "lectures")}
    hashes = {step: hashlib.sha256(path.read_bytes()).hexdigest() for step, path in paths.items()}
    head = {"assignment": name, "isolation": level, "versions": versions(), "limits": asdict(limits)}
    return {**head, "sha256": hashes}


def settings(course, name, unsafe=False):
    """What `nbgrader_config.py` says of grading: limits, for all assignments and for one, and the isolation level.

        c.DgmGrade.isolation = "namespaces"  # the least level; "landlock" if not said
        c.DgmGrade.limits = {"cell_seconds": 30}
        c.DgmGrade.assignment_limits = {"06_coupling_flows": {"exercise_seconds": 20}}

    Returns:
        `(Limits, level)`, the best level that works here.

    Raises:
        CourseError: if that is below the least level and not `unsafe`.
    """
    from autograder.release import course_config

    said, level = course_config(course).get("DgmGrade", {}), isolation.best()
    limits = Limits(**{**said.get("limits", {}), **said.get("assignment_limits", {}).get(name, {})})
    least = said.get("isolation", "landlock")
    if isolation.refused(level, least) and not unsafe:
        raise CourseError(
            f"the best isolation that works here is {level!r}, wanted is {least!r} (`dgm doctor` says more). It does "
            f"not stop {isolation.NOT_STOPPED[level]}. If you trust every submission, grade with --unsafe"
        )
    return limits, level


def read(path):
    """The bytes that a student handed in and what was odd about the file; or None and why it cannot be read."""
    try:
        return handed_in(path)
    except Unreadable as reason:
        return None, str(reason)


class Grader:
    """Grades submissions of one assignment, in this process or in several workers.

    Use it as a context manager. Args:
        assignment: `Assignment`.
        limits: `Limits`.
        workers: number of test processes; 0 grades in this one.
        level: isolation level, see `isolation.py`; None for the best that works here.
        course: the course folder, which answers may not see even if it lies among Python's files.
        started: a warm parent that was started before, see `spawn.py`.
    """

    def __init__(self, assignment, limits=None, workers=0, level=None, course=None, started=None):
        self.assignment, self.limits, self.workers = assignment, limits or Limits(), workers
        self.level, self.course, self.started = level or isolation.best(), course, started

    def __enter__(self):
        torch.set_num_threads(1)  # workers are forked, which other threads do not survive
        walls = {"level": self.level, "visible": isolation.visible(), "private": isolation.private(self.course)}
        modules = {"modules": imported_modules(self.assignment.setup), "locked": sorted(self.assignment.locks)}
        self.parent = WarmParent(modules | walls | self.limits.for_walls(), self.started)
        self.tests = TestCells(self.assignment)  # while the parent warms up
        return self

    def __exit__(self, *error):
        self.parent.close()

    def grade_file(self, path, parent=None):
        """Grades one file: `(result, cells)` as `grade_notebook`."""
        return self.grade_bytes(*read(path), parent)

    def grade_bytes(self, data, remark, parent=None):
        """Grades what `read` returned."""
        digest = None if data is None else hashlib.sha256(data).hexdigest()
        try:
            if data is None:
                raise Unreadable(remark)
            notebook = parse(data)
        except Unreadable as reason:
            result, cells = unreadable(self.assignment, str(reason))
        else:
            result, cells = grade_notebook(notebook, self.assignment, self.tests, parent or self.parent, self.limits)
            result["repairs"][:0] = remark
        return {**result, "sha256": digest}, cells

    def grade(self, paths):
        """Yields `(student, result, cells)` for each of `paths` (student -> path), as they are done."""
        if not self.workers:
            for student, path in paths.items():
                yield student, *self.grade_file(path)
            return
        left, workers = dict(paths), min(self.workers, len(paths))
        gc.collect()
        gc.freeze()  # so that collecting garbage does not copy the memory that workers share with this process
        while left:
            context = get_context("fork")
            parents = context.SimpleQueue()
            clones = [self.parent.clone() for _ in range(workers)]
            for number in range(workers):
                parents.put(number)
            with (
                contextlib.suppress(BrokenProcessPool),
                ProcessPoolExecutor(workers, context, _start_worker, (self, clones, parents)) as pool,
            ):
                jobs = {pool.submit(_grade_in_worker, path): student for student, path in left.items()}
                for job in as_completed(jobs):
                    student, (result, cells) = jobs.pop(job), job.result()
                    del left[student]
                    yield student, result, cells
            for clone in clones:
                clone.close()
            if left and workers == 1:  # alone in its process, and that died
                student = next(iter(left))
                del left[student]
                verdicts = {t.grade_id: ("died", "the test process ended", "") for t in self.assignment.tests}
                result = {**tally(self.assignment, verdicts, {}), "seconds": 0.0, "repairs": [], "sha256": None}
                yield student, result, intake(self.assignment.release, self.assignment).cells
            workers = 1  # one at a time, so that whatever ended a worker is known


_worker = {}


def _start_worker(grader, clones, parents):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # Linux: a worker does not outlive `dgm grade`, even if killed
        isolation.call("prctl", isolation.DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    number = parents.get()
    keep_to_core(number, len(clones))
    for other, clone in enumerate(clones):
        if other != number:
            clone.line.sock.close()
    _worker.update(grader=grader, parent=clones[number])


def _grade_in_worker(path):
    return _worker["grader"].grade_file(path, _worker["parent"])


def submissions(course, name, students=()):
    """Student -> path of the notebook handed in, for all students or for those named."""
    folder = Path(course) / "submitted"
    found = sorted(p.name for p in folder.iterdir() if (p / name).is_dir()) if folder.is_dir() else []
    return {student: notebook_path(course, "submitted", name, student) for student in (students or found)}
