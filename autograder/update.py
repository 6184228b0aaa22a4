"""`dgm update`: in a student repository, brings corrected lectures and keeps what the student has worked on."""

import argparse
import sys
from pathlib import Path

from autograder.notebooks import CourseError
from autograder.publish import content, git, identity


def main(argv):
    """Updates the student repository around the current folder. Returns 0 if it worked."""
    parser = argparse.ArgumentParser(prog="dgm update", description="Get corrected lectures, and keep one's own work.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path.cwd(), help="default: the one around here")
    try:
        lines = update(parser.parse_args(argv).folder)
    except CourseError as error:
        print(f"dgm update: {error}\nNothing was changed. Without network, try again later.", file=sys.stderr)
        return 2
    print("\n".join(lines) or "everything was up to date")
    return 0


def update(folder):
    """Takes every file of the course that has changed, and says what was done, in lines.

    A file that the student has changed, too, stays; the course's version is put beside it: NAME_new.ipynb.

    Raises:
        CourseError: if this is no clone, or git cannot reach the course.
    """
    top = Path(git(folder, "rev-parse", "--show-toplevel").strip())
    git(top, "fetch", "-q", "--tags", "origin")
    new = git(top, "rev-parse", "origin/main").strip()
    base = git(top, "merge-base", "HEAD", new).strip()
    if base == new:
        return []
    lines = []
    changed = git(top, "diff", "--name-only", "--no-renames", "-z", base, new).split("\0")[:-1]
    was = set(git(top, "ls-tree", "-r", "--name-only", "-z", base, "--", *changed).split("\0"))
    there = set(git(top, "ls-tree", "-r", "--name-only", "-z", new, "--", *changed).split("\0"))
    for name in changed:
        path = top / name
        mine = path.read_bytes() if path.is_file() else None
        if mine is not None and (name not in was or mine != content(top, f"{base}:{name}")):
            if name not in there:
                lines.append(f"kept     {name}, which you have changed; the course no longer has it")
            elif (data := content(top, f"{new}:{name}")) != mine:
                copy = beside(path)
                copy.write_bytes(data)
                lines.append(f"kept     {name}, which you have changed; the new version is {copy.name} beside it")
        elif name in there:
            git(top, "checkout", "-q", new, "--", name)
            lines.append(f"updated  {name}")
        else:
            path.unlink(missing_ok=True)
            lines.append(f"removed  {name}")
    diverged = git(top, "rev-parse", "HEAD").strip() != base
    if diverged:  # the student's commits stay, the course's become known
        git(top, "reset", "-q")
        git(top, *identity(top), "merge", "-q", "-s", "ours", "-m", "dgm update", new)
    else:
        git(top, "reset", "-q", new)
    return lines


def beside(path):
    """A free name for the new version of a file."""
    names = (path.with_name(f"{path.stem}_new{n}{path.suffix}") for n in ["", *range(2, 1000)])
    return next(name for name in names if not name.exists())
