"""Marks in nbgrader's own books: its gradebook, `autograded/`, `feedback/`, and a table of marks."""

import contextlib
import csv
import logging
import shutil
import warnings
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearSolutions, ComputeChecksums, LockCells, SaveCells
from nbgrader.utils import compute_checksum
from traitlets.config import Config

from autograder.late import penalize
from autograder.notebooks import CourseError, notebook_path
from autograder.release import course_config, environment_on_path, quiet_log, stamped_source


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
    """The gradebook of a course folder. There must be one writer at a time.

    Args:
        course: the course folder.
        assignment: `Assignment` whose marks are written.
    """

    def __init__(self, course, assignment):
        self.course, self.assignment = Path(course), assignment
        self.config = course_config(course)
        directory = CourseDirectory(config=self.config)
        self.db_url, self.course_id = directory.db_url, directory.course_id

    def __enter__(self):
        with environment_on_path():
            self.gradebook = Gradebook(self.db_url, self.course_id)
        self.register()
        return self

    def __exit__(self, *error):
        self.gradebook.close()

    def register(self):
        """Tells the gradebook of the assignment's cells and points, just as `nbgrader generate_assignment` does."""
        name = self.assignment.name
        self.gradebook.update_or_create_assignment(name)
        resources = {"nbgrader": {"notebook": name, "assignment": name, "student": ".", "db_url": self.db_url}}
        notebook = stamped_source(self.course, name)
        for step in (LockCells, ClearSolutions, ComputeChecksums, SaveCells):
            try:
                notebook, resources = step(config=self.config).preprocess(notebook, resources)
            except RuntimeError as error:
                raise CourseError(f"the gradebook does not take the new cells of {name}: {error}") from None

    def write(self, student, result, cells):
        """Writes one student's marks, and the graded notebook. Marks and comments that people gave stay.

        Args:
            student: student id.
            result: the student's part of the JSON.
            cells: the graded cells, from `grade_notebook`.
        """
        name, book = self.assignment.name, self.gradebook
        notebook = graded_notebook(cells)
        with one_transaction(book), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not in session")  # by nbgrader's own way of adding rows
            book.update_or_create_student(student)
            stamp = self.course / "submitted" / student / name / "timestamp.txt"
            timestamp = {"timestamp": stamp.read_text().strip()} if stamp.is_file() else {}
            submission = book.update_or_create_submission(name, student, **timestamp)
            answered = {
                cell.metadata.nbgrader["grade_id"]
                for cell in notebook.cells
                if "nbgrader" in cell.metadata and cell.metadata.nbgrader["checksum"] != compute_checksum(cell)
            }
            for exercise in result["exercises"].values():
                for key, cell in exercise["cells"].items():
                    by_hand = key in self.assignment.written and key in answered
                    grade = book.find_grade(key, name, name, student)
                    grade.auto_score = None if by_hand else cell["score"]
                    grade.needs_manual_grade = by_hand or grade.manual_score is not None
            for comment in submission.notebooks[0].comments:
                comment.auto_comment = None if comment.name in answered else "No response."
            penalize(submission, self.config)
        path = notebook_path(self.course, "autograded", name, student)
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        if timestamp:
            shutil.copy(stamp, path.parent)

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


def feedback(course, name, students):
    """Makes `feedback/STUDENT/NAME/NAME.html` with `nbgrader generate_feedback`, and returns the paths."""
    config = Config(course_config(course))
    for student in students:
        directory = CourseDirectory(config=config, assignment_id=name, student_id=student)
        converter = GenerateFeedback(coursedir=directory, config=config, force=True)
        converter.log = quiet_log(logging.ERROR)
        with environment_on_path():
            converter.start()
    return [Path(course) / "feedback" / student / name / f"{name}.html" for student in students]
