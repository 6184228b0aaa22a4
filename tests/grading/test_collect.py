"""A platform's zip becomes `submitted/`, and nothing is guessed or written elsewhere."""

import zipfile

import pytest

from autograder.cli import main
from autograder.collect import MAX_NOTEBOOK, collect
from autograder.notebooks import CourseError

NAME = "01_tiny"
ROSTER = "id,name,number\nal1,Ada Lovelace,11\nbp2,Blaise Pascal,12\nlt3,Li Tao,13\nlt4,Li Tao,14\n"


@pytest.fixture
def made(tmp_path):
    """Writes an archive and a roster, collects them, returns `(students, left, text of each file)`."""
    (tmp_path / "nbgrader_config.py").touch()
    (tmp_path / "roster.csv").write_text(ROSTER)

    def run(files, roster=True):
        with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        students, left = collect(tmp_path, NAME, tmp_path / "all.zip", tmp_path / "roster.csv" if roster else None)
        return (
            students,
            left,
            {p.parts[-3]: p.read_text()[:9] for p in tmp_path.glob(f"submitted/*/{NAME}/{NAME}.ipynb")},
        )

    return run


def test_canvas_latest_attempt_and_moodle(made):
    files = {
        f"lovelaceada_777_100_{NAME}.ipynb": "first",
        f"lovelaceada_LATE_777_101_{NAME}-1.ipynb": "second",
        "Blaise Pascal_99_assignsubmission_file_/mine.ipynb": "blaise",
        "Li Tao_14_assignsubmission_file_x.ipynb": "fourteen",
    }
    assert made(files) == (["al1", "bp2", "lt4"], [], {"al1": "second", "bp2": "blaise", "lt4": "fourteen"})


def test_doubt_is_reported_and_nothing_is_taken(made):
    files = {
        "Li Tao_5_assignsubmission_file_/x.ipynb": "who",
        "Zoe Zed_6_assignsubmission_file_/x.ipynb": "unknown",
        "Ada Lovelace_11_assignsubmission_file_/a.ipynb": "a",
        "Ada Lovelace_11_assignsubmission_file_/b.ipynb": "b",
        "Blaise Pascal_12_assignsubmission_file_/essay.pdf": "pdf",
        "x.ipynb": "whose",
    }
    students, left, written = made(files)
    assert (students, written) == ([], {})
    for part in ("two people of the roster", "Zoe Zed (number 6): nobody", "al1: several notebooks", "no notebook",
                 "x.ipynb: neither"):  # fmt: skip
        assert any(part in line for line in left), (part, left)


def test_hostile_archives_write_nowhere_else(made, tmp_path):
    files = {
        "../../evil_1_2_x.ipynb": "slip",
        "Ada Lovelace_11_assignsubmission_file_/../../../../up.ipynb": "inside",
        "pascalblaise_12_9_big.ipynb": b" " * (MAX_NOTEBOOK + 1),
    }
    students, left, written = made(files)
    assert (students, written) == (["al1"], {"al1": "inside"})
    assert any("more than" in line for line in left) and any("evil" in line for line in left)
    assert not list(tmp_path.parent.glob("up.ipynb"))


def test_without_a_roster_name_and_number_are_the_id(made):
    assert made({f"..lovelace_7_8_{NAME}.ipynb": "x"}, roster=False)[0] == ["lovelace-7"]


def test_command_and_its_mistakes(tmp_path, capsys, made):
    made({f"lovelaceada_777_100_{NAME}.ipynb": "x", "readme.txt": "y"})
    argv = ["collect", str(tmp_path / "all.zip"), "--assignment", NAME, "--course", str(tmp_path)]
    assert main(argv) == 1
    assert "1 collected" in (out := capsys.readouterr().out) and "not taken: readme.txt: no notebook" in out
    with pytest.raises(CourseError, match="cannot be read"):
        collect(tmp_path, NAME, tmp_path / "roster.csv")
