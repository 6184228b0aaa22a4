"""What students get gives nothing away, and their work outlives every correction."""

import json
import re
import shutil
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
from nbgitpuller import GitPuller

from autograder import check
from autograder.notebooks import CourseError, intake, load_assignment, read_submission
from autograder.publish import publish
from autograder.release import release
from autograder.update import update
from tests.grading import tiny

LECTURE = f"lectures/{tiny.NAME}/{tiny.NAME}.ipynb"
GIVEN = ("dgm_course", "autograder", "pyproject.toml", "constraints.txt", "environment.yml", "LICENSE")


def git(folder, *words):
    return subprocess.run(
        ["git", "-C", folder, "-c", "user.name=s", "-c", "user.email=s@x", *words], capture_output=True, text=True
    )


@pytest.fixture
def school(tmp_path):
    """A course that publishes to `tmp_path / "student"`, which is its address as well."""
    course = tmp_path / "course"
    course.mkdir()
    tiny.make_course(course)
    for name in GIVEN:
        copy = shutil.copytree if (tiny.ROOT / name).is_dir() else shutil.copy
        copy(tiny.ROOT / name, course / name)
    shutil.rmtree(course / "dgm_course" / "__pycache__", ignore_errors=True)
    (course / "data").mkdir()
    (course / "data" / "index.json").write_text("{}")
    (course / ".gitignore").write_text("__pycache__/\n")
    (course / "tests").mkdir()
    (course / "tests" / "mutants.py").write_text("secret = 1\n")
    set_address(course, tmp_path / "student")
    git(course, "init", "-q")
    release(course, tiny.NAME)
    return course


def set_address(course, address):
    text = (tiny.ROOT / "pyproject.toml").read_text().replace('repository = ""', f'repository = "{address}"')
    (course / "pyproject.toml").write_text(text)


def correct(course, text="# Tiny, corrected"):
    """Changes the title of the lecture."""
    path = course / "solutions" / tiny.NAME / f"{tiny.NAME}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = text
    nbformat.write(notebook, path)
    release(course, tiny.NAME)


def clone(source, target):
    assert git(source, "clone", "-q", source, target).returncode == 0
    return target


def answer(folder, exercise="scale"):
    """A student answers an exercise in the clone. Returns the bytes of the notebook."""
    path = folder / LECTURE
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == exercise:
            cell.source = tiny.ANSWERS[exercise]
    nbformat.write(notebook, path)
    return path.read_bytes()


def everything(folder):
    """All bytes of the work tree and of all objects of git, as one text."""
    listed = git(folder, "cat-file", "--batch-all-objects", "--batch-check").stdout.split("\n")
    blobs = [line.split()[0] for line in listed if " blob " in line]
    return [git(folder, "cat-file", "blob", key).stdout for key in blobs]


def test_students_get_the_lectures_and_nothing_of_the_answers(school, tmp_path):
    tag, notes = publish(school, tmp_path / "student")
    names = set(git(tmp_path / "student", "ls-files").stdout.split())
    assert tag == "v1" and any("badge" in note for note in notes)
    assert {LECTURE, "README.md", "Makefile", "autograder/check.py", "dgm_course/checks.py", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "solutions", "submitted"))]
    for text in everything(tmp_path / "student"):
        assert "shifted = x2 + net(x1)" not in text and "z of four dimensions" not in text and "secret = 1" not in text
    assert git(tmp_path / "student", "status", "--porcelain", "--ignored").stdout == ""


def test_publishing_again_without_a_change_does_nothing_and_removed_files_go(school, tmp_path):
    student = tmp_path / "student"
    (school / "data" / "old.txt").write_text("old")
    publish(school, student)
    head = git(student, "rev-parse", "HEAD").stdout
    assert publish(school, student)[0] is None
    assert git(student, "rev-parse", "HEAD").stdout == head
    (school / "data" / "old.txt").unlink()
    assert publish(school, student)[0] == "v2"
    assert not (student / "data" / "old.txt").exists()
    # The lecture itself did not change, so it keeps its tag, and nobody's copy is disturbed.
    assert git(student, "diff", "--stat", "v1", "v2", "--", "lectures").stdout == ""
    assert publish(school, student, repin=True)[0] == "v3"
    assert "dgm-course-v3" in (student / LECTURE).read_text()


