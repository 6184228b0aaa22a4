"""Every lecture runs: the solution without an error, the release to its end, and the release is up to date."""

import os
import shutil
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import v4

from autograder.release import release

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in ROOT.glob("solutions/*/*.ipynb"))
TIMEOUT = 300  # seconds for one cell; generous, since time must not decide a test
MEMORY = 2_000  # MB
PEAK = """from pathlib import Path
status = Path("/proc/self/status")
print(status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else 0)"""  # kB of the kernel; 0 off Linux


def run(folder, name, tmp_path):
    """Executes a notebook as Run All does, demonstrations included.

    Returns:
        The executed notebook, seconds, and the peak memory of its kernel in MB.
    """
    shutil.copytree(ROOT / folder / name, tmp_path / name, dirs_exist_ok=True)
    nb = nbformat.read(tmp_path / name / f"{name}.ipynb", as_version=4)
    nb.cells.append(v4.new_code_cell(PEAK))
    # By default nbclient leaves out the cells tagged skip-execution; here none is left out.
    client = NotebookClient(nb, timeout=TIMEOUT, kernel_name="python3", skip_cells_with_tag="",
                            resources={"metadata": {"path": str(tmp_path / name)}})  # fmt: skip
    inline = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}  # figures as a reader sees them
    start = time.perf_counter()
    client.execute(env=inline)  # raises CellExecutionError where a cell without the tag raises-exception fails
    seconds = time.perf_counter() - start
    return nb, seconds, int(nb.cells.pop().outputs[0].text) / 1000


def outputs(nb, wanted):
    """`(cell source, output)` for all outputs that `wanted` accepts."""
    return [(cell.source, out) for cell in nb.cells for out in cell.get("outputs", []) if wanted(out)]


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_runs_without_an_error(name, tmp_path, record_property):
    nb, seconds, megabytes = run("solutions", name, tmp_path)
    record_property("measured", f"{seconds:.0f} s, {megabytes:.0f} MB")
    assert not outputs(nb, lambda out: out.output_type == "error")
    assert megabytes < MEMORY
    graded = v4.new_notebook(cells=[cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade")])
    assert not outputs(graded, lambda out: out.get("name") == "stderr"), "stock nbgrader takes points for stderr"
    plots = outputs(nb, lambda out: "image/png" in out.get("data", {}))
    assert plots, "a lecture shows figures"


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_exercise_never_stops_the_lecture(name, tmp_path, record_property):
    nb, seconds, megabytes = run("lectures", name, tmp_path)
    record_property("measured", f"{seconds:.0f} s, {megabytes:.0f} MB")
    errors = outputs(nb, lambda out: out.output_type == "error")
    assert errors, "the tests of blank exercises must fail"


@pytest.mark.parametrize("name", NAMES)
def test_the_release_is_up_to_date(name, tmp_path):
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    shutil.copytree(ROOT / "solutions" / name, tmp_path / "solutions" / name)
    release(tmp_path, name)
    made, committed = (
        {path.relative_to(base): path.read_bytes() for path in (base / "lectures" / name).rglob("*.ipynb")
         if ".ipynb_checkpoints" not in path.parts}
        for base in (tmp_path, ROOT)
    )  # fmt: skip
    assert made == committed, f"lectures/{name} is not what solutions/{name} gives: run `dgm release {name}`"
