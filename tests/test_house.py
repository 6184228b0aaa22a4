"""The house holds together: dependencies and pins agree, and `dgm lint` sees what it is there for."""

import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat import v4
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from autograder import lint_house

ROOT = Path(__file__).parents[1]
# By path: once setuptools is imported, its own vendored copies would be listed as installed, too.
SITE = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
INSTALLED = {canonicalize_name(found.metadata["Name"]): found for found in importlib.metadata.distributions(path=SITE)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared():
    """Requirements of pyproject.toml, core and extras, as name -> list of ranges."""
    found = {}
    for text in [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]:
        requirement = Requirement(text)
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement.specifier)
    return found


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def environment():
    """The pip part of environment.yml: names, and options such as `-e .`."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    return dependencies[:-1], dependencies[-1]["pip"]


def test_every_dependency_has_a_pin_inside_its_range():
    for name, ranges in declared().items():
        assert all(pins()[name] in specifier for specifier in ranges), name


def test_every_pin_is_exact_without_a_local_tag():
    for name, version in pins().items():
        assert name == canonicalize_name(name)
        assert Version(version).local is None, f"{name}=={version} would tie everyone to one platform's build"


def test_conda_gives_python_and_pip_and_pip_gives_the_pinned_rest():
    conda, pip = environment()
    assert [re.split("[=<>]", name)[0] for name in conda] == ["python", "pip"]
    assert conda[0].split("=")[1] in Requirement(f"python{PROJECT['requires-python']}").specifier
    assert [line for line in pip if line.startswith("-")] == ["-c constraints.txt", "-e ."]
    assert {canonicalize_name(line) for line in pip if not line.startswith("-")} == set(declared())


def test_every_dependency_stands_with_its_reason():
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if re.match(r"      - \w", line) and not re.search(r"# \w+", line)]
    assert not bare


def test_installed_versions_are_the_pinned_ones():
    installed = {name: Version(found.version).public for name, found in INSTALLED.items()}
    assert set(declared()) <= set(installed)
    # What a platform does not need (pexpect on Windows, say) is pinned and not installed.
    wrong = {name: installed[name] for name, pin in pins().items() if installed.get(name, pin) != pin}
    assert not wrong, "installed in other versions than the pinned ones"


def test_everything_a_dependency_pulls_in_is_pinned():
    todo = [(Requirement(name), "") for name in declared()]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        assert name in pins(), f"{name} has no pin"
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                todo += [(Requirement(r), wanted) for r in INSTALLED[name].requires or []]


def test_dgm_is_the_console_script_of_the_autograder():
    assert PROJECT["scripts"] == {"dgm": "autograder.cli:main"}


def test_code_lines_counts_code_alone():
    source = (
        '"""Module\ntext."""\n\nimport os  # why\n\n\n'
        'def f(\n    x,\n):\n    """Text."""\n    # note\n    return """a\nb"""\n'
    )
    assert lint_house.code_lines(source) == 6  # import, three lines of signature, two of return


def graded(grade_id, **flags):
    fields = {"grade": False, "grade_id": grade_id, "locked": False, "schema_version": 3, "solution": False, **flags}
    return {"nbgrader": fields}


@pytest.fixture
def checkout(tmp_path):
    """A small git checkout that passes the lint."""
    (tmp_path / "dgm_course").mkdir()
    (tmp_path / "dgm_course" / "nn.py").write_text('"""Text."""\n\nx = 1\n')
    folder = tmp_path / "solutions" / "01_example"
    folder.mkdir(parents=True)
    setup = v4.new_code_cell("x = 1", id="a", metadata=graded("setup", locked=True))
    nbformat.write(v4.new_notebook(cells=[setup]), folder / "01_example.ipynb")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def change_notebook(checkout, change):
    path = checkout / "solutions" / "01_example" / "01_example.ipynb"
    nb = nbformat.read(path, as_version=4)
    change(nb)
    for cell in nb.cells:
        cell.source = cell.source.splitlines(keepends=True)
    path.write_text(json.dumps(nb, indent=1, sort_keys=True), encoding="utf-8")  # nbformat would mend doubled ids


def lint(checkout, capsys):
    status = lint_house.main(["--root", str(checkout)])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_lint_is_content_with_a_clean_checkout(checkout, capsys):
    assert lint(checkout, capsys)[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda nb: nb.cells[0].update(outputs=[v4.new_output("stream", text="hello")]), "outputs of cell 0"),
        (lambda nb: nb.cells[0].update(execution_count=3), "execution count of cell 0"),
        (lambda nb: nb.metadata.update(language_info={"name": "python"}), "metadata.language_info"),
        (lambda nb: nb.cells[0].metadata.update(execution={"a": "b"}), "metadata.execution of cell 0"),
        (lambda nb: nb.cells.append(nb.cells[0].copy()), "each cell needs an id of its own"),
        (lambda nb: nb.cells[0].update(source="checks.summary(f=1)"), "needs the tag skip-execution"),
        (lambda nb: nb.cells[0].update(source="# see /home/somebody/data"), "machine path '/home/somebody'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Non-unique cell id")
def test_lint_refuses(checkout, capsys, change, message):
    change_notebook(checkout, change)
    status, text = lint(checkout, capsys)
    assert status == 1
    assert message in text


def test_lint_wants_notebooks_whose_diffs_are_readable(checkout, capsys):
    path = checkout / "solutions" / "01_example" / "01_example.ipynb"
    path.write_text(json.dumps(json.loads(path.read_text())), encoding="utf-8")
    status, text = lint(checkout, capsys)
    assert status == 1
    assert "not as JupyterLab writes it" in text


def test_lint_reads_the_test_cells(checkout, capsys):
    cell = v4.new_code_cell("f(1)[0]", id="b", metadata=graded("f_visible", grade=True, locked=True, points=1))
    change_notebook(checkout, lambda nb: nb.cells.append(cell))
    status, text = lint(checkout, capsys)
    assert status == 1
    assert "f_visible" in text


def test_lint_names_the_checkouts_own_folder_wherever_it_stands(checkout, capsys):
    (checkout / "notes.md").write_text(f"Run it in {checkout}.\n")
    status, text = lint(checkout, capsys)
    assert status == 1
    assert f"notes.md: machine path '{checkout}'" in text


def test_lint_refuses_a_file_that_grew_too_long(checkout, capsys):
    (checkout / "dgm_course" / "nn.py").write_text("x = 1\n" * (lint_house.FILE_LINES + 1))
    status, text = lint(checkout, capsys)
    assert status == 1
    assert "split it by method" in text


def test_long_cells_are_a_warning(checkout, capsys):
    change_notebook(checkout, lambda nb: nb.cells[0].update(source="x = 1\n" * 40))
    status, text = lint(checkout, capsys)
    assert status == 0
    assert "warning: solutions/01_example/01_example.ipynb: the median code cell has 40 lines" in text


def test_make_says_what_it_can_do():
    text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "lab", "test", "test-all", "release", "lint", "bench", "edit", "clean"):
        assert f"make {target}" in text


def test_the_package_imports_nothing_from_the_grader():
    code = "import sys, dgm_course.flows, dgm_course.checks; print('autograder' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
