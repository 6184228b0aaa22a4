"""Marks in nbgrader's own books: its gradebook, `autograded/`, `feedback/`, and a table of marks."""

import contextlib
import csv
import fcntl
import hashlib
import json
import warnings
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook, MissingEntry, get_alembic_version
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearSolutions, ComputeChecksums, LockCells
from nbgrader.utils import compute_checksum, is_locked
from sqlalchemy import Column, MetaData, String, Table, Text
from sqlalchemy.engine import make_url

from autograder.late import penalize
from autograder.notebooks import CourseError, notebook_path, sha256
from autograder.pages import write_whole
from autograder.release import course_config, environment_on_path, stamped_source

# Beside nbgrader's tables, and in the same transaction as the marks: what they depend on, and the result for the JSON.
# Without a foreign key, so that nbgrader may remove a submission; a new one has another id.
GRADED = Table(
    "dgm_graded", MetaData(), Column("submission_id", String(32), primary_key=True),
    Column("depends_on", String(64), nullable=False), Column("result", Text, nullable=False),
)  # fmt: skip


@contextlib.contextmanager
def one_transaction(gradebook):
    """nbgrader commits after every step. Here its commits become flushes, and one commit ends them all."""
    session = gradebook.db
    session.commit = session.flush  # hides the method of the class
    try:
        yield
        del session.commit
        session.commit()
    finally:
        session.__dict__.pop("commit", None)
        session.rollback()  # nothing, after a commit


