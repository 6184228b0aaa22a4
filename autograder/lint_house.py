"""The rules of the house that ruff does not know: `dgm lint`.

Errors fail the lint: notebooks with outputs, machine paths, files and packages that grew too long, test cells that
do not speak data. Warnings (long cells, long notebooks) are printed and do not fail.
"""

import argparse
import ast
import io
import json
import re
import statistics
import subprocess
import sys
import tokenize
from pathlib import Path

import nbformat

FILE_LINES = 350  # lines of code of one file of dgm_course
PACKAGE_LINES = 5_500  # lines of code of dgm_course
NOTEBOOK_BYTES = 100_000  # a stripped notebook
CELL_LINES = 25  # nine code cells in ten are shorter
MEDIAN_LINES = 12

STRIP = (
    "nbstripout --keep-id --extra-keys "
    '"metadata.language_info cell.metadata.execution cell.metadata.lines_to_next_cell"'
)
PERSONAL_FOLDER = re.compile(r"(?:/home/|/Users/|[A-Z]:\\+Users\\+)\w+")
SKIPPED_TOKENS = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(source: str) -> int:
    """Number of lines of Python code in `source`, without blank lines, comments and docstrings."""
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                docstrings.update(range(first.lineno, first.end_lineno + 1))
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SKIPPED_TOKENS:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def check_size(root: Path) -> list[str]:
    """Errors for files and packages over their budget of code lines; prints the count of the package."""
    files = sorted((root / "dgm_course").rglob("*.py"))
    counts = {path: code_lines(path.read_text(encoding="utf-8")) for path in files}
    total = sum(counts.values())
    print(f"dgm_course: {total} lines of code in {len(counts)} files (at most {PACKAGE_LINES})")
    errors = [
        f"{path.relative_to(root)}: {n} lines of code, at most {FILE_LINES} wanted; split it by method"
        for path, n in counts.items()
        if n > FILE_LINES
    ]
    if total > PACKAGE_LINES:
        errors.append(f"dgm_course: {total} lines of code, at most {PACKAGE_LINES} wanted")
    return errors


def unstripped(nb) -> list[str]:
    """What `nbstripout` with the keys of this project would still remove from a notebook."""
    found = ["metadata.language_info"] if "language_info" in nb["metadata"] else []
    for i, cell in enumerate(nb["cells"]):
        if cell.get("outputs"):
            found.append(f"outputs of cell {i}")
        if cell.get("execution_count") is not None:
            found.append(f"execution count of cell {i}")
        extra = cell["metadata"].keys() & {"execution", "lines_to_next_cell"}
        found += [f"metadata.{key} of cell {i}" for key in sorted(extra)]
    return found


def check_notebook(path: Path) -> tuple[list[str], list[str]]:
    """Errors and warnings for one notebook: stripped, ids of its own, and pleasant to read."""
    text = path.read_text(encoding="utf-8")
    nb = json.loads(text)  # as it stands: nbformat mends doubled ids in silence
    errors = [f"not stripped ({', '.join(found[:3])}); run {STRIP} {path}" for found in [unstripped(nb)] if found]
    ids = [cell.get("id") for cell in nb["cells"]]
    if None in ids or len(set(ids)) < len(ids):
        errors.append("each cell needs an id of its own (nbformat 4.5)")
    elif nbformat.writes(nbformat.reads(text, as_version=4)).rstrip() != text.rstrip():
        errors.append("not as JupyterLab writes it (one line of the file for each line of a cell); save it there once")
    for cell in nb["cells"]:
        if "checks.summary(" in "".join(cell["source"]) and "skip-execution" not in cell["metadata"].get("tags", ()):
            errors.append("the cell of checks.summary needs the tag skip-execution: graders would see 0 points there")
    code = ["".join(cell["source"]).strip() for cell in nb["cells"] if cell["cell_type"] == "code"]
    lengths = [len(source.splitlines()) for source in code if source]
    warnings = []
    if (size := path.stat().st_size) > NOTEBOOK_BYTES:
        warnings.append(f"{size} bytes, under {NOTEBOOK_BYTES} wanted")
    if lengths and statistics.median(lengths) > MEDIAN_LINES:
        warnings.append(f"the median code cell has {statistics.median(lengths):g} lines, about 10 wanted")
    long = sum(n > CELL_LINES for n in lengths)
    if long > len(lengths) / 10:
        warnings.append(f"{long} of {len(lengths)} code cells are over {CELL_LINES} lines, at most one in ten wanted")
    return errors, warnings


def tracked_files(root: Path) -> list[Path]:
    """Files that git tracks, or would track, below `root`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    return [root / name for name in names if name and (root / name).is_file()]


def check_machine_paths(root: Path, files: list[Path]) -> list[str]:
    """Errors for text that names this checkout's folder or somebody's home folder.

    The grader and its tests speak of home folders for a reason, so there only the checkout's own folder is looked for.
    """
    errors = []
    here = str(root.resolve())
    for path in files:
        name = path.relative_to(root)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        own = [here] if here.count("/") > 1 and here in text else []
        personal = [] if name.parts[0] in ("autograder", "tests") else PERSONAL_FOLDER.findall(text)
        errors += [f"{name}: machine path {found!r}" for found in sorted({*own, *personal})]
    return errors


def check_test_cells(root: Path) -> list[str]:
    """Errors from the lint of test cells, one per finding."""
    from autograder import testcell_lint

    return testcell_lint.lint(sorted(root.glob("solutions/*/*.ipynb")))


def main(argv: list[str] | None = None) -> int:
    """Run all checks below the current folder. Returns 0 if nothing must be mended, else 1."""
    parser = argparse.ArgumentParser(prog="dgm lint", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the current folder)")
    root = parser.parse_args(argv).root
    errors, warnings = check_size(root), []
    for path in sorted([*root.glob("solutions/*/*.ipynb"), *root.glob("lectures/*/*.ipynb")]):
        name = path.relative_to(root)
        found, remarks = check_notebook(path)
        errors += [f"{name}: {text}" for text in found]
        if name.parts[0] == "solutions":
            warnings += [f"{name}: {text}" for text in remarks]
    errors += check_machine_paths(root, tracked_files(root))
    errors += check_test_cells(root)
    for text in warnings:
        print(f"warning: {text}")
    for text in errors:
        print(f"error: {text}", file=sys.stderr)
    print(f"dgm lint: {len(errors)} errors, {len(warnings)} warnings")
    return 1 if errors else 0
