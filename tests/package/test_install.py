"""A wrong installation is named in one sentence that says what to do."""

import importlib.metadata
import sys

import pytest

import dgm_course


@pytest.mark.parametrize("version", ["2.6.0+cpu", "2.13.0", "2.10.0a0+git123"])
def test_versions_that_will_do(version, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    dgm_course._look_around()


def test_old_torch(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.13.1")
    with pytest.raises(ImportError, match=r"torch 2\.6 or newer, this is 1\.13\.1.*pip install"):
        dgm_course._look_around()


def test_no_torch(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match=r"not installed here.*kernel"):
        dgm_course._look_around()


def test_wrong_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    with pytest.raises(ImportError, match=r"Python 3\.11 to 3\.13"):
        dgm_course._look_around()
