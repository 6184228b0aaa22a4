"""A wrong installation is named in one sentence that says what to do."""

import importlib
import importlib.metadata
import pkgutil
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


@pytest.mark.parametrize("name", [m.name for m in pkgutil.walk_packages(dgm_course.__path__, "dgm_course.")])
def test_every_module_can_be_the_first_one_imported(name, monkeypatch):
    for loaded in [m for m in sys.modules if m.split(".")[0] == "dgm_course"]:
        monkeypatch.delitem(sys.modules, loaded)
    importlib.import_module(name)
    for loaded in [m for m in sys.modules if m.split(".")[0] == "dgm_course"]:
        del sys.modules[loaded]
