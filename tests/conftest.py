"""Set before torch and matplotlib are imported: one thread a worker, the smallest budget, no windows. And seeds."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.setdefault("DGM_BUDGET", "smoke")
os.environ["MPLBACKEND"] = "Agg"

import numpy as np  # noqa: E402, after the settings above
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


def pytest_terminal_summary(terminalreporter):
    """Prints what tests measured and do not judge (`record_property("measured", text)`)."""
    lines = [
        f"{report.nodeid.split('::')[-1]}: {value}"
        for report in terminalreporter.stats.get("passed", [])
        for key, value in report.user_properties
        if key == "measured" and report.when == "call"
    ]
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write("\n".join(lines) + "\n")
