"""`dgm feedback`: a page for each student, with what was wanted, what came, and the usual cause.

What is shown of hidden tests is what `dgm grade` wrote: the category, never source, inputs or a message of the
student's own. Whatever a student wrote is shown as text.
"""

import re
import shutil
import zipfile
from pathlib import Path

import nbformat

from autograder.collect import CANVAS, MOODLE, UPLOADED
from autograder.gradebook import Book
from autograder.notebooks import CourseError, grade_id, load_assignment, notebook_path
from autograder.pages import badge, block, page, points, table, text, write_whole


def main(course, args):
    """`dgm feedback`."""
    pages = write_pages(course, load_assignment(course, args.assignment))
    print(f"{len(pages)} pages in feedback/STUDENT/{args.assignment}")
    if args.zip:
        write_zip(args.zip, course, args.assignment, pages)
        print(f"{args.zip}: all of them, for upload")
    return 0


def write_pages(course, assignment):
    """Writes `feedback/STUDENT/NAME/NAME.html` for all that are graded. Returns student -> page.

    Raises:
        CourseError: if nothing is graded yet.
    """
    name = assignment.name
    with Book(course, assignment) as book:
        pages = {student: student_page(book, student, result) for student, result in book.results().items()}
    if not pages:
        raise CourseError(f"nothing of {name} is graded yet: run `dgm grade {name}`")
    for student, content in pages.items():
        folder, submitted = (Path(course) / step / student / name for step in ("feedback", "submitted"))
        write_whole(folder / f"{name}.html", content)
        for note in (
            "timestamp.txt",
            "submission_secret.txt",
        ):  # `nbgrader release_feedback` finds the student by these
            if (submitted / note).is_file() and not (submitted / note).is_symlink():
                shutil.copy(submitted / note, folder)
    return pages


def student_page(book, student, result):
    """The page of one student."""
    name, assignment = book.assignment.name, book.assignment
    submission = book.gradebook.find_submission(name, student)
    comments = {c.name: c.comment for c in submission.notebooks[0].comments if c.comment}
    grades = {grade.name: grade for grade in submission.notebooks[0].grades}
    path = notebook_path(book.course, "autograded", name, student)
    cells = {grade_id(cell): cell for cell in nbformat.read(path, as_version=4).cells}
    code = {key: e for key, e in result["exercises"].items() if e["outcome"] != "manual"}
    rows = [
        [f'<a href="#{text(key)}">{text(key)}</a>', badge(e["outcome"]), points(marks_of(e, grades), e["max_score"])]
        for key, e in code.items()
    ]
    for key, most in assignment.written.items():
        waiting = grades[key].needs_manual_grade
        mark = "not marked yet" if waiting else points(grades[key].score, most)
        rows.append([f'<a href="#{text(key)}">{text(key)}</a>', "written", mark])
    penalty = submission.late_submission_penalty
    late = f" Late penalty: {penalty:g} points." if penalty else ""
    mark = points(submission.score - penalty, submission.max_score)
    parts = [
        f"<h1>{text(name)}</h1>",
        f'<p class="quiet">{text(student)}: {mark} points.{late}</p>',
        table(["exercise", "", "points"], rows, numbers=(2,)),
    ]
    parts += [exercise_section(key, e, cells, grades, comments) for key, e in code.items()]
    parts += [written_section(key, cells, comments) for key in assignment.written]
    if result["repairs"]:
        lines = "".join(f"<li>{text(line)}</li>" for line in result["repairs"])
        note = "<h2>What was put right in the file</h2><p>This cost no points.</p>"
        parts.append(f"<section>{note}<ul>{lines}</ul></section>")
    return page(f"{name}: {student}", *parts)


def marks_of(exercise, grades):
    """Points of an exercise, with what people changed."""
    return sum(grades[key].score for key in exercise["cells"])


def exercise_section(key, exercise, cells, grades, comments):
    """An exercise: the answer, and each test."""
    parts = [f'<section id="{text(key)}"><h2>{text(key)} {badge(exercise["outcome"])}</h2>']
    answer = cells.get(key)
    if answer is not None and exercise["outcome"] not in ("blank", "missing", "unreadable"):
        parts.append(block(answer.source))
        printed = "".join(str(o.get("text", "")) for o in answer.get("outputs", []))
        parts.append(f'<p class="quiet">printed</p>{block(printed, 1500)}' if printed else "")
    for name, cell in exercise["cells"].items():
        kind = "hidden test" if name.endswith("_hidden") else "visible test"
        mark = points(grades[name].score, cell["max_score"])
        parts.append(f"<p>{badge(cell['outcome'])} {kind}, {mark}</p>")
        parts.append(block(cell["message"]) if cell["message"] else "")
        parts.append(comment_of(name, comments))
    return "\n".join([*parts, comment_of(key, comments), "</section>"])


def written_section(key, cells, comments):
    """A written answer."""
    answer = cells[key].source if key in cells else ""
    return f'<section id="{text(key)}"><h2>{text(key)}</h2>{block(answer)}{comment_of(key, comments)}</section>'


def comment_of(key, comments):
    """What a person wrote."""
    return f"<p><b>Comment:</b> {text(comments[key])}</p>" if key in comments else ""


def write_zip(path, course, name, pages):
    """All pages in one archive, the same bytes each time. Names are those that the platform gave, if they are known."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for student, content in sorted(pages.items()):
            entry = zipfile.ZipInfo(name_for_upload(course, name, student), (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.encode("utf-8", "replace"), zipfile.ZIP_DEFLATED)


def name_for_upload(course, name, student):
    """Moodle finds a person by the folder, Canvas by the numbers in the name; else `STUDENT_NAME.html`."""
    note = Path(course) / "submitted" / student / name / UPLOADED
    came_as = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    if found := MOODLE.fullmatch(came_as):
        return f"{found['name']}_{found['number']}_assignsubmission_file_/{name}.html"
    if CANVAS.fullmatch(came_as):
        return re.sub(r"\.ipynb$", ".html", came_as, flags=re.IGNORECASE)
    return f"{student}_{name}.html"
