"""`dgm grade` and its kin, as typed."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.cli import main
from autograder.isolation import LEVELS
from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT, NAME

ROOT = Path(__file__).resolve().parents[2]


def dgm(*argv, cwd):
    """Runs the command in a folder."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "autograder.cli", *argv], cwd=cwd, env=env, capture_output=True, text=True
    )


def test_release_and_grade(tmp_path):
    course = tiny.make_course(tmp_path)
    done = dgm("release", cwd=course)
    assert (done.returncode, done.stdout) == (0, f"lectures/{NAME}/{NAME}.ipynb\n"), done.stderr

    tiny.hand_in(course, "ada", tiny.submission(course, ALL_RIGHT))
    tiny.hand_in(course, "bo", "junk")
    inside = course / "solutions" / NAME  # from a folder below the course, too
    done = dgm("grade", NAME, "--workers", "2", "--json", "out.json", cwd=inside)
    assert done.returncode == 0, done.stderr
    assert "ada: 10 of 10" in done.stdout and "bo: 0 of 10" in done.stdout and "2 graded" in done.stdout
    report = json.loads((inside / "out.json").read_text())
    assert report["assignment"] == NAME and report["isolation"] in LEVELS and "torch" in report["versions"]
    ada = report["students"]["ada"]
    assert set(ada) == {"score", "max_score", "written_max", "seconds", "repairs", "exercises", "sha256"}
    assert set(ada["exercises"]["scale"]) == {"score", "max_score", "outcome", "message", "seconds", "cells"}
    assert ada["exercises"]["scale"]["cells"]["scale_visible"] == {
        "score": 2.0, "max_score": 2.0, "outcome": "passed", "message": ""
    }  # fmt: skip
    assert (course / "gradebook.db").exists() and (course / "autograded" / "ada").is_dir()


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_grading_twice_gives_the_same_bytes_but_for_seconds(course, tmp_path):
    """Also with other numbers of workers, and where messages would hold addresses and names of folders."""
    odd = "def slope(critic, x):\n    raise ValueError(f'{critic} {object()} {__import__(\"os\").getcwd()}')"
    paths = {
        "tw_ada": tiny.hand_in(course, "tw_ada", tiny.submission(course, ALL_RIGHT)),
        "tw_bo": tiny.hand_in(course, "tw_bo", tiny.submission(course, {**ALL_RIGHT, "slope": odd})),
        "tw_cy": tiny.hand_in(course, "tw_cy", "junk"),
    }
    students = [word for student in (*paths, "tw_nobody") for word in ("--student", student)]
    texts = []
    for k, workers in enumerate(("1", "2", "2")):
        out = tmp_path / f"{k}.json"
        argv = ["grade", NAME, "--course", str(course), *students, "--no-gradebook", "--workers", workers]
        assert main([*argv, "--json", str(out)]) == 0
        texts.append(re.sub(r'"seconds": [0-9.]+', '"seconds": 0', out.read_text()))
    assert texts[0] == texts[1] == texts[2]

    report = json.loads(texts[0])
    assert report["sha256"] == {
        "solutions": hash_of(course / "solutions" / NAME / f"{NAME}.ipynb"),
        "lectures": hash_of(course / "lectures" / NAME / f"{NAME}.ipynb"),
    }
    assert {"limits", "versions", "isolation"} < report.keys()
    for student, path in paths.items():
        assert report["students"][student]["sha256"] == hash_of(path)
    assert report["students"]["tw_nobody"]["sha256"] is None
    assert "object at 0x..." in report["students"]["tw_bo"]["exercises"]["slope"]["message"]


def test_one_student_without_gradebook(course, tmp_path):
    tiny.hand_in(course, "ada", tiny.submission(course, ALL_RIGHT))
    out = tmp_path / "out.json"
    argv = ["grade", NAME, "--course", str(course), "--student", "ada", "--student", "zoe", "--no-gradebook"]
    assert main([*argv, "--json", str(out), "--workers", "1"]) == 0
    students = json.loads(out.read_text())["students"]
    assert students["ada"]["score"] == 10
    assert students["zoe"]["exercises"]["scale"]["outcome"] == "unreadable"
    assert not (course / "gradebook.db").exists()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["grade", "99_none"], "is the name right"),
        (["release", "99_none"], NAME),
        (["grade", NAME, "--course", "/"], "no nbgrader_config.py"),
        (["demo"], "the demo makes its class from these answers"),
    ],
)
def test_mistakes_are_explained(course, capsys, argv, text):
    assert main([*argv, *([] if "--course" in argv else ["--course", str(course)])]) == 2
    assert text in capsys.readouterr().err


def test_nobody_has_handed_in(tmp_path, capsys):
    course = tiny.make_course(tmp_path)
    main(["release", "--course", str(course)])
    assert main(["grade", NAME, "--course", str(course)]) == 2
    assert "nobody has handed in" in capsys.readouterr().err
