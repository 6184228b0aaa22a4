"""The `dgm` command: release, grade, demo, and the tools of the house."""

import argparse
import errno
import importlib
import json
import os
import sys
import time
from pathlib import Path

sys.modules.setdefault("rfc3987_syntax", None)  # slow to load, and jsonschema has no use for it here

ELSEWHERE = {
    "doctor": ("autograder.doctor", "what this machine offers the grader, and what its isolation does not stop"),
    "check": ("autograder.check", "run a notebook's visible tests as the grader will"),
    "start": ("autograder.start", "JupyterLab on a page with the lectures and the points so far"),
    "update": ("autograder.update", "students: get corrected lectures, and keep one's own work"),
    "data": ("autograder.data_cli", "list, fetch and check data sets"),
    "train": ("autograder.train_cli", "train models by their recipes, and keep weights and model cards"),
    "table": ("autograder.train_cli", "tables of results from model cards"),
    "lint": ("autograder.lint_house", "the rules of the house and of test cells"),
    "edit": ("autograder.edit", "a solution notebook as a text file outside the tree"),
    "save": ("autograder.edit", "that text file back into the notebook"),
}


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def main(argv=None):
    """Runs one verb. Returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return run(argv)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"dgm {argv[0]}: cannot write {error.filename or 'a file'}: {error.strerror}. Make room, or work in a "
              "folder where you can write; then run it again", file=sys.stderr)  # fmt: skip
        return 2


def run(argv):
    """Runs one verb, and lets errors of the file system pass."""
    if argv and argv[0] in ELSEWHERE:
        return run_elsewhere(argv[0], argv[1:])
    from autograder.notebooks import CourseError, find_course

    args = parser().parse_args(argv)
    try:
        return args.run(find_course(args.course), args)
    except CourseError as error:
        print(f"dgm {args.verb}: {error}", file=sys.stderr)
        return 2


def run_elsewhere(verb, argv):
    """Runs a verb of another module, which is imported only now."""
    module = importlib.import_module(ELSEWHERE[verb][0])
    if verb in ("train", "table"):
        return getattr(module, verb)(argv)
    run = module.main
    if verb in ("edit", "save"):
        return run(argv, prog=f"dgm {verb}")
    return run(argv)


def parser():
    """The parser of the verbs that work on a course folder."""
    top = argparse.ArgumentParser(prog="dgm", description="Release, grade and look after the course.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, run, text):
        sub = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
        sub.add_argument("--course", default=".", metavar="DIR", help="course folder (default: the one around here)")
        sub.set_defaults(run=run)
        return sub

    sub = verb("release", do_release, "make lectures/ from solutions/")
    sub.add_argument("assignment", nargs="?", help="name, e.g. 06_coupling_flows (default: all)")
    sub = verb("grade", do_grade, "grade what is in submitted/, in two processes")
    sub.add_argument("assignment", help="name, e.g. 06_coupling_flows")
    sub.add_argument("--student", action="append", default=[], metavar="ID", help="only this student; may be repeated")
    sub.add_argument("--workers", type=int, default=cores(), metavar="N", help="processes (default: all cores)")
    sub.add_argument("--scheduler", metavar="ADDRESS", help="grade on a dask.distributed cluster, e.g. tcp://host:8786")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write marks, outcomes and messages to FILE")
    sub.add_argument("--regrade", action="store_true", help="grade again also what is graded; prints changed marks")
    sub.add_argument("--unsafe", action="store_true", help="grade even if answers cannot be isolated as configured")
    sub.add_argument("--no-gradebook", action="store_true", help="leave gradebook and autograded/ as they are")
    sub = verb("collect", do_collect, "put a Canvas or Moodle zip into submitted/")
    sub.add_argument("archive", metavar="ARCHIVE", help="the platform's zip of all submissions")
    sub.add_argument("--assignment", required=True, metavar="NAME", help="e.g. 06_coupling_flows")
    sub.add_argument("--roster", metavar="FILE", help="CSV with a column id; other columns: names, numbers, e-mails")
    sub = verb("feedback", do_feedback, "write a page of feedback for each graded student")
    sub.add_argument("assignment", help="name, e.g. 06_coupling_flows")
    sub.add_argument("--zip", type=Path, metavar="FILE", help="also all pages in one archive, for upload")
    sub = verb("report", do_report, "write a page about the class")
    sub.add_argument("assignment", help="name, e.g. 06_coupling_flows")
    sub.add_argument("--out", type=Path, metavar="FILE", help="default: report/ASSIGNMENT.html")
    sub = verb("publish", do_publish, "write or update the repository that students get")
    sub.add_argument("folder", type=Path, metavar="DIR", help="its folder; a git repository is made if there is none")
    sub.add_argument("--repin", action="store_true", help="on Colab, unchanged lectures get the newest package, too")
    sub = verb("demo", do_demo, "release a lecture, hand in a small class, grade it, show the marks")
    sub.add_argument("assignment", nargs="?", help="name (default: the first that has variants in tests/mutants)")
    for name, (_, text) in ELSEWHERE.items():
        verbs.add_parser(name, help=text)
    return top


def cores():
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def do_release(course, args):
    """`dgm release`."""
    from autograder.release import assignments, release

    for name in [args.assignment] if args.assignment else assignments(course):
        print(release(course, name).relative_to(course))
    return 0


def do_grade(course, args):
    """`dgm grade`."""
    from autograder.spawn import spawn

    started = None if args.scheduler else spawn()  # it imports torch while this process does
    import contextlib
    import functools

    from autograder.notebooks import CourseError, load_assignment
    from autograder.runner import Grader, conditions, settings, submissions

    assignment = load_assignment(course, args.assignment)
    paths = submissions(course, args.assignment, args.student)
    if not paths:
        raise CourseError(f"nobody has handed in: there is no {course / 'submitted' / 'STUDENT' / args.assignment}")
    limits, level = settings(course, args.assignment, args.unsafe)
    head = conditions(course, args.assignment, limits, level)
    students, kept, marks = {}, 0, []
    with contextlib.ExitStack() as stack:
        if args.scheduler:
            from autograder import cluster

            grade = functools.partial(cluster.grade, args.scheduler, assignment, limits, level)
        else:
            grade = stack.enter_context(Grader(assignment, limits, max(args.workers, 1), level, course, started)).grade
        book = None
        if not args.no_gradebook:
            from autograder.gradebook import Book

            book = stack.enter_context(Book(course, assignment, head))
            if not args.regrade:
                before = {student: book.kept(student, path) for student, path in paths.items()}
                students = {student: result for student, result in before.items() if result}
        left = {student: path for student, path in paths.items() if student not in students}
        progress, kept = Progress(len(left)), len(students)
        for student, result, cells in grade(left):
            students[student] = result
            for exercise, key, mark, now, points in book.write(student, result, cells) if book else ():
                marks.append(mark != now)
                if mark != now:
                    progress.say(f"{student} {exercise} {key} {mark:g} -> {now:g} (of {points:g})")
            progress.step(f"{student}: {result['score']:g} of {result['max_score']:g} ({result['seconds']:.2f} s)")
        progress.end(f", {kept} as graded before (--regrade grades them, too)" if kept else "")
    if marks:
        print(f"of the marks given before, {sum(marks)} changed, {len(marks) - sum(marks)} stayed")
    if args.json:
        report = {**head, "students": dict(sorted(students.items()))}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if students.keys() == paths.keys() else 1


class Progress:
    """A bar on a terminal, a line for each step elsewhere."""

    def __init__(self, total):
        self.total, self.done, self.started, self.on_terminal = total, 0, time.monotonic(), sys.stdout.isatty()

    def step(self, text):
        """One more is done."""
        self.done += 1
        if not self.on_terminal:
            print(f"[{self.done}/{self.total}] {text}", flush=True)
            return
        left = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        bar = "#" * (30 * self.done // self.total)
        print(f"\r[{bar:<30}] {self.done}/{self.total}, {left:.0f} s left  {text[:40]:<40}", end="", flush=True)

    def say(self, text):
        """A line that stays."""
        print(f"\r{text:<100}" if self.on_terminal else text, flush=True)

    def end(self, more=""):
        """All are done."""
        print("\n" * self.on_terminal + f"{self.done} graded in {time.monotonic() - self.started:.1f} s{more}")


def do_collect(course, args):
    """`dgm collect`."""
    from autograder.collect import run

    return run(course, args)


def do_feedback(course, args):
    """`dgm feedback`."""
    from autograder.feedback import main

    return main(course, args)


def do_report(course, args):
    """`dgm report`."""
    from autograder.report import main

    return main(course, args)


def do_publish(course, args):
    """`dgm publish`."""
    from autograder.publish import publish

    tag, notes = publish(course, args.folder, args.repin)
    print("".join(f"note: {note}\n" for note in notes), end="")
    print(f"{args.folder} is {tag}; to hand it out: git push --follow-tags" if tag else "nothing has changed")
    return 0


def do_demo(course, args):
    """`dgm demo`."""
    from autograder.demo import demo

    return demo(course, args.assignment)


if __name__ == "__main__":
    sys.exit(main())
