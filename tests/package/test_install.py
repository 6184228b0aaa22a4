"""A wrong installation is named in one sentence that says what to do."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dgm_course
from autograder.publish import MAKEFILE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed(monkeypatch):
    """Pretends that some packages have other versions, or are missing (None)."""
    real = importlib.metadata.version

    def pretend(**versions):
        def version(name):
            if versions.get(name, "") is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions.get(name) or real(name)

        monkeypatch.setattr(importlib.metadata, "version", version)

    return pretend


@pytest.mark.parametrize("version", ["2.6.0+cpu", "2.13.0", "2.10.0a0+git123"])
def test_versions_that_will_do(version, installed):
    installed(torch=version)
    dgm_course._look_around()


@pytest.mark.parametrize(
    "name, version", [("torch", "1.13.1"), ("torch", "2.5.1+cu121"), ("torch", "3.0.0"), ("numpy", "1.26.4")]
)
def test_too_old_or_too_new(name, version, installed):
    installed(**{name: version})
    with pytest.raises(
        ImportError, match=rf"{name} \d\.\d or newer, below 3; this is {re.escape(version)}.*pip install"
    ):
        dgm_course._look_around()


@pytest.mark.parametrize("name", dgm_course._NEEDED)
def test_an_installation_that_was_broken_off(name, installed):
    installed(**{name: None})
    with pytest.raises(ImportError, match=rf"needs {name}, which is not installed here.*kernel"):
        dgm_course._look_around()


def test_the_versions_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, (lowest, beyond) in dgm_course._NEEDED.items():
        assert f"{name}>={lowest},<{beyond}" in project["dependencies"]


def test_wrong_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    with pytest.raises(ImportError, match=r"Python 3\.11 to 3\.13"):
        dgm_course._look_around()


@pytest.mark.parametrize("whose", ["course", "students"])
def test_make_with_a_wrong_python(whose, tmp_path):
    (tmp_path / "Makefile").write_text(MAKEFILE if whose == "students" else (ROOT / "Makefile").read_text())
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "python3.10"  # says that it is older than it is
    code = "import sys; sys.version_info = (3, 10, 0); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$2"\n')
    old.chmod(0o755)
    done = subprocess.run(["make", "lab", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    assert f"Python 3.11 to 3.13 is needed, {old} is 3.10; choose one with make PYTHON=python3.12" in done.stderr
