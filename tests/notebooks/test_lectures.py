"""Every lecture runs: the solution without an error, the release to its end, and the release is up to date."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty

import matplotlib
import nbformat
import pytest
from IPython.paths import get_ipython_dir
from nbclient import NotebookClient
from nbformat import v4

from autograder.release import release

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in ROOT.glob("solutions/*/*.ipynb"))
TIMEOUT = 300  # seconds for one cell; generous, since time must not decide a test
MEMORY = 2_000  # MB
# Notes what the kernel opens for writing, makes, renames or removes, and whether it starts programs or connections.
AUDIT = """import os, sys
_changed = set()
def _note(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        mode, flags = args[1] or "", args[2] or 0
        if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _changed.add(os.path.abspath(os.fsdecode(args[0])))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"):
        _changed.update(os.path.abspath(os.fsdecode(a)) for a in args[:2] if isinstance(a, (str, bytes)))
    elif event in ("subprocess.Popen", "os.system", "socket.connect"):
        _changed.add(f"{event} {args[:2]}")
sys.addaudithook(_note)"""
CHANGED = "import json; print(json.dumps(sorted(_changed)))"
PEAK = """from pathlib import Path
status = Path("/proc/self/status")
print(status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else 0)"""  # kB of the kernel; 0 off Linux


def look_each_second(channel):
    """Cuts the wait for a reply into seconds.

    A slider talks on the channel on which nbclient waits, and now and then that eats the wake-up: without this, the
    reply is found only when the wait ends, after TIMEOUT.
    """
    wait = channel.get_msg

    async def get_msg(timeout):
        end = time.monotonic() + timeout
        while True:
            try:
                return await wait(timeout=1)
            except Empty:
                if time.monotonic() >= end:
                    raise

    channel.get_msg = get_msg


def run(folder, name, tmp_path):
    """Executes a notebook as Run All does, demonstrations included.

    Returns:
        The executed notebook, seconds, the peak memory of its kernel in MB, and what it changed, as paths.
    """
    shutil.copytree(ROOT / folder / name, tmp_path / name, dirs_exist_ok=True)
    nb = nbformat.read(tmp_path / name / f"{name}.ipynb", as_version=4)
    nb.cells = [v4.new_code_cell(AUDIT), *nb.cells, v4.new_code_cell(CHANGED), v4.new_code_cell(PEAK)]
    # By default nbclient leaves out the cells tagged skip-execution; here none is left out.
    client = NotebookClient(nb, timeout=TIMEOUT, kernel_name="python3", skip_cells_with_tag="",
                            resources={"metadata": {"path": str(tmp_path / name)}})  # fmt: skip
    client.on_notebook_start = lambda notebook: look_each_second(client.kc.shell_channel)
    inline = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}  # figures as a reader sees them
    start = time.perf_counter()
    client.execute(env=inline)  # raises CellExecutionError where a cell without the tag raises-exception fails
    seconds = time.perf_counter() - start
    _, *nb.cells, changed, peak = nb.cells
    return nb, seconds, int(peak.outputs[0].text) / 1000, json.loads(changed.outputs[0].text)


def strays(changed, folder):
    """What a lecture changed outside its own folder, beside caches and temporary files that are gone again."""
    caches = ("__pycache__", "torchinductor_")
    own = (folder, matplotlib.get_cachedir(), matplotlib.get_configdir(), get_ipython_dir(), os.devnull)
    changed = [path for path in changed if not any(name in path for name in caches)]
    temporary = [path for path in changed if path.startswith(tempfile.gettempdir()) and not Path(path).exists()]
    changed = [path for path in changed if path not in temporary]
    return [path for path in changed if not any(Path(path).is_relative_to(place) for place in own)]


def outputs(nb, wanted):
    """`(cell source, output)` for all outputs that `wanted` accepts."""
    return [(cell.source, out) for cell in nb.cells for out in cell.get("outputs", []) if wanted(out)]


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_runs_without_an_error(name, tmp_path, record_property):
    nb, seconds, megabytes, _ = run("solutions", name, tmp_path)
    record_property("measured", f"{seconds:.0f} s, {megabytes:.0f} MB")
    assert not outputs(nb, lambda out: out.output_type == "error")
    assert megabytes < MEMORY
    graded = v4.new_notebook(cells=[cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade")])
    assert not outputs(graded, lambda out: out.get("name") == "stderr"), "stock nbgrader takes points for stderr"
    plots = outputs(nb, lambda out: "image/png" in out.get("data", {}))
    assert plots, "a lecture shows figures"


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_exercise_never_stops_the_lecture(name, tmp_path, record_property):
    nb, seconds, megabytes, changed = run("lectures", name, tmp_path)
    record_property("measured", f"{seconds:.0f} s, {megabytes:.0f} MB")
    errors = outputs(nb, lambda out: out.output_type == "error")
    assert errors, "the tests of blank exercises must fail"
    assert not strays(changed, tmp_path / name), "a lecture writes into its own folder alone, and needs no network"


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


def test_what_a_lecture_must_not_do_is_seen(tmp_path):
    """Or else the test above would pass for nothing."""
    (tmp_path / "lecture").mkdir()
    deeds = ["open('mine.txt', 'w')", "open('../data.npz', 'r+b')", "os.mkdir('../new')", "open('../data.npz', 'rb')"]
    deeds += ["os.system('true')", "import pathlib; pathlib.Path('../other.txt').write_text('x')"]
    (tmp_path / "data.npz").write_bytes(b"x")
    code = "\n".join([AUDIT, *deeds, CHANGED])
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "lecture", capture_output=True, text=True, check=True)
    found = strays(json.loads(done.stdout), tmp_path / "lecture")
    assert {Path(path).name for path in found if path.startswith("/")} == {"data.npz", "new", "other.txt"}
    assert [path for path in found if path.startswith("os.system")]
