"""Tables of marks for learning platforms, as plugins of `nbgrader export`.

    nbgrader export --exporter=autograder.exporters.CanvasExporter --to canvas.csv
    nbgrader export --exporter=autograder.exporters.MoodleExporter --assignment='["06_coupling_flows"]' --to moodle.csv

Names and e-mails come from nbgrader's list of students (`nbgrader db student import`); `lms_user_id` is the person's
number on the platform.
"""

import csv

from nbgrader.plugins import ExportPlugin


class TableExporter(ExportPlugin):
    """What both have in common."""

    default_name = "grades.csv"

    def export(self, gradebook):
        """Writes the table to `self.to`."""
        assignments = [a for a in gradebook.assignments if not self.assignment or a.name in self.assignment]
        wanted = {str(student) for student in self.student}
        students = sorted((s for s in gradebook.students if not wanted or s.id in wanted), key=lambda s: s.id)
        marks = {
            (submission.student_id, assignment.name): submission.score - submission.late_submission_penalty
            for assignment in assignments
            for submission in assignment.submissions
        }
        path = self.to or self.default_name
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self.rows(assignments, students, marks))
        self.log.info("wrote %s", path)


class CanvasExporter(TableExporter):
    """For Canvas: Grades, Import. A column for each assignment, points possible in the second row."""

    default_name = "canvas.csv"

    def rows(self, assignments, students, marks):
        """Head, points possible, a row for each student; an empty mark where nothing was handed in."""
        yield ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *(text(a.name) for a in assignments)]
        yield ["    Points Possible", "", "", "", "", *(f"{a.max_score:g}" for a in assignments)]
        for s in students:
            name = ", ".join(filter(None, (s.last_name, s.first_name))) or s.id
            found = (marks.get((s.id, a.name)) for a in assignments)
            yield [text(name), text(s.lms_user_id), text(s.id), text(s.email or s.id), "", *map(number, found)]


class MoodleExporter(TableExporter):
    """For Moodle: Grades, Import, CSV file. A row for each student, a column for each assignment."""

    default_name = "moodle.csv"

    def rows(self, assignments, students, marks):
        """Head, and a row for each student; "-" is Moodle's own sign for no mark."""
        yield ["ID number", "First name", "Last name", "Email address", *(text(a.name) for a in assignments)]
        for s in students:
            found = (marks.get((s.id, a.name)) for a in assignments)
            yield [*map(text, (s.id, s.first_name, s.last_name, s.email)), *(number(mark) or "-" for mark in found)]


def number(mark):
    """A mark as text, nothing for None."""
    return "" if mark is None else f"{round(mark, 4):g}"


def text(value):
    """A text that no spreadsheet takes for a formula."""
    value = str(value or "")
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
