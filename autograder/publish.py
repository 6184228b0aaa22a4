"""`dgm publish DIR`: the repository that students get, without solutions, hidden tests, and their history."""

import copy
import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import quote, urlencode

import nbformat
from nbformat.v4 import new_code_cell

from autograder.notebooks import CourseError, notebook_path
from autograder.release import assignments, leaks_in

# Of the course; `tests`, `solutions` and what grading makes stay behind.
GIVEN = ["dgm_course", "data", "autograder", "pyproject.toml", "constraints.txt", "environment.yml"]
GIVEN += ["LICENSE", "LICENSE-text", ".gitattributes", ".gitignore"]
CODE = ("dgm_course/", "autograder/", "data/")  # reference implementations are for students to read

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
COLAB = """\
# dgm-colab: on Colab, this cell gets the course. Elsewhere it does nothing.
import importlib.util, os, subprocess, sys
if importlib.util.find_spec("google") and importlib.util.find_spec("google.colab"):
    home = os.path.abspath("dgm-course-TAG")
    if not os.path.isdir(home):
        clone = ["git", "clone", "-q", "--depth", "1", "--branch", "TAG", "ADDRESS", home]
        if subprocess.run(clone).returncode:
            raise RuntimeError("the course could not be fetched: look at the network, then run this cell again")
    sys.path.insert(0, home) if home not in sys.path else None
    from dgm_course.colab import set_up; set_up(home)"""

# nbgitpuller merges line by line and prefers the student's; a notebook is kept as a whole instead.
KEEP = """
# An edited lecture is never mixed with a corrected one.
lectures/*/*.ipynb -merge
"""

MAKEFILE = """\
# make lab: JupyterLab on a page with the lectures. make update: corrected lectures; your own work is kept.
PYTHON ?= python3
BIN    := $(CURDIR)/.venv/bin

.PHONY: lab update
lab: .venv/course.stamp
	$(BIN)/dgm start

update: .venv/course.stamp
	$(BIN)/dgm update

.venv/course.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else \
"Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d; choose one with make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,grade]'
	@touch $@
"""

README = """\
# Deep generative models: the lectures

| Lecture | Open it |
|---|---|
{rows}

## On your own machine

You need Python 3.11 to 3.13, git and make. On Linux without a GPU, first
`export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu`.

```
git clone {address} dgm-course
cd dgm-course
make lab
```

This opens JupyterLab on a page with the lectures and your points so far. Open a lecture, read, fill in the cells that
raise `NotImplementedError`, run them. Without make: `python -m venv .venv`,
`.venv/bin/pip install -c constraints.txt -e '.[lab,grade]'`, `.venv/bin/dgm start`.

`.venv/bin/dgm check lectures/NAME/NAME.ipynb` runs all visible tests of a lecture as the grader will. Hidden tests run
when you have handed in.

## Corrected lectures

`make update` brings them. What you have worked on stays as it is: if a lecture that you edited was corrected, the new
version is put beside yours as `NAME_new.ipynb`. (`git pull` refuses to touch such a lecture. Then use `make update`.)
On a hub, the link above brings corrections; if you have edited a lecture, its new version is in `.release/NAME/`.

## Hand in

The last cell of each lecture says how many points you have so far and what is blank. Save the notebook. On Colab,
download it (File, Download .ipynb) and upload it where your instructor said; on a hub, press Submit in the assignment
list; elsewhere, upload `lectures/NAME/NAME.ipynb`.

## If something does not work

| What you see | What to do |
|---|---|
| no network | lectures, data and `dgm check` need none; only the installation and `make update` do |
| `No module named dgm_course` | start JupyterLab with `make lab`, or choose the kernel of `.venv` |
| a package is missing or too old | `rm -r .venv`, then `make lab` installs everything anew |
| a read-only folder, or a full disk | copy the folder to a place where you can write, or make room; then save again |
| a kernel that was restarted, cells run out of order | Run, Restart Kernel and Run All Cells |

Code is under the [MIT licence](LICENSE), lecture text under [CC BY 4.0](LICENSE-text). Data:
[data/README.md](data/README.md).
"""