def test_a_leak_in_a_file_or_in_the_history_stops_it(school, tmp_path):
    student = tmp_path / "student"
    publish(school, student)
    lecture = school / LECTURE
    good = lecture.read_text()
    solution = tiny.ANSWERS["coupling"].replace("    ### BEGIN SOLUTION\n", "").replace("    ### END SOLUTION", "")
    notebook = nbformat.reads(good, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(solution))
    nbformat.write(notebook, lecture)
    with pytest.raises(CourseError, match="cell coupling"):
        publish(school, student)
    assert git(student, "tag").stdout.split() == ["v1"]
    (student / "slip.py").write_text(solution)  # committed by hand, then taken back: git still has it
    git(student, "add", "slip.py")
    git(student, "commit", "-q", "-m", "slip")
    git(student, "reset", "-q", "--hard", "v1")
    lecture.write_text(good)
    with pytest.raises(CourseError, match=r"object .* in \.git.*cell coupling"):
        publish(school, student)


def test_only_an_empty_folder_or_a_student_repository_is_written(school, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(CourseError, match="neither empty"):
        publish(school, tmp_path / "thesis")
    git(tmp_path / "thesis", "init", "-q")
    git(tmp_path / "thesis", "add", ".")
    git(tmp_path / "thesis", "commit", "-q", "-m", "thesis")
    with pytest.raises(CourseError, match="not one that"):
        publish(school, tmp_path / "thesis")
    with pytest.raises(CourseError, match="outside the course"):
        publish(school, school / "student")
    publish(school, tmp_path / "student")
    (tmp_path / "student" / "notes.txt").write_text("mine")
    with pytest.raises(CourseError, match="not committed"):
        publish(school, tmp_path / "student")


def test_a_term(school, tmp_path):
    """Published, edited, corrected, updated: the edited lecture stays, its new version lies beside it."""
    student = tmp_path / "student"
    publish(school, student)
    ada, bruno = (clone(student, tmp_path / name) for name in ("ada", "bruno"))
    work = answer(ada)
    (school / "data" / "new.txt").write_text("new")
    publish(school, student)
    assert git(ada, "pull", "-q").returncode == 0  # the lecture did not change: a plain pull will do
    assert (ada / LECTURE).read_bytes() == work and (ada / "data" / "new.txt").is_file()

    correct(school)
    (school / "data" / "new.txt").write_text("newer")
    publish(school, student)
    assert git(ada, "pull", "-q").returncode != 0  # git refuses, and touches nothing
    assert (ada / LECTURE).read_bytes() == work
    lines = update(ada)
    assert any(line.startswith(f"kept     {LECTURE}") for line in lines)
    assert (ada / LECTURE).read_bytes() == work
    new = (ada / LECTURE).with_name(f"{tiny.NAME}_new.ipynb")
    assert "Tiny, corrected" in new.read_text()
    assert (ada / "data" / "new.txt").read_text() == "newer"
    assert update(ada) == []

    update(bruno)  # has not begun: gets the new lecture itself
    assert "Tiny, corrected" in (bruno / LECTURE).read_text()
    assert git(bruno, "status", "--porcelain").stdout == ""

    correct(school, "# Tiny, corrected again")
    publish(school, student)
    update(ada)
    assert (ada / LECTURE).read_bytes() == work
    assert "again" in new.with_name(f"{tiny.NAME}_new2.ipynb").read_text()


def test_work_that_a_student_committed_is_kept_too(school, tmp_path):
    student = tmp_path / "student"
    publish(school, student)
    esi = clone(student, tmp_path / "esi")
    work = answer(esi)
    git(esi, "commit", "-q", "-a", "-m", "my answers")
    for k in range(2):
        correct(school, f"# Tiny, version {k}")
        (school / "data" / "new.txt").write_text(str(k))
        publish(school, student)
        update(esi)
        assert (esi / LECTURE).read_bytes() == work and (esi / "data" / "new.txt").read_text() == str(k)
    assert "my answers" in git(esi, "log", "--format=%s").stdout


def test_without_network_an_update_changes_nothing(school, tmp_path):
    publish(school, tmp_path / "student")
    ada = clone(tmp_path / "student", tmp_path / "ada")
    work = answer(ada)
    shutil.move(tmp_path / "student", tmp_path / "gone")
    with pytest.raises(CourseError, match="git fetch"):
        update(ada)
    assert (ada / LECTURE).read_bytes() == work


def test_a_published_lecture_is_graded_like_the_release(school, tmp_path, course, grader):
    """The set-up cell for Colab is neither a repair nor run; `dgm check` compares with the lecture as it came."""
    publish(school, tmp_path / "student")
    answer(tmp_path / "student")
    path = tmp_path / "student" / LECTURE
    assert check.find_release(path, read_submission(path)[0]).parts[-3] == ".release"
    assignment = load_assignment(course, tiny.NAME)
    taken = intake(read_submission(path)[0], assignment)
    assert taken.repairs == [] and not [cell for cell in taken.cells if "dgm-colab" in cell["source"]]
    result = grader.grade_file(path)[0]
    assert result["exercises"]["scale"]["score"] == 3 and result["repairs"] == []
    stripped = json.loads(path.read_text())  # an editor lost all metadata
    for cell in stripped["cells"]:
        cell["metadata"] = {}
    path.write_text(json.dumps(stripped))
    assert grader.grade_file(path)[0]["exercises"]["scale"]["score"] == 3


def test_without_an_address_lectures_stay_as_released(school, tmp_path):
    set_address(school, "")
    _, notes = publish(school, tmp_path / "student")
    assert (tmp_path / "student" / LECTURE).read_bytes() == (school / LECTURE).read_bytes()
    assert "student_repository in pyproject.toml is empty" in notes[0]


def test_on_github_there_is_a_badge_with_the_pinned_tag(school, tmp_path):
    set_address(school, "https://github.com/someone/course")
    publish(school, tmp_path / "student")
    link = f"https://colab.research.google.com/github/someone/course/blob/v1/{LECTURE}"
    assert link in nbformat.read(tmp_path / "student" / LECTURE, as_version=4).cells[0].source
    assert link in (tmp_path / "student" / "README.md").read_text()


@pytest.mark.parametrize("suffix", ["", ".git"])
def test_on_a_hub_there_is_a_link_that_pulls_and_opens_the_lecture(school, tmp_path, suffix):
    address = f"https://git.example.org/some one/course{suffix}"
    set_address(school, address)
    pyproject = school / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('hub = ""', 'hub = "https://hub.example.org/"'))
    publish(school, tmp_path / "student")
    (link,) = re.findall(r"\[hub\]\((\S+)\)", (tmp_path / "student" / "README.md").read_text())
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "hub.example.org", "/hub/user-redirect/git-pull")
    query = {key: value for key, (value,) in parse_qs(parts.query, strict_parsing=True).items()}
    assert query == {
        "repo": address, "branch": "main", "targetPath": "course", "urlpath": f"lab/tree/course/{LECTURE}"
    }  # fmt: skip


