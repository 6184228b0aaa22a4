"""No attack earns a point, hurts a neighbour, reads what is private, or leaves a trace; at each isolation level."""

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autograder.isolation import LEVELS, available
from autograder.notebooks import load_assignment
from autograder.runner import Grader
from tests.grading import test_align, tiny
from tests.grading.attacks import corpus, honest, hostile  # noqa: F401  (lists its attacks)
from tests.grading.conftest import LIMITS
from tests.grading.tiny import ALL_RIGHT

SMALL = replace(LIMITS, exercise_seconds=1.5, cell_seconds=1.5, grace_seconds=1.0, memory_bytes=512 << 20,
                disk_bytes=32 << 20, file_bytes=16 << 20)  # fmt: skip
PATIENT = replace(SMALL, exercise_seconds=20.0, cell_seconds=6.0)  # on a busy machine 1.5 s are soon over


@pytest.fixture(scope="module", params=[level for level in LEVELS if level in available()])
def attacked(request, course, tmp_path_factory):
    """A grader at one level, and a course with something to lose."""
    os.environ["DGM_TEST_SECRET"] = "hunter2"
    (course / "gradebook.db").write_bytes(b"the gradebook")
    tiny.hand_in(course, "classmate", tiny.submission(course, ALL_RIGHT))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Grader(load_assignment(course, tiny.NAME), SMALL, level=request.param, course=course) as grader:
            yield course, grader, request.param, port
    del os.environ["DGM_TEST_SECRET"]
    (course / "gradebook.db").unlink()


def fingerprint(course):
    """Hashes of all files of the course but the attacker's own."""
    files = [p for p in sorted(course.rglob("*")) if p.is_file() and "attacker" not in p.parts]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("attack", corpus.listed, ids=str)
def test_attack(attacked, attack):
    course, grader, level, port = attacked
    if level not in attack.levels:
        level = "namespaces"
        assert level in attack.levels, "an attack that no level stops"
        return  # what this level does not stop is stated, and may hurt the machine that runs the tests
    before = fingerprint(course)
    told = {"COURSE": str(course), "PID": str(os.getpid()), "PORT": str(port)}
    source = attack.source
    for word, meaning in told.items():
        source = source.replace(word, meaning)
    path = tiny.hand_in(course, "attacker", tiny.submission(course, {**ALL_RIGHT, "coupling": source}))
    grader.limits = SMALL if "timeout" in attack.outcomes else PATIENT
    result, cells = grader.grade_file(path)
    exercise = result["exercises"]["coupling"]
    assert exercise["outcome"] in attack.outcomes, exercise
    assert exercise["score"] == (3 if exercise["outcome"] == "passed" else 0)
    others = {name: one["outcome"] for name, one in result["exercises"].items() if name != "coupling"}
    assert attack.hurts_itself or set(others.values()) <= {"passed", "manual"}, others
    shown = "".join(str(cell.get("outputs")) for cell in cells)
    assert "LEAK" not in shown and len(shown) < 60_000, shown[:300]
    assert fingerprint(course) == before


DAMAGE = {f"damage: {name}": change for name, (change, _) in test_align.DAMAGE.items()}


@pytest.mark.parametrize("name", [*honest.listed, *DAMAGE])
def test_honest_work_keeps_its_points(attacked, name):
    course, grader, _, _ = attacked
    notebook = tiny.submission(course, ALL_RIGHT)
    (honest.listed | DAMAGE)[name](notebook)
    grader.limits = PATIENT
    result, _ = grader.grade_file(tiny.hand_in(course, "honest", json.dumps(notebook)))
    assert (result["score"], result["max_score"]) == (10, 10), result


def test_after_all_attacks_an_honest_submission_gets_its_points(attacked):
    course, grader, _, _ = attacked
    path = tiny.hand_in(course, "honest", tiny.submission(course, ALL_RIGHT))
    assert grader.grade_file(path)[0]["score"] == 10


def test_there_are_enough_attacks():
    names = [attack.name for attack in corpus.listed]
    assert len(names) == len(set(names)) >= 60


def test_no_process_outlives_its_submission(attacked):
    """However the end of the answer process and the order to end it race."""
    course, grader, _, _ = attacked
    answers = {**ALL_RIGHT, "coupling": corpus.named("leaves a busy process that hides from its group").source}
    path = tiny.hand_in(course, "attacker", tiny.submission(course, answers))
    for _ in range(10):
        assert grader.grade_file(path)[0]["score"] == 10
    left, end = strays(), time.monotonic() + 60
    while left and time.monotonic() < end:  # those of tests that run beside this one end by themselves
        time.sleep(1)
        left &= strays()
    assert not left


def strays():
    """The answer processes on this machine that run a submission or have lost their parent."""
    found = [p for p in Path("/proc").glob("[0-9]*") if b"autograder.answer" in command_of(p)]
    return {p.name for p in found if parent_of(p) == 1 or "answer-" in link_of(p)}


def command_of(process):
    """The command line of a process, nothing if it is gone."""
    with contextlib.suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


def parent_of(process):
    """The process id of a process's parent; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def link_of(process):
    """The working folder of a process."""
    with contextlib.suppress(OSError):
        return os.readlink(process / "cwd")
    return ""


if os.getuid() == 0:

    @pytest.mark.slow
    def test_the_corpus_as_an_ordinary_user():
        """Root runs all of the above once more as nobody. Other users must be able to read this Python and checkout."""
        nobody = 65534
        with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
            os.chown(folder, nobody, nobody)
            command = [sys.executable, "-m", "pytest", __file__, "-q", "-m", "not slow", "-n", "0"]
            command += ["-p", "no:cacheprovider", f"--basetemp={folder}/pytest"]
            environment = {**os.environ, "HOME": folder, "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(
                command, user=nobody, group=nobody, extra_groups=[], cwd=tiny.ROOT, env=environment,
                capture_output=True, text=True,
            )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