class Book:
    """The gradebook of a course folder, with one writer at a time.

    A submission's marks, and on what they depend, are written in one transaction, as soon as it is graded.

    Args:
        course: the course folder.
        assignment: `Assignment` whose marks are written.
        conditions: what marks depend on beside the submissions, see `runner.conditions`.

    Raises:
        CourseError: if another process writes this gradebook now.
    """

    def __init__(self, course, assignment, conditions=None):
        self.course, self.assignment, self.conditions = Path(course), assignment, conditions
        self.config = course_config(course)
        directory = CourseDirectory(config=self.config)
        self.db_url, self.course_id = make_url(directory.db_url), directory.course_id
        if self.db_url.get_backend_name() == "sqlite":  # waits for formgrader, which writes too, and not only 5 s
            self.db_url = self.db_url.update_query_dict({"timeout": "60"})

    def __enter__(self):
        self.lock = open(self.course / ".gradebook.lock", "w")
        try:
            fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with this process, however that ends
        except OSError:
            self.lock.close()
            raise CourseError(f"another dgm grade is writing the gradebook of {self.course}; wait for it") from None
        with environment_on_path():
            self.gradebook = Gradebook(self.db_url, self.course_id)
            self.complete()
        self.register()
        return self

    def __exit__(self, *error):
        self.gradebook.close()
        self.lock.close()

    def complete(self):
        """Makes the table of what was graded, and the one that nbgrader leaves out if it is killed on its first run."""
        GRADED.create(self.gradebook.engine, checkfirst=True)
        version = Table("alembic_version", MetaData(), Column("version_num", String(32), nullable=False))
        version.create(self.gradebook.engine, checkfirst=True)
        if self.gradebook.db.execute(version.select()).first() is None:
            self.gradebook.db.execute(version.insert().values(version_num=get_alembic_version()))
        self.gradebook.db.commit()

    def register(self):
        """Tells the gradebook of the assignment's cells and points, as `nbgrader generate_assignment` does."""
        name, book = self.assignment.name, self.gradebook
        notebook, resources = stamped_source(self.course, name), {}
        for step in (LockCells, ClearSolutions, ComputeChecksums):
            notebook, resources = step(config=self.config).preprocess(notebook, resources)
        kinds = {"source": {}, "grade": {}, "solution": {}}
        for cell in notebook.cells:
            meta = cell.metadata.get("nbgrader", {})
            about = {"cell_type": cell.cell_type}
            if meta.get("grade") or meta.get("solution") or meta.get("locked"):
                more = {"source": cell.source, "locked": is_locked(cell), "checksum": meta["checksum"]}
                kinds["source"][meta["grade_id"]] = about | more
            if meta.get("grade"):
                kinds["grade"][meta["grade_id"]] = about | {"max_score": float(meta["points"])}
            if meta.get("solution"):
                kinds["solution"][meta["grade_id"]] = {}
        with one_transaction(book):
            book.update_or_create_assignment(name)
            with contextlib.suppress(MissingEntry):
                found = book.find_notebook(name, name)
                if any({c.name for c in getattr(found, f"{kind}_cells")} != set(kinds[kind]) for kind in kinds):
                    if found.submissions:
                        raise CourseError(
                            f"the gradebook holds submissions of {name} with other cells: points and tests may change, "
                            "cells that are graded or locked may not come or go"
                        )
                    book.remove_notebook(name, name)
            book.update_or_create_notebook(name, name, kernelspec=json.dumps(notebook.metadata.get("kernelspec", {})))
            for kind, cells in kinds.items():
                for key, about in cells.items():
                    getattr(book, f"update_or_create_{kind}_cell")(key, name, name, **about)

    def depends_on(self, student, digest):
        """A hash of all that a student's marks depend on, also of when the submission came."""
        stamp = self.course / "submitted" / student / self.assignment.name / "timestamp.txt"
        said = [self.conditions, digest, stamp.read_text() if stamp.is_file() else ""]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def last(self, student):
        """What was written last for a student: what it depends on, and the result; `("", None)` if nothing was."""
        try:
            submission = self.gradebook.find_submission(self.assignment.name, student)
        except MissingEntry:
            return "", None
        found = self.gradebook.db.execute(GRADED.select().where(GRADED.c.submission_id == submission.id)).first()
        return (found.depends_on, json.loads(found.result)) if found else ("", None)

    def results(self):
        """student -> the student's part of the JSON, for all that were graded here."""
        students = sorted(s.student_id for s in self.gradebook.assignment_submissions(self.assignment.name))
        found = {student: self.last(student)[1] for student in students}
        return {student: result for student, result in found.items() if result}

    def kept(self, student, path):
        """The result of a submission that was graded under these conditions, or None if it is to be graded."""
        digest = sha256(path)
        there = notebook_path(self.course, "autograded", self.assignment.name, student).is_file()
        depends_on, result = self.last(student)
        return result if there and digest and depends_on == self.depends_on(student, digest) else None

    def write(self, student, result, cells):
        """Writes the graded notebook and one student's marks. Marks and comments that people gave stay.

        Args:
            student: student id.
            result: the student's part of the JSON.
            cells: the graded cells, from `grade_notebook`.

        Returns:
            A list of (exercise, grade_id, mark before, mark now, points), for the cells that had a mark before.
        """
        name, book, marks = self.assignment.name, self.gradebook, []
        notebook, path = graded_notebook(cells), notebook_path(self.course, "autograded", name, student)
        stamp = self.course / "submitted" / student / name / "timestamp.txt"
        write_whole(path, nbformat.writes(notebook) + "\n")
        timestamp = {}
        if stamp.is_file():
            write_whole(path.parent / stamp.name, stamp.read_text())
            timestamp["timestamp"] = stamp.read_text().strip()
        with one_transaction(book), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not in session")  # by nbgrader's own way of adding rows
            before = self.last(student)[1]
            changed = before is None or before["sha256"] != result["sha256"]
            book.update_or_create_student(student)
            submission = book.update_or_create_submission(name, student, **timestamp)
            answered = {
                cell.metadata.nbgrader["grade_id"]
                for cell in notebook.cells
                if "nbgrader" in cell.metadata and cell.metadata.nbgrader["checksum"] != compute_checksum(cell)
            }
            grades = {grade.name: grade for grade in submission.notebooks[0].grades}
            for exercise, tested in result["exercises"].items():
                for key, cell in tested["cells"].items():
                    grade, by_hand = grades[key], key in self.assignment.written and key in answered
                    mark = grade.auto_score if grade.manual_score is None else grade.manual_score
                    grade.auto_score = None if by_hand else cell["score"]
                    now = grade.auto_score if grade.manual_score is None else grade.manual_score
                    if mark is not None and now is not None:
                        marks.append((exercise, key, mark, now, grade.cell.max_score))
                    if grade.manual_score is None:
                        grade.needs_manual_grade = by_hand
                    elif changed:  # a person should look at it again
                        grade.needs_manual_grade = True
            for comment in submission.notebooks[0].comments:
                comment.auto_comment = None if comment.name in answered else "No response."
            penalize(submission, self.config)
            book.db.execute(GRADED.delete().where(GRADED.c.submission_id == submission.id))
            row = {"submission_id": submission.id, "depends_on": self.depends_on(student, result["sha256"])}
            book.db.execute(GRADED.insert().values(**row, result=json.dumps(result)))
        return marks

    def export(self, path):
        """Writes a table of all students' marks of this assignment as CSV."""
        name = self.assignment.name
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["assignment", "student_id", "score", "max_score", "code_score", "written_score", "to_mark"])
            for submission in sorted(self.gradebook.assignment_submissions(name), key=lambda s: s.student_id):
                table.writerow([name, submission.student_id, submission.score, submission.max_score,
                                submission.code_score, submission.written_score,
                                "yes" if submission.needs_manual_grade else "no"])  # fmt: skip


def graded_notebook(cells):
    """The cells as a notebook that nbgrader's tools read. Cells that the student has deleted are at its end."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for number, cell in enumerate(cells):
        kinds = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
        made = kinds.get(cell["cell_type"], nbformat.v4.new_raw_cell)(cell["source"], metadata=cell["metadata"])
        made.id = f"cell-{number}"
        if cell["cell_type"] == "code":
            made.outputs = [nbformat.from_dict(output) for output in cell["outputs"]]
        notebook.cells.append(made)
    return notebook