def test_nbgitpuller_brings_corrections_and_keeps_an_edited_lecture_whole(school, tmp_path):
    def pull(folder):
        return list(GitPuller(str(student), str(folder), branch="main").pull())

    student, ada, bruno = (tmp_path / name for name in ("student", "ada", "bruno"))
    publish(school, student)
    pull(ada), pull(bruno)
    work = answer(ada)
    correct(school)
    (school / "data" / "new.txt").write_text("new")
    publish(school, student)
    pull(ada), pull(bruno)
    assert (ada / LECTURE).read_bytes() == work
    assert (ada / "data" / "new.txt").read_text() == "new"
    assert "Tiny, corrected" in (ada / ".release" / tiny.NAME / f"{tiny.NAME}.ipynb").read_text()
    assert "Tiny, corrected" in (bruno / LECTURE).read_text()
    correct(school, "# Tiny, corrected again")
    publish(school, student)
    pull(ada)
    assert (ada / LECTURE).read_bytes() == work


def test_the_colab_cell(school, tmp_path):
    """Nothing outside Colab; there it fetches the pinned tag and says so in two lines; again, it fetches nothing."""
    publish(school, tmp_path / "student")
    cells = nbformat.read(tmp_path / "student" / LECTURE, as_version=4).cells
    source = next(cell.source for cell in cells if cell.get("id") == "colab")
    assert len(source.splitlines()) <= 12
    place = tmp_path / "content"
    place.mkdir()

    def run(code):
        env = {"PATH": "/usr/bin:/bin", "HOME": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)

    assert run(source).stdout == "" and list(place.iterdir()) == []
    (place / "google" / "colab").mkdir(parents=True)
    for name in ("__init__.py", "colab/__init__.py"):
        (place / "google" / name).write_text("")
    stub = "import subprocess; real = subprocess.run\ndef fake(command, **more):\n"
    stub += (
        "    if 'pip' in command: print('pip', command[-2:]); command = ['true']\n    return real(command, **more)\n"
    )
    stub += "subprocess.run = fake\n"
    for _ in range(2):
        done = run(f"{stub}{source}\nimport dgm_course, torch; print(dgm_course.__file__)")
        lines = done.stdout.splitlines()
        assert done.returncode == 0 and "course: dgm-course-v1" in done.stdout, done.stderr
        assert lines[-1].startswith(str(place / "dgm-course-v1"))
        assert not any("torch'" in line for line in lines)
        shutil.move(tmp_path / "student", tmp_path / "gone") if (tmp_path / "student").exists() else None
    shutil.rmtree(place / "dgm-course-v1")
    assert "look at the network" in run(source).stderr
