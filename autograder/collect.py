"""`dgm collect`: what a learning platform's zip holds, put where nbgrader and `dgm grade` look for it.

File names that are understood:

- Canvas: `lovelaceada_LATE_1234_5678_06_coupling_flows-1.ipynb` (name, person's number, file's number, attempt);
- Moodle: `Ada Lovelace_1234_assignsubmission_file_/x.ipynb`, or the same without the slash.

Nothing is unpacked by its path: bytes are read up to a limit and written under a name that is made here.
"""

import csv
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from autograder.notebooks import MAX_NOTEBOOK, CourseError, notebook_path

MAX_FILES = 20_000
UPLOADED = "uploaded_as.txt"  # beside the notebook: its name in the archive, so that feedback finds its way back
CANVAS = re.compile(r"(?P<name>[^_/]+)_(LATE_)?(?P<number>\d+)_(?P<order>\d+)_(?P<file>[^/]+)")
MOODLE = re.compile(r"(?P<name>[^_/]+)_(?P<number>\d+)_assignsubmission_file_/?(?P<file>.+)")
ATTEMPT = re.compile(r"[- ]\(?(\d+)\)?$")  # what Canvas and browsers add to a name that is there already


@dataclass(frozen=True)
class Upload:
    """A notebook in the archive: whose it is by the platform's name and number, and its place in time."""

    entry: zipfile.ZipInfo
    name: str
    number: str
    stem: str
    order: tuple


def collect(course, name, archive, roster=None):
    """Writes `submitted/STUDENT/NAME/NAME.ipynb`, the latest attempt of each student.

    Args:
        course: course folder.
        name: assignment.
        archive: the platform's zip.
        roster: CSV with a column `id`; a person is known by what stands in any other column (name, number, e-mail).
            Without it, the platform's name and number make the id.

    Returns:
        `(students, left)`: ids in order, and in words what was not taken.

    Raises:
        CourseError: if the archive or the roster cannot be read.
    """
    people = read_roster(roster) if roster else None
    try:
        with zipfile.ZipFile(archive) as opened:
            if len(opened.infolist()) > MAX_FILES:
                raise CourseError(f"{archive} holds {len(opened.infolist()):,} files, more than {MAX_FILES:,}")
            uploads, left = read_names(opened)
            taken, more = choose(uploads, people, name)
            left += more
            students = []
            for student, upload in sorted(taken.items()):
                try:
                    with opened.open(upload.entry) as file:
                        data = file.read(MAX_NOTEBOOK + 1)  # the size that the archive states may be a lie
                # zipfile raises NotImplementedError for a compression that it does not know
                except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
                    left.append(f"{upload.entry.filename}: cannot be unpacked ({type(error).__name__})")
                    continue
                if len(data) > MAX_NOTEBOOK:
                    left.append(f"{upload.entry.filename}: more than {MAX_NOTEBOOK:,} bytes")
                    continue
                path = notebook_path(course, "submitted", name, student)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                (path.parent / UPLOADED).write_text(upload.entry.filename, encoding="utf-8")
                students.append(student)
    except (zipfile.BadZipFile, OSError) as error:
        raise CourseError(f"{archive} cannot be read: {error}") from None
    return students, left


def read_names(opened):
    """The notebooks of an archive, and what else is in it, in words."""
    uploads, left = [], []
    for entry in opened.infolist():
        text = entry.filename
        is_link = entry.external_attr >> 28 == 0o12
        if entry.is_dir() or "__MACOSX" in text:
            continue
        found = MOODLE.fullmatch(text) or CANVAS.fullmatch(text)
        if is_link or not text.lower().endswith(".ipynb"):
            left.append(f"{text}: {'a link' if is_link else 'no notebook'}")
        elif not found:
            left.append(f"{text}: neither Canvas nor Moodle names files like this")
        else:
            stem = found["file"].split("/")[-1][: -len(".ipynb")]
            attempt = ATTEMPT.search(stem)
            order = (int(found.groupdict().get("order") or 0), int(attempt[1]) if attempt else 0, entry.date_time)
            uploads.append(Upload(entry, found["name"], found["number"], ATTEMPT.sub("", stem), order))
    return uploads, left


def choose(uploads, people, name):
    """The upload that counts for each student id, and what was left, in words. In doubt, nothing is taken."""
    groups, left, taken = defaultdict(list), [], {}
    for upload in uploads:
        groups[upload.name, upload.number].append(upload)
    owners = defaultdict(list)
    for (person, number), group in groups.items():
        if people is None:
            ids = {re.sub(r"[^\w.-]+", "-", f"{person}-{number}").strip(".-")}
        else:
            ids = people.get(squeezed(number)) or people.get(squeezed(person)) or set()
        if len(ids) == 1:
            owners[next(iter(ids))].append(group)
        else:
            why = "two people of the roster have this name" if ids else "nobody in the roster"
            left.append(f"{person} (number {number}): {why}")
    for student, found in owners.items():
        group = [upload for upload in found[0] if upload.stem == name] or found[0]
        if len(found) > 1:
            left.append(f"{student}: two people of the archive have this name")
        elif len({upload.stem for upload in group}) > 1:
            left.append(f"{student}: several notebooks, none of them {name}.ipynb")
        else:
            taken[student] = max(group, key=lambda upload: upload.order)
    return taken, left


def read_roster(path):
    """What people are known by -> the set of their ids (more than one if two share a name)."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"{path} cannot be read: {error}") from None
    people = defaultdict(set)
    for row in rows:
        student = (row.get("id") or "").strip()
        if not re.fullmatch(r"\w[\w.@-]*", student):
            raise CourseError(f"{path}: wanted a column `id` of letters, digits and . _ - @, got {student!r} in {row}")
        for value in row.values():
            words = re.findall(r"\w+", value) if isinstance(value, str) else []
            for k in range(len(words)):  # Canvas puts the last name first
                people[squeezed("".join(words[k:] + words[:k]))].add(student)
    return people


def squeezed(text):
    """Letters and digits alone, in lower case."""
    return re.sub(r"[\W_]+", "", text).lower()


def run(course, args):
    """`dgm collect`. Returns 1 if anything was left."""
    archive = Path(args.archive)
    students, left = collect(course, args.assignment, archive, args.roster)
    print(f"{len(students)} collected into submitted/STUDENT/{args.assignment}")
    for line in left:
        print(f"not taken: {line}")
    return 1 if left else 0
