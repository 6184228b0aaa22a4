"""From `git clone` to the first passed check: `python -m benchmarks.first_check`.

Publishes this course to a temporary folder, and takes the time of what a student does then, in an environment that is
installed already: clone, start a kernel, run the set-up cell, the answer to the first exercise, and its visible test.
The clone is from the same disk; a network adds its own time for the size that is printed.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from autograder.notebooks import grade_id
from autograder.publish import publish
from autograder.release import regions

COURSE = Path(__file__).resolve().parents[1]
NAME, EXERCISE = "06_coupling_flows", "additive_coupling"


def reference():
    """The answer of the solution, without the lines that mark it."""
    path = COURSE / "solutions" / NAME / f"{NAME}.ipynb"
    (source,) = [c.source for c in nbformat.read(path, as_version=4).cells if grade_id(c) == EXERCISE]
    assert regions(source, "SOLUTION")
    return "\n".join(line for line in source.splitlines() if not line.strip().startswith("### "))


def measure(folder):
    """Seconds from the start to the end of each step."""
    publish(COURSE, folder / "published")
    started, steps = time.perf_counter(), {}

    def step(name):
        steps[name] = time.perf_counter() - started

    student = folder / "student"
    subprocess.run(["git", "clone", "-q", f"file://{folder}/published", student], check=True)
    step("cloned")
    path = student / "lectures" / NAME / f"{NAME}.ipynb"
    cells = {grade_id(cell): cell for cell in nbformat.read(path, as_version=4).cells}
    wanted = [cells["setup"], cells[EXERCISE], cells[f"{EXERCISE}_visible"]]
    wanted[1].source = reference()
    notebook = nbformat.v4.new_notebook(cells=wanted)
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    with client.setup_kernel(env={**os.environ, "PYTHONPATH": str(student)}):
        step("kernel started")
        for number, name in enumerate(("set-up cell run", "answer run", "first check passed")):
            client.execute_cell(notebook.cells[number], number)
            step(name)
    assert "all visible checks passed" in str(notebook.cells[-1].outputs)
    size = sum(file.stat().st_size for file in (folder / "published" / ".git").rglob("*") if file.is_file())
    return steps, size


def main(_rounds=1):
    """Prints a line for each step of one round."""
    with tempfile.TemporaryDirectory() as folder:
        steps, size = measure(Path(folder))
    for name, seconds in steps.items():
        print(f"{seconds:6.1f} s  {name}")
    print(f"the clone holds {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
