"""`dgm start`: JupyterLab on a page with the lectures, their state, and the points so far."""

import argparse
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

from autograder.notebooks import CourseError, notebook_path

TITLES = {
    "01_maximum_likelihood": "Maximum likelihood",
    "02_autoregressive_models": "Autoregressive models",
    "03_pixel_models": "Pixel models",
    "04_sequence_models": "Sequence models",
    "05_normalizing_flows": "Normalizing flows",
    "06_coupling_flows": "Coupling flows",
    "07_glow": "Glow",
    "08_autoregressive_flows": "Autoregressive flows",
    "09_monotone_flows": "Monotone flows",
    "10_residual_and_continuous_flows": "Residual and continuous flows",
    "11_dequantization": "Dequantization",
    "12_variational_autoencoders": "Variational autoencoders",
    "13_flows_in_vaes": "Flows in VAEs",
    "14_adversarial_learning": "Adversarial learning",
    "15_diffusion": "Diffusion",
    "16_model_zoo": "Model zoo",
}
PAGE = """\
# Deep generative models

| | Lecture | State | Points |
|---|---|---|---|
{rows}

**{earned:g} of {points:g}** visible points so far, as the notebooks were last run and saved. Hidden tests and written
answers count when you have handed in. This page is written anew by each `make lab` (while JupyterLab is open: by
`dgm start --page`).
"""
TEST = re.compile(r"^with checks\.exercise\(\"(\w+)\", points=([\d.]+)\)", re.MULTILINE)  # a visible one
# JupyterLab's settings: Markdown as a page, no question about news; students get no teachers' panels.
LAB = Path(__file__).parent / "lab"


def main(argv):
    """Writes the page and opens JupyterLab on it. Returns only if that is not to be, or cannot be."""
    parser = argparse.ArgumentParser(prog="dgm start", description="JupyterLab on a page with the lectures.")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    args, more = parser.parse_known_args(argv)
    try:
        folder = find_lectures(Path.cwd())
    except CourseError as error:
        print(f"dgm start: {error}", file=sys.stderr)
        return 2
    url = "/lab/tree/START.md"
    try:
        (folder / "START.md").write_text(page(folder), encoding="utf-8")
    except OSError as error:
        print(f"dgm start: {folder} cannot be written ({error.strerror}): no start page, and what you do there cannot "
              "be saved; make room, or copy the folder to a place where you can write", file=sys.stderr)  # fmt: skip
        url = "/lab/tree/lectures"
    if args.page:
        return 0
    if importlib.util.find_spec("jupyterlab") is None:
        print("dgm start: JupyterLab is not installed here: pip install -c constraints.txt -e '.[lab,grade]'",
              file=sys.stderr)  # fmt: skip
        return 2
    settings = [LAB / "everyone"] if (folder / "solutions").is_dir() else [LAB / "everyone", LAB / "students"]
    paths = [*map(str, settings), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", f"--LabApp.default_url={url}"]
    sys.stdout.flush()
    os.execv(sys.executable, [*command, *more])


def find_lectures(start):
    """The nearest folder upwards that has lectures.

    Raises:
        CourseError: if there is none.
    """
    for folder in (start, *start.parents):
        if any(folder.glob("lectures/*/*.ipynb")):
            return folder
    raise CourseError(f"no lectures in {start} or above it: run this in the folder of the course")


def page(folder):
    """The start page, in Markdown."""
    rows, total_earned, total_points = [], 0, 0
    others = sorted(path.stem for path in folder.glob("lectures/*/*.ipynb") if path.stem == path.parent.name)
    for name in [*TITLES, *(name for name in others if name not in TITLES)]:
        inside = notebook_path("", "lectures", name)
        number, title = name.partition("_")[0], TITLES.get(name, name)
        state, earned, points = progress(folder / inside)
        if (folder / inside).is_file():
            title = f"[{title}]({inside.as_posix()})"
        rows.append(f"| {number} | {title} | {state} | {f'{earned:g} of {points:g}' if points else ''} |")
        total_earned, total_points = total_earned + earned, total_points + points
    return PAGE.format(rows="\n".join(rows), earned=total_earned, points=total_points)


def progress(path):
    """How far a student has come with a lecture, from what its saved notebook shows.

    Returns:
        `(state, points earned, points of all visible tests)`; the state in words.
    """
    if not path.is_file():
        return "not there yet", 0, 0
    try:
        cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        return "cannot be read: is it a notebook?", 0, 0
    tests, passed = {}, set()
    for cell in cells:
        for name, points in TEST.findall("".join(cell["source"])):
            tests[name] = float(points)
            outputs = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.get("outputs", [])]
            if f"{name}: all visible checks passed" in "".join("".join(text) for text in outputs):
                passed.add(name)
    if not any(cell.get("outputs") for cell in cells):
        state = "not started"
    else:
        state = f"{len(passed)} of {len(tests)} exercises done"
    return state, sum(tests[name] for name in passed), sum(tests.values())
