"""A notebook travels to percent text and back without losing anything."""

import nbformat
import pytest
from nbformat import v4

from autograder import edit


def graded(grade_id, **flags):
    fields = {"grade": False, "grade_id": grade_id, "locked": False, "schema_version": 3, "solution": False, **flags}
    return {"nbgrader": fields}


@pytest.fixture
def notebook(tmp_path):
    """A small lecture with every kind of cell and the texts that are hard to carry."""
    cells = [
        v4.new_markdown_cell("# Title\n\n$p(x) = p(z) \\left|\\det J\\right|$\n\n# %% not a cell", id="title"),
        v4.new_code_cell("import math\n\n%matplotlib inline", id="setup",
                         metadata={"tags": ["setup"], **graded("setup", locked=True)}),
        v4.new_code_cell('def f(x):\n    """Text."""\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION',
                         id="a1", metadata=graded("f", solution=True)),
        v4.new_code_cell("f(1)\n\n", id="a2", metadata={"tags": ["raises-exception"]}),
        v4.new_code_cell("", id="a3"),
        v4.new_markdown_cell("```python\nx = 1\n```\n\n<details><summary>Hint</summary>a \"quote\"</details>", id="a4"),
        v4.new_raw_cell("raw text", id="a5"),
        v4.new_markdown_cell("Derive it.", id="a6", metadata=graded("written_f", grade=True, solution=True, points=4)),
    ]  # fmt: skip
    path = tmp_path / "07_example.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "edit"


def cells_by_id(path):
    return {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}


def test_unchanged_text_leaves_the_file_byte_identical(notebook, folder):
    before = notebook.read_bytes()
    edit.edit(notebook, folder)
    assert edit.save(notebook, folder) is False
    nb = nbformat.read(notebook, as_version=4)
    nbformat.write(edit.to_notebook(edit.to_text(nb), nb), notebook)
    assert notebook.read_bytes() == before


def test_an_edit_lands_in_its_own_cell(notebook, folder):
    before = cells_by_id(notebook)
    text = edit.edit(notebook, folder)
    text.write_text(text.read_text().replace("return x", "return 2 * x").replace("Derive it.", "Derive it twice."))
    assert edit.save(notebook, folder) is True
    after = cells_by_id(notebook)
    assert list(after) == list(before)
    assert [i for i in before if before[i] != after[i]] == ["a1", "a6"]
    assert "return 2 * x" in after["a1"].source
    assert after["a6"].source == "Derive it twice."
    assert all(before[i].metadata == after[i].metadata for i in before)


def test_cells_can_be_moved_added_copied_and_removed(notebook, folder):
    text = edit.edit(notebook, folder)
    cells = text.read_text().split("\n# %%")
    setup = next(c for c in cells if 'id="setup"' in c)
    cells = [c for c in cells if 'id="a3"' not in c]
    text.write_text("\n# %%".join([*cells, "\ny = 3\n", setup]))
    edit.save(notebook, folder)
    after = nbformat.read(notebook, as_version=4)
    nbformat.validate(after)
    ids = [cell.id for cell in after.cells]
    assert "a3" not in ids
    assert len(set(ids)) == len(ids) == 9
    assert ids.index("setup") == 1
    assert after.cells[-2].source == "y = 3"
    assert after.cells[-1].source == after.cells[1].source


def test_metadata_can_be_edited_as_text(notebook, folder):
    text = edit.edit(notebook, folder)
    text.write_text(text.read_text().replace('"points": 4', '"points": 2'))
    edit.save(notebook, folder)
    assert cells_by_id(notebook)["a6"].metadata.nbgrader.points == 2


def test_unsaved_edits_are_never_overwritten(notebook, folder):
    text = edit.edit(notebook, folder)
    edit.edit(notebook, folder)  # nothing was edited, nothing is lost
    text.write_text(text.read_text().replace("return x", "return 2 * x"))
    with pytest.raises(FileExistsError, match="has edits; save them"):
        edit.edit(notebook, folder)
    edit.save(notebook, folder)
    edit.edit(notebook, folder)


def test_saving_never_undoes_what_the_notebook_got_in_between(notebook, folder):
    text = edit.edit(notebook, folder)
    notebook.write_text(notebook.read_text().replace("Derive it.", "Derive it slowly."))
    text.write_text(text.read_text().replace("return x", "return 2 * x"))
    with pytest.raises(FileExistsError, match="was changed after"):
        edit.save(notebook, folder)
    assert "slowly" in notebook.read_text()


def test_saving_twice_changes_nothing_more(notebook, folder):
    text = edit.edit(notebook, folder)
    text.write_text(text.read_text() + "\n# %%\nnew = 1\n")
    assert edit.save(notebook, folder) is True
    assert edit.save(notebook, folder) is False


def test_commands_say_what_is_missing(notebook, folder, capsys):
    assert edit.main(["no_such_lecture"]) == 1
    assert "no_such_lecture" in capsys.readouterr().err
    assert edit.main([str(notebook), "--folder", str(folder)], prog="dgm save") == 1
    assert "run dgm edit first" in capsys.readouterr().err
    assert edit.main([str(notebook), "--folder", str(folder)]) == 0
    assert edit.main([str(notebook), "--folder", str(folder)], prog="dgm save") == 0
    assert "unchanged" in capsys.readouterr().out
