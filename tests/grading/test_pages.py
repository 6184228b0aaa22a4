"""Pages of feedback and the report: what students and instructors read, and what must never be in them."""

import html
import re
import zipfile

import pytest
from nbgrader.api import Gradebook

from autograder.cli import main
from autograder.collect import UPLOADED
from autograder.release import release
from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT, NAME

SCRIPT = "<script>alert('x')</script><img src=x onerror=alert(1)>"
EVIL = f"""\
from IPython.display import HTML, display
print({SCRIPT!r})
display(HTML({SCRIPT!r}))
def scale(x, factor):  # {SCRIPT}
    raise ValueError({SCRIPT!r} + str(x))"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """ada has all right, bo a mistake, eve markup everywhere, cy junk; dee has all kinds of outcomes."""
    course = tiny.make_course(tmp_path_factory.mktemp("pages"))
    release(course, NAME)
    evil = tiny.submission(course, {**ALL_RIGHT, "scale": EVIL})
    for cell in evil.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "written_why":
            cell.source = f"Because. {SCRIPT} [x](javascript:alert(1))"
    hand_in = {
        "ada": tiny.submission(course, ALL_RIGHT),
        "bo": tiny.submission(course, {**ALL_RIGHT, "scale": "def scale(x, factor):\n    return x, 0"}),
        "eve": evil,
        "cy": b"junk",
        "dee": tiny.submission(
            course,
            {"scale": "import os\nos._exit(1)", "coupling": "def coupling(x, net):\n    return torch.empty(1 << 50)"},
        ),
    }
    paths = {student: tiny.hand_in(course, student, notebook) for student, notebook in hand_in.items()}
    (paths["ada"].parent / UPLOADED).write_text(f"Ada Lovelace_12_assignsubmission_file_/{NAME}.ipynb")
    (paths["bo"].parent / UPLOADED).write_text(f"bobo_LATE_34_56_{NAME}-2.ipynb")
    assert main(["grade", NAME, "--course", str(course), "--workers", "1"]) == 0
    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        book.find_comment("scale", NAME, NAME, "bo").manual_comment = f"See me. {SCRIPT}"
        grade = book.find_grade("written_why", NAME, NAME, "eve")
        grade.manual_score, grade.needs_manual_grade = 2.5, False
        book.db.commit()
    assert main(["feedback", NAME, "--course", str(course), "--zip", str(course / "all.zip")]) == 0
    assert main(["report", NAME, "--course", str(course)]) == 0
    return course


def page(course, student):
    return (course / "feedback" / student / NAME / f"{NAME}.html").read_text()


def words(text):
    """A page as it reads."""
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


def test_a_mistake_shows_what_was_wanted_and_what_came(course):
    told = words(page(course, "bo"))
    assert "wanted" in told and "came" in told and "See me." in told, told[-3000:]
    assert "hidden test" in told and "z: wrong value" in told
    assert "10 of 14" in words(page(course, "ada")) and "not marked yet" not in words(page(course, "eve"))
    assert "2.5 of 4" in words(page(course, "eve"))


def test_every_outcome_is_explained(course):
    assert "no Jupyter notebook" in words(page(course, "cy"))
    dee = words(page(course, "dee"))
    assert "ended the process" in dee and "memory" in dee and "blank" in dee


def test_nothing_of_a_hidden_test_or_of_the_solution_is_shown(course):
    pages = [page(course, student) for student in ("ada", "bo", "eve", "cy", "dee")]
    hidden = [line.strip() for key, test in tiny.TESTS.items() if key.endswith("_hidden") for line in test.splitlines()]
    hidden = [line for line in hidden if len(line) > 25 and not line.startswith(("#", "with"))]
    solution = "self.translation = shift"
    assert hidden
    for text in map(words, pages):
        assert not [line for line in hidden if line in text]
    assert solution not in words(pages[3]) + words(pages[4])


def test_inputs_of_hidden_tests_do_not_leave_in_messages(course):
    told = page(course, "eve").split('id="scale"')[1].split("</section>")[0]
    hidden = told.split("hidden test")[1]
    assert "your code raised ValueError" in hidden and "tensor" not in hidden


@pytest.mark.parametrize("which", ["eve", "bo", "report"])
def test_what_students_write_is_text(course, which):
    text = (course / "report" / f"{NAME}.html").read_text() if which == "report" else page(course, which)
    body = text.split("</head>")[1]
    tags = set(re.findall(r"<\s*([a-zA-Z0-9]+)", body))
    known = {"body", "main", "h1", "h2", "p", "table", "tr", "th", "td", "a", "section", "pre", "span", "b", "ul", "li"}
    assert tags <= known | {"br", "figure", "img"} if which == "report" else tags <= known
    assert "onerror" not in re.sub(r">[^<]*<", "><", body) and 'href="javascript' not in body
    assert "default-src 'none'" in text


def test_the_archive_has_names_that_the_platform_knows(course):
    with zipfile.ZipFile(course / "all.zip") as archive:
        names = archive.namelist()
    assert f"Ada Lovelace_12_assignsubmission_file_/{NAME}.html" in names
    assert f"bobo_LATE_34_56_{NAME}-2.html" in names and f"cy_{NAME}.html" in names and len(names) == 5
    first = (course / "all.zip").read_bytes()
    assert main(["feedback", NAME, "--course", str(course), "--zip", str(course / "all.zip")]) == 0
    assert (course / "all.zip").read_bytes() == first


def test_the_report_shows_the_class(course):
    told = words((course / "report" / f"{NAME}.html").read_text())
    assert "5 students" in told and "mean" in told
    for word in ("scale", "slope", "unreadable", "died", "memory", "blank", "passed"):
        assert word in told
    assert (course / "report" / f"{NAME}.html").read_text().count("data:image/png") == 3


def test_before_grading_there_is_nothing_to_show(tmp_path, capsys):
    course = tiny.make_course(tmp_path)
    release(course, NAME)
    assert main(["report", NAME, "--course", str(course)]) == 2
    assert f"run `dgm grade {NAME}`" in capsys.readouterr().err
