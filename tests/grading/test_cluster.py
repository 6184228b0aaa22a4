"""`dgm grade --scheduler` gives the same marks as one machine."""

import json
import re

import pytest
from distributed import LocalCluster

from autograder.cli import main
from tests.grading import tiny
from tests.grading.tiny import ALL_RIGHT, NAME


def test_a_cluster_gives_the_same_marks(course, tmp_path):
    wrong = tiny.submission(course, {**ALL_RIGHT, "scale": "def scale(x, factor):\n    return x, 0"})
    dies = tiny.submission(course, {**ALL_RIGHT, "scale": "import os\nos._exit(1)"})
    hand_in = {"cl_ada": tiny.submission(course, ALL_RIGHT), "cl_bo": wrong, "cl_cy": b"junk", "cl_dee": dies}
    for student, notebook in hand_in.items():
        tiny.hand_in(course, student, notebook)
    argv = ["grade", NAME, "--course", str(course), "--no-gradebook"]
    argv += [word for student in hand_in for word in ("--student", student)]
    texts = []
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster:
        for k, more in enumerate((["--scheduler", cluster.scheduler_address], ["--workers", "1"])):
            out = tmp_path / f"{k}.json"
            assert main([*argv, *more, "--json", str(out)]) == 0
            texts.append(re.sub(r'"seconds": [0-9.]+', '"seconds": 0', out.read_text()))
    assert texts[0] == texts[1]
    assert {s: r["score"] for s, r in json.loads(texts[0])["students"].items()} == {
        "cl_ada": 10, "cl_bo": 7, "cl_cy": 0, "cl_dee": 7
    }  # fmt: skip


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x"])
def test_no_scheduler_there(course, address, capsys):
    tiny.hand_in(course, "cl_ada", tiny.submission(course, ALL_RIGHT))
    argv = ["grade", NAME, "--course", str(course), "--no-gradebook", "--student", "cl_ada"]
    assert main([*argv, "--scheduler", address]) == 2
    assert "no scheduler answers at" in capsys.readouterr().err