def publish(course, folder, repin=False):
    """Writes or updates the student repository.

    Args:
        course: the course folder.
        folder: the student repository; made if it is not there.
        repin: whether unchanged lectures take the new package on Colab. Else they keep the tag that they came with,
            so that a lecture on which students work changes only if its text does.

    Returns:
        `(tag, notes)`: the tag of the new commit, or None if nothing has changed, and what was left out, in words.

    Raises:
        CourseError: if the folder holds something else, or if a file or an object of its history gives away a
            solution or a hidden test. Then nothing is committed.
    """
    course, folder = Path(course).resolve(), Path(folder).resolve()
    before = prepare(course, folder)
    tags = [int(tag[1:]) for tag in git(folder, "tag", "--list", "v*").split() if tag[1:].isdigit()]
    tag = f"v{max(tags, default=0) + 1}"
    settings = tomllib.loads((course / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {}).get("dgm", {})
    address, hub = settings.get("student_repository", "").rstrip("/"), settings.get("hub", "").rstrip("/")

    files = {name: (course / name).read_bytes() for name in given(course)}
    files["Makefile"] = MAKEFILE.encode()
    files[".gitattributes"] = files.get(".gitattributes", b"") + KEEP.encode()
    rows, pinned = [], {}
    for name in assignments(course):
        source = notebook_path(course, "lectures", name)
        if not source.is_file():
            raise CourseError(f"no {source}: run `dgm release {name}`")
        inside = source.relative_to(course).as_posix()
        for path in source.parent.iterdir():  # figures that belong to the lecture
            if path.is_file():
                files[path.relative_to(course).as_posix()] = path.read_bytes()
        files[f".release/{name}/{name}.ipynb"] = source.read_bytes()
        pinned[name] = tag
        published = stamp(source, address, tag)
        if not repin and (old := before.get(inside)) and (known := re.search(rb"dgm-course-(v\d+)", old)):
            same = stamp(source, address, known[1].decode())
            if same == old:
                published, pinned[name] = same, known[1].decode()
        files[inside] = published
        title = re.search(r"^# (.*)", nbformat.reads(source.read_text(encoding="utf-8"), as_version=4).cells[0].source)
        rows.append(row(title[1] if title else name, inside, address, hub, pinned[name]))
    files["README.md"] = README.format(rows="\n".join(rows), address=address or "ADDRESS").encode()

    found = leaks_in(course, checked(files.items()))
    found += leaks_in(course, checked(objects(folder)))
    if found:
        raise CourseError("this would give away what students must not see, so nothing is published:\n" + found[0])
    if files != before:
        for name in before.keys() - files.keys():
            (folder / name).unlink(missing_ok=True)
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        git(folder, "add", "--all")
        git(folder, *identity(folder), "commit", "-q", "-m", f"Course material, {tag}")
        git(folder, *identity(folder), "tag", "-a", tag, "-m", f"Course material, {tag}")
    return tag if files != before else None, notes(address, hub)


def prepare(course, folder):
    """Makes the repository if there is none. Returns what its last commit holds: name -> bytes."""
    if folder == course or course in folder.parents or folder in course.parents:
        raise CourseError(f"the student repository must lie outside the course, {folder} does not")
    if not (folder / ".git").exists():
        if folder.exists() and any(folder.iterdir()):
            raise CourseError(f"{folder} is neither empty nor a student repository")
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "-q", "-b", "main")
        return {}
    names = git(folder, "ls-files", "-z").split("\0")[:-1]
    if names and not any(name.startswith(".release/") for name in names):
        raise CourseError(f"{folder} is a git repository, but not one that `dgm publish` made")
    if git(folder, "status", "--porcelain", "--ignored"):
        raise CourseError(f"{folder} has files that are not committed; remove them, they would be lost")
    return {name: (folder / name).read_bytes() for name in names}


def given(course):
    """Names of the files of the course that students get as they are."""
    listed = git(course, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *GIVEN).split("\0")
    return [name for name in listed if name and (course / name).is_file()]


