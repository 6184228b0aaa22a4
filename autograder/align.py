"""Puts a damaged notebook right: finds each cell of the release again, whatever an editor or a student did to it.

Cells are recognised by their grade_id, then by cell id, by exact text, by the names that they define, and last by
likeness of text. A doubtful guess is worse than a clear report: of two equally like texts neither matches. Of two
definitions of one name the later counts, as it does when both run.
"""

import ast
import contextlib
from difflib import SequenceMatcher
from functools import lru_cache

from IPython.core.inputtransformer2 import TransformerManager

LIKE = 0.6  # least likeness of an answer to the released cell, and
MARGIN = 0.1  # how much likelier the best cell must be than the next


def align(notebook, assignment):
    """Gives the cells of a notebook the nbgrader metadata that they have lost.

    Args:
        notebook: plain dicts, from `read_submission`; not changed.
        assignment: `Assignment`.

    Returns:
        `(cells, repairs)`: cells in the student's order, each released one known by its grade_id, and what was put
        right, in words.
    """
    cells = [{**cell, "source": clean_text(cell["source"])} for cell in notebook["cells"]]
    cells = [cell for cell in cells if not is_colab(cell["source"])]
    found, repairs = {}, []  # released key -> index in cells
    for match in (by_grade_id, by_cell_id, by_text, by_names, by_likeness):
        open_keys = [key for key in assignment.released if key not in found]
        free = [i for i in range(len(cells)) if i not in found.values()]
        for key, index, how in match(open_keys, free, cells, assignment.released):
            if key in found or index in found.values():
                continue
            found[key] = index
            if how:
                repairs.append(f"{key}: {how}")
    spare = set(range(len(cells))) - set(found.values())
    for key, index in found.items():
        released = assignment.released[key]
        if not is_answer(released):
            if released["source"].strip() != cells[index]["source"].strip():
                repairs.append(f"{key}: the text was changed; it counts as released")
        elif released["cell_type"] == "code":
            if cells[index]["cell_type"] != "code":
                repairs.append(f"{key}: it was a {cells[index]['cell_type']} cell; it is code again")
            joined = join_split(index, cells, spare, names_defined(released["source"]))
            if joined:
                repairs.append(f"{key}: it was split over {joined + 1} cells; they are joined")
    moved_out = take_out_of_locked(found, cells, assignment.released, repairs)
    keys = {index: key for key, index in found.items()}
    ungraded = [cell for cell in assignment.release["cells"] if grade_id_of(cell) is None]
    tags_by_id = {cell["id"]: tags_of(cell) for cell in ungraded if cell.get("id")}
    tags_by_text = {cell["source"].strip(): tags_of(cell) for cell in ungraded}
    for index, cell in enumerate(cells):
        if index in keys:
            released = assignment.released[keys[index]]
            cell["metadata"], cell["cell_type"] = released["metadata"], released["cell_type"]
        elif cell["source"] is not None:  # a demonstration keeps the tag that says grading does not need it
            known = tags_by_id.get(cell.get("id"), tags_by_text.get(cell["source"].strip(), []))
            cell["metadata"] = {"tags": sorted({*tags_of(cell), *known})}
    cells = [c for i, cell in enumerate(cells) for c in (*moved_out.get(i, []), cell) if c["source"] is not None]
    return put_back_given(cells, assignment.released, repairs), repairs


def take_out_of_locked(found, cells, released, repairs):
    """Answers that were merged into a locked cell, e.g. into their own tests: index of that cell -> answer cells."""
    taken = {}
    for key in released:
        if key in found or not is_code_answer(released[key]):
            continue
        wanted = names_defined(released[key]["source"])
        for other, index in found.items():
            source, locked = cells[index]["source"], released[other]["source"].strip()
            if not is_answer(released[other]) and wanted & names_defined(source) and locked != source.strip():
                own = source.replace(locked, "")  # the locked text runs from the released cell
                taken.setdefault(index, []).append({**released[key], "source": own.strip("\n")})
                repairs.append(f"{key}: the answer was in the cell {other}; it is taken from there")
                break
    return taken


def put_back_given(cells, released, repairs):
    """Moves given cells (set-up, objects that answers and tests need) before the cells that they stand before."""
    order, keys = {key: i for i, key in enumerate(released)}, [grade_id_of(cell) for cell in cells]
    for key, cell in released.items():
        meta = cell["metadata"]["nbgrader"]
        if cell["cell_type"] != "code" or meta.get("grade") or meta.get("solution"):
            continue
        place = keys.index(key) if key in keys else None
        first = next((i for i, other in enumerate(keys) if order.get(other, -1) > order[key]), None)
        if place is not None and first is not None and first < place:
            cells.insert(first, cells.pop(place))
            keys.insert(first, keys.pop(place))
            repairs.append(f"{key}: moved back to its place")
    return cells


# Each of these yields (key, index of the cell, what to report or None), the surest first.


