"""Notebooks as percent text: `dgm edit NAME` writes the text outside the tree, `dgm save NAME` brings it back.

The text carries each cell's id and metadata in its header, so an edit lands in its own cell and nothing is guessed:

    # %% id="0f3a" nbgrader={"grade": false, "grade_id": "squeeze", ...} tags=["setup"]

A cell without an id, or with an id that stands there twice (a copy), gets a new one. Outputs never travel.
"""

import argparse
import copy
import hashlib
import os
import sys
from pathlib import Path

import nbformat


def edit_folder() -> Path:
    """The folder of the text files: `DGM_EDIT`, or a cache folder of the user."""
    if folder := os.environ.get("DGM_EDIT"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dgm-course" / "edit"


def notebook_path(name: str) -> Path:
    """`06_coupling_flows`, or a path to any notebook, as the path of the notebook."""
    return Path(name) if name.endswith(".ipynb") else Path("solutions") / name / f"{name}.ipynb"


def to_text(nb) -> str:
    """A notebook as jupytext's percent text, with ids in the cell headers and without outputs."""
    import jupytext

    nb = copy.deepcopy(nb)
    nb.metadata["jupytext"] = {"cell_metadata_filter": "all", "notebook_metadata_filter": "-all"}
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict({"id": cell.id, **cell.metadata})
    return jupytext.writes(nb, fmt="py:percent")


def to_notebook(text: str, original):
    """The notebook that `text` describes.

    Args:
        text: percent text as `to_text` writes it, edited or not.
        original: the notebook it came from; its notebook metadata, attachments and outputs are kept.

    Returns:
        A new notebook. A cell keeps its outputs only if its source did not change.
    """
    import jupytext

    edited = jupytext.reads(text, fmt="py:percent")
    before = {cell.id: cell for cell in original.cells}
    used = set()
    for cell in edited.cells:
        wanted = cell.metadata.pop("id", None)
        cell.id = wanted if wanted and wanted not in used else new_id(cell.source, used)
        used.add(cell.id)
        old = before.get(cell.id)
        if old is not None and "attachments" in old and cell.cell_type == old.cell_type:
            cell.attachments = old.attachments
        if old is not None and cell.cell_type == old.cell_type == "code" and cell.source == old.source:
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
    edited.metadata = copy.deepcopy(original.metadata)
    edited.nbformat, edited.nbformat_minor = 4, 5
    return edited


def new_id(source: str, used: set[str]) -> str:
    """An id for a new cell, from its source, so that saving twice gives the same notebook."""
    n = 0
    while (found := hashlib.sha256(f"{n}{source}".encode()).hexdigest()[:8]) in used:
        n += 1
    return found


def edit(path: Path, folder: Path) -> Path:
    """Write the text of the notebook at `path` into `folder` and return its path.

    A copy, `NAME.base.py`, stays beside it, to see later on whether the text or the notebook was changed.

    Raises:
        FileExistsError: there is a text with edits that were not saved.
        ValueError: a cell would not survive the way to text and back.
    """
    nb = nbformat.read(path, as_version=4)
    text = to_text(nb)
    for old, new in zip(nb.cells, to_notebook(text, nb).cells, strict=True):
        if old != new:
            raise ValueError(f"{path}: cell {old.id} changes on the way to text and back; edit it in JupyterLab")
    target, base = folder / f"{path.stem}.py", folder / f"{path.stem}.base.py"
    if target.exists() and target.read_text(encoding="utf-8") not in (text, base.read_text(encoding="utf-8")):
        raise FileExistsError(f"{target} has edits; save them, or remove the file to start from the notebook again")
    folder.mkdir(parents=True, exist_ok=True)
    for file in (base, target):
        file.write_text(text, encoding="utf-8")
    return target


def save(path: Path, folder: Path) -> bool:
    """Bring the text back into the notebook at `path`. Returns whether the notebook changed.

    Raises:
        FileNotFoundError: there is no text for this notebook.
        FileExistsError: the notebook was changed since its text was made, so saving would undo that.
    """
    target, base = folder / f"{path.stem}.py", folder / f"{path.stem}.base.py"
    if not target.exists():
        raise FileNotFoundError(f"{target} is not there; run dgm edit first")
    original = nbformat.read(path, as_version=4)
    if to_text(original) != base.read_text(encoding="utf-8"):
        raise FileExistsError(f"{path} was changed after {target} was made; move that file away and edit anew")
    nb = to_notebook(target.read_text(encoding="utf-8"), original)
    written = nbformat.writes(nb).rstrip("\n") + "\n"
    if written == path.read_text(encoding="utf-8"):
        return False
    nbformat.validate(nb)
    path.write_text(written, encoding="utf-8", newline="\n")
    for file in (base, target):
        file.write_text(to_text(nb), encoding="utf-8")
    return True


def main(argv: list[str] | None = None, prog: str = "dgm edit") -> int:
    """`dgm edit NAME` or `dgm save NAME`; the verb is the last word of `prog`."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=as_written)
    parser.add_argument("notebook", help="name of a lecture (06_coupling_flows) or path of a notebook")
    parser.add_argument("--folder", type=Path, help="folder of the text files (default: DGM_EDIT, or a cache)")
    args = parser.parse_args(argv)
    path, folder = notebook_path(args.notebook), args.folder or edit_folder()
    if not path.is_file():
        print(f"{prog}: there is no notebook {path}", file=sys.stderr)
        return 1
    try:
        if prog.endswith("save"):
            changed = save(path, folder)
            print(f"{path} is {'up to date now' if changed else 'unchanged'}")
        else:
            print(edit(path, folder))
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    return 0
