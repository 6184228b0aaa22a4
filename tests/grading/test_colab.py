"""A published lecture on a machine like Colab: torch, numpy, matplotlib, tqdm and a kernel, and nothing of the course.

`COLAB_PYTHON` may name the Python of a real environment with these, e.g. with the oldest torch; pip then works in it.
Else an environment is made that holds those packages of this one, what they need, and no index for pip.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from packaging.requirements import Requirement

from autograder.publish import publish

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in ROOT.glob("solutions/*/*.ipynb"))
GIVEN = ["torch", "numpy", "matplotlib", "tqdm", "ipykernel", "pip"]


def closure(names):
    """The installed distributions of these names, and all that they require."""
    found, todo = {}, list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            needed = map(Requirement, found[name].requires or [])
            todo += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    return found.values()


def make_environment(folder):
    """A virtual environment with the packages of Colab alone, as links. Returns its Python."""
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    for distribution in closure(GIVEN):
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    return folder / "bin" / "python"


@pytest.fixture(params=NAMES)
def name(request):
    """A lecture."""
    return request.param


@pytest.fixture
def address(tmp_path, name):
    """Address of the student repository of a course that knows it."""
    course, address = tmp_path / "course", f"file://{tmp_path}/published"
    for part in ("dgm_course", "autograder", "data", f"solutions/{name}", f"lectures/{name}"):
        shutil.copytree(ROOT / part, course / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("constraints.txt", "environment.yml", "LICENSE", "nbgrader_config.py", ".gitignore"):
        shutil.copy(ROOT / part, course)
    text = (ROOT / "pyproject.toml").read_text()
    (course / "pyproject.toml").write_text(text.replace('repository = ""', f'repository = "{address}"'))
    subprocess.run(["git", "init", "-q", course], check=True)
    publish(course, tmp_path / "published")
    return address


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook in an empty folder, in a kernel of the other environment."""
    python = os.environ.get("COLAB_PYTHON") or make_environment(tmp_path / "environment")
    colab = tmp_path / "stand-in" / "google" / "colab"
    colab.mkdir(parents=True)
    for folder in (colab, colab.parent):
        (folder / "__init__.py").write_text("")
    spec = tmp_path / "jupyter" / "kernels" / "colab" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    content = tmp_path / "content"
    content.mkdir()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DGM_BUDGET": "smoke", "OMP_NUM_THREADS": "1",
           "PYTHONPATH": str(colab.parents[1])}  # fmt: skip
    if "COLAB_PYTHON" in os.environ:
        env |= {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    else:
        env["PIP_NO_INDEX"] = "1"

    def run(notebook):
        resources = {"metadata": {"path": str(content)}}
        client = NotebookClient(notebook, kernel_name="colab", timeout=600, skip_cells_with_tag="", resources=resources)
        client.execute(env=env)

    return run


def printed(cell):
    """What a cell has printed or shown, as text."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)


def test_a_lecture_runs_where_only_torch_is(name, address, run, tmp_path, record_property):
    path = tmp_path / "published" / "lectures" / name / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    place = next(number for number, cell in enumerate(notebook.cells) if cell.get("id") == "colab")
    first, *rest = notebook.cells[place:]
    gone = f"import os; os.rename({str(tmp_path / 'published')!r}, {str(tmp_path / 'gone')!r})"
    stop = "import time; print(time.perf_counter() - started)"
    again = [new_code_cell(f"{gone}; import time; started = time.perf_counter()"), new_code_cell(first.source)]
    look = "import dgm_course, torch, sys; print(dgm_course.__file__, torch.__version__, sys.version.split()[0])"
    notebook.cells = [new_code_cell("import google.colab"), first, *again, new_code_cell(stop), *rest]
    notebook.cells.append(new_code_cell(look))
    run(notebook)  # an error in a cell that must not fail ends it
    _, first, _, second, seconds, *rest, end, look = notebook.cells
    for cell in (first, second):
        lines = printed(cell).splitlines()
        assert lines[0].startswith("course: dgm-course-v1, data: ") and "torch, numpy and the rest" in lines[-1]
    if "COLAB_PYTHON" in os.environ:
        assert len(printed(first).splitlines()) == len(printed(second).splitlines()) == 2
        assert "nothing to install" in printed(second)
    else:
        assert "could not install dgm-course, safetensors, torchdiffeq: look at the network" in printed(first)
    place, torch, python = printed(look).split()
    assert place == str(tmp_path / "content" / "dgm-course-v1" / "dgm_course" / "__init__.py")
    assert [o for cell in rest for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert "download it" in printed(end) and re.search(r"\b0 of \d+ points", printed(end))
    again = float(printed(seconds))
    record_property("measured", f"torch {torch}, Python {python}, set-up cell again after {again:.1f} s")
