"""The gradebook in a real PostgreSQL server, which nbgrader's own setting `c.CourseDirectory.db_url` names.

The tests need the server's programs: `apt-get install postgresql` on Debian and Ubuntu, which puts them in
/usr/lib/postgresql/VERSION/bin, or any other installation whose `initdb` and `pg_ctl` are on PATH. Nothing has to be
set up or running; each test run has a server of its own, in a temporary folder, on a Unix socket.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from autograder.gradebook import Book
from autograder.notebooks import load_assignment
from tests.grading.test_resume import MARKS, classroom, grade, open_book, regrade_story  # noqa: F401
from tests.grading.tiny import NAME

pytestmark = pytest.mark.slow


def programs():
    """The folder of the newest server's programs."""
    found = [
        *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        *Path("/opt/homebrew/opt").glob("postgresql*/bin/initdb"),
    ]
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path)]
    if not found:
        pytest.fail("no PostgreSQL server here: apt-get install postgresql (it need not run), then test again")
    return max(found, key=lambda path: [int(part) for part in path.parts if part.isdigit()]).parent


@pytest.fixture(scope="module")
def server():
    """A server of its own: the URL of its database. It refuses to run as root, so it runs as postgres or nobody."""
    found, user = programs(), None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path may have 107 characters at most
    if os.getuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def run(program, *args):
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [found / program, *args], stdout=said, stderr=said, user=user, cwd=folder, env=environment
            )
            said.seek(0)
            assert done.returncode == 0, f"{program}: {said.read().decode(errors='replace')}"

    try:
        run("initdb", "-D", folder / "data", "-U", "dgm", "-A", "trust", "-E", "UTF8", "--no-sync")
        run(
            "pg_ctl",
            "-D",
            folder / "data",
            "-w",
            "-o",
            f"-k {folder} -c listen_addresses=",
            "-l",
            folder / "log",
            "start",
        )
        yield f"postgresql+psycopg2://dgm@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def class_on_server(classroom, server):  # noqa: F811
    """The class of nine, and its gradebook in a database of its own on the server."""
    name = f"course_{abs(hash(classroom)):x}"
    with create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    config = classroom / "nbgrader_config.py"
    url = server.replace("/postgres?", f"/{name}?")
    config.write_text(f"{config.read_text()}\nc.CourseDirectory.db_url = {url!r}\n")
    return classroom


def test_a_class_is_graded_into_postgresql(class_on_server, capsys):
    grade(class_on_server)
    with open_book(class_on_server) as book:
        assert {s.student_id: s.score for s in book.assignment_submissions(NAME)} == MARKS
    capsys.readouterr()
    first = grade(class_on_server)
    assert "9 as graded before" in capsys.readouterr().out
    assert {student: result["score"] for student, result in first["students"].items()} == MARKS
    assert not (class_on_server / "gradebook.db").exists()


def test_regrading_in_postgresql(class_on_server, capsys):
    regrade_story(class_on_server, capsys)


def test_half_a_submission_is_not_written_to_postgresql(class_on_server):
    result = next(iter(grade(class_on_server)["students"].values()))
    broken = {**result, "exercises": {**result["exercises"], "none": {"cells": {"none": {"score": 1}}}}}
    with Book(class_on_server, load_assignment(class_on_server, NAME)) as book, pytest.raises(KeyError):
        book.write("dee", broken, [])
    with open_book(class_on_server) as book:
        assert "dee" not in {student.id for student in book.students}
