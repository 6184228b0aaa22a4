"""When something is wrong with the machine or the order of cells, a sentence says what to do."""

import errno
import os
from pathlib import Path

import pytest
import torch

from autograder import data_cli, start, update
from autograder.cli import main
from dgm_course import checks, full_sets, training
from tests.grading import tiny

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full (Linux)")
TEST = tiny.TESTS["scale_visible"]


def run_cell(source, names):
    exec(compile(source, "cell", "exec"), names)


def said(source, names):
    """The message of a test cell that fails."""
    with pytest.raises(checks.CheckFailed) as caught:
        run_cell(source, names)
    return str(caught.value)


@pytest.fixture
def names():
    """What the set-up cell leaves behind."""
    found = {}
    run_cell(tiny.SETUP, found)
    return found


@pytest.fixture
def student(tmp_path, monkeypatch):
    """A student's folder with one lecture, as the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lectures" / tiny.NAME / f"{tiny.NAME}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    return tmp_path


def test_a_test_cell_before_the_answer_says_which_cell_has_not_been_run(names):
    message = said(TEST, names)
    assert message.startswith("scale: not there yet") and "Run All Above" in message
    assert "its cell has not been run since the kernel started" in message


def test_a_name_that_the_student_forgot_is_the_students_own_error(names):
    run_cell("def scale(x, factor):\n    return facto * x", names)
    with pytest.raises(NameError, match="facto"):
        run_cell(TEST, names)


def test_cells_in_another_order_give_the_same_points(names, capsys, monkeypatch):
    monkeypatch.setattr(checks, "_records", {})
    said(TEST, names)
    run_cell("\n".join(line for line in tiny.ANSWERS["scale"].splitlines() if "###" not in line), names)
    run_cell("checks.summary(scale=2)", names)
    run_cell(TEST, names)
    run_cell(TEST, names)
    capsys.readouterr()
    run_cell("checks.summary(scale=2)", names)
    assert "2 of 2 points" in capsys.readouterr().out


def test_the_set_up_cell_says_that_it_comes_first(course):
    released = (course / "lectures" / tiny.NAME / f"{tiny.NAME}.ipynb").read_text()
    assert "# Run this cell first, and again whenever the kernel was restarted" in released


@FULL
def test_a_full_disk_when_the_start_page_is_written(student, capsys):
    (student / "START.md").symlink_to("/dev/full")
    assert main(["start", "--page"]) == 0
    assert "No space left on device" in (text := capsys.readouterr().err) and "make room" in text


def test_a_read_only_folder_still_opens_the_lectures(student, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    commands = []
    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(os, "execv", lambda program, command: commands.append(command))
    main(["start"])
    assert "--LabApp.default_url=/lab/tree/lectures" in commands[0]
    assert "copy the folder to a place where you can write" in capsys.readouterr().err


def test_without_jupyterlab(student, capsys, monkeypatch):
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    assert main(["start"]) == 2
    assert "pip install" in capsys.readouterr().err


@FULL
def test_a_full_disk_when_a_checkpoint_is_saved(tmp_path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"the old one")
    (tmp_path / "run.ckpt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"run\.ckpt: make room, or give another path"):
        training._save(path, {"x": torch.zeros(100_000)})
    assert path.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_when_data_are_fetched(number, tmp_path, monkeypatch, capsys):
    def refuse(url, part):
        raise OSError(number, os.strerror(number), str(part))

    monkeypatch.setenv("DGM_DATA", str(tmp_path))
    monkeypatch.setattr(data_cli, "receive", refuse)
    assert main(["data", "fetch", "frey_faces"]) == 1
    message = capsys.readouterr().err
    assert os.strerror(number) in message and "set DGM_DATA to a folder where you can write" in message
    assert "cannot reach" not in message


def test_without_network_data_are_not_fetched_and_the_shipped_ones_are_named(tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise data_cli.urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("DGM_DATA", str(tmp_path))
    monkeypatch.setattr(data_cli.urllib.request, "urlopen", refuse)
    assert main(["data", "fetch", "mnist"]) == 1
    assert "cannot reach" in (message := capsys.readouterr().err) and "data that ships with the course" in message
    with pytest.raises(FileNotFoundError, match="dgm data fetch mnist"):
        full_sets.folder("mnist")


def test_a_full_disk_in_any_command(monkeypatch, capsys):
    def refuse(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "lecture_new.ipynb")

    monkeypatch.setattr(update, "update", refuse)
    assert main(["update"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("dgm update: cannot write lecture_new.ipynb: No space left") and "Make room" in message


def test_other_errors_of_the_system_are_not_hidden(monkeypatch):
    def refuse(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(update, "update", refuse)
    with pytest.raises(OSError, match="Input/output"):
        main(["update"])