def checked(files):
    """Those files that must not hold a line of a solution or a hidden test: all but code and data."""
    return ((name, data) for name, data in files if not name.startswith(CODE))


def objects(folder):
    """All that git keeps in a repository, also what no commit names any more: pairs of a name and bytes."""
    try:
        paths = dict(line.partition(" ")[::2] for line in git(folder, "rev-list", "--objects", "--all").splitlines())
    except CourseError:  # no commit yet
        paths = {}
    listed = git(folder, "cat-file", "--batch-all-objects", "--batch-check").splitlines()
    for key, kind, _ in map(str.split, listed):
        if kind == "blob":
            name = paths.get(key) or f"object {key[:10]} in .git"
            if not name.startswith(CODE):
                yield name, content(folder, key)


def content(folder, key):
    """The bytes of a file that git keeps: of an object's name, or of COMMIT:PATH."""
    return subprocess.run(["git", "-C", folder, "cat-file", "blob", key], capture_output=True, check=True).stdout


def stamp(path, address, tag):
    """A lecture as students get it, in bytes: with badge and set-up cell for Colab if the address is known."""
    notebook = nbformat.read(path, as_version=4)
    if not address:
        return path.read_bytes()
    place = next(i for i, cell in enumerate(notebook.cells) if "setup" in cell.metadata.get("tags", []))
    meta = {"grade": False, "grade_id": "colab", "locked": True, "schema_version": 3, "solution": False, "task": False}
    cell = new_code_cell(COLAB.replace("TAG", tag).replace("ADDRESS", address), id="colab", metadata={"nbgrader": meta})
    notebook.cells.insert(place, cell)
    if link := colab(address, tag, f"lectures/{path.stem}/{path.name}"):
        title = copy.copy(notebook.cells[0])
        first, _, rest = title.source.partition("\n")
        title.source = f"{first}\n\n[![Open in Colab]({BADGE})]({link})\n{rest}"
        notebook.cells[0] = title
    return (nbformat.writes(notebook) + "\n").encode()


def colab(address, tag, inside):
    """The address that opens a notebook on Colab; None if the repository is not on GitHub, from where Colab reads."""
    at = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?", address)
    return f"https://colab.research.google.com/github/{at[1]}/blob/{tag}/{inside}" if at else None


def row(title, inside, address, hub, tag):
    """A lecture's line in the README."""
    links = [f"[read]({inside})"]
    if link := colab(address, tag, inside):
        links.append(f"[Colab]({link})")
    if address and hub:
        name = address.rsplit("/", 1)[-1].removesuffix(".git")
        # nbgitpuller would keep a ".git" in the name of the folder, so the link names it.
        query = {"repo": address, "branch": "main", "targetPath": name, "urlpath": f"lab/tree/{name}/{inside}"}
        links.append(f"[hub]({hub}/hub/user-redirect/git-pull?{urlencode(query, quote_via=quote, safe='')})")
    return f"| {title} | {', '.join(links)} |"


def notes(address, hub):
    """What was left out for want of an address."""
    found = []
    if not address:
        found.append("student_repository in pyproject.toml is empty: no badge, no set-up cell for Colab, no links")
    elif not colab(address, "", ""):
        found.append("student_repository is not https://github.com/OWNER/NAME: Colab cannot open it, so no badge")
    if address and not hub:
        found.append("hub in pyproject.toml is empty: no links that open a lecture on a hub")
    return found


def identity(folder):
    """Options for git that name an author where nobody has told git who they are."""
    known = subprocess.run(["git", "-C", folder, "config", "user.email"], capture_output=True).stdout.strip()
    return [] if known else ["-c", "user.name=course", "-c", "user.email=course@localhost"]


def git(folder, *words):
    """Runs git in a folder and returns what it prints.

    Raises:
        CourseError: if git fails; the message is git's.
    """
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True)
    except FileNotFoundError:
        raise CourseError("git is not installed") from None
    if done.returncode:
        raise CourseError(f"git {words[0]} in {folder}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