def by_grade_id(keys, free, cells, released):
    """By nbgrader's own name. Of several copies, the first that was worked on."""
    places = {}
    for i in free:
        places.setdefault(grade_id_of(cells[i]), []).append(i)
    for key in keys:
        copies = places.get(key, [])
        edited = [i for i in copies if cells[i]["source"].strip() != released[key]["source"].strip()]
        if copies:
            chosen = edited[0] if edited and is_answer(released[key]) else copies[0]
            yield key, chosen, "there were copies of the cell; all of them run" if len(copies) > 1 else None


def by_cell_id(keys, free, cells, released):
    """By the id that Jupyter gives each cell, or that Colab keeps in the metadata."""
    for key in keys:
        for i in free:
            if released[key].get("id") and released[key]["id"] in (cells[i].get("id"), cells[i]["metadata"].get("id")):
                yield key, i, "nbgrader's metadata was gone; recognised by the cell's id"


def by_text(keys, free, cells, released):
    """By the very text."""
    for key in keys:
        text = released[key]["source"].strip()
        for i in free:
            if text and cells[i]["source"].strip() == text:
                yield key, i, "nbgrader's metadata was gone; recognised by its text"


def by_names(keys, free, cells, released):
    """By the functions and classes that an answer defines."""
    keys = [key for key in keys if is_code_answer(released[key])]
    defined = {i: names_defined(cells[i]["source"]) for i in free} if keys else {}
    for key in keys:
        wanted = names_defined(released[key]["source"])
        candidates = [i for i in free if wanted & defined[i]]
        if candidates:
            most = max(len(wanted & defined[i]) for i in candidates)
            best = [i for i in candidates if len(wanted & defined[i]) == most]
            worked_on = [i for i in best if cells[i]["source"].strip() != released[key]["source"].strip()]
            best = (worked_on or best)[-1]
            names = ", ".join(sorted(wanted & defined[best]))
            yield key, best, f"nbgrader's metadata was gone; recognised by what it defines ({names})"


def by_likeness(keys, free, cells, released):
    """By likeness of text, if one cell is clearly the likeliest."""
    scores = []
    for key in keys:
        if is_answer(released[key]):
            text = released[key]["source"]
            ranked = sorted(((SequenceMatcher(None, text, cells[i]["source"]).ratio(), i) for i in free), reverse=True)
            second = ranked[1][0] if len(ranked) > 1 else 0.0
            if ranked and ranked[0][0] >= LIKE and ranked[0][0] - second >= MARGIN:
                scores.append((*ranked[0], key))
    for score, index, key in sorted(scores, reverse=True):
        yield key, index, f"nbgrader's metadata was gone; recognised by likeness ({score:.0%})"


def join_split(index, cells, spare, wanted):
    """Joins an answer that does not parse with the cells after it until it does. Returns how many cells were joined."""
    text, used = cells[index]["source"], []
    if not wanted or parses(text):
        return 0
    for following in range(index + 1, min(index + 4, len(cells))):
        if following not in spare:
            break
        used.append(following)
        text = f"{text}\n{cells[following]['source']}"
        if parses(text) and wanted <= names_defined(text):
            cells[index]["source"] = text
            for i in used:
                cells[i]["source"] = None
            return len(used)
    return 0


@lru_cache(maxsize=4096)  # most cells are the same in every submission
def names_defined(source):
    """Names that a text defines at its top level (functions, classes, variables); empty if it does not parse."""
    tree = parsed(source)
    names = set()
    for node in tree.body if tree else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return frozenset(names)


@lru_cache(maxsize=256)  # asked for several times in a submission
def parsed(source):
    """The syntax tree of a cell, IPython's own syntax included; None if it has an error."""
    for transform in (str, lambda text: TransformerManager().transform_cell(strip_fence(text))):  # the quick way first
        with contextlib.suppress(Exception):
            return ast.parse(transform(source))
    return None


def parses(source):
    """Whether a cell is free of syntax errors."""
    return parsed(source) is not None


def strip_fence(source):
    """Code without the Markdown fence around it."""
    lines = source.strip().splitlines()
    fenced = len(lines) > 1 and lines[0].startswith("```") and lines[-1].startswith("```")
    return "\n".join(lines[1:-1]) if fenced else source


def clean_text(source):
    """Line ends as Python wants them, no NUL characters."""
    return source.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def grade_id_of(cell):
    """The cell's grade_id, or None."""
    meta = cell["metadata"].get("nbgrader")
    found = meta.get("grade_id") if isinstance(meta, dict) else None
    return found if isinstance(found, str) else None


def tags_of(cell):
    """The cell's tags."""
    found = cell["metadata"].get("tags")
    return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []


def is_colab(source):
    """Whether a text is the cell that `dgm publish` adds for Colab, and nothing else."""
    text = source.strip()
    return text.startswith("# dgm-colab:") and text.endswith("set_up(home)")


def is_answer(cell):
    """Whether a released cell is one that students fill in."""
    return bool(cell["metadata"].get("nbgrader", {}).get("solution"))


def is_code_answer(cell):
    """Whether it is to be filled with code."""
    return is_answer(cell) and cell["cell_type"] == "code"
