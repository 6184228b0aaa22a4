"""One thread for each worker, the smallest budget and no windows, set before torch and matplotlib are imported."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.setdefault("DGM_BUDGET", "smoke")
os.environ["MPLBACKEND"] = "Agg"

import torch  # noqa: E402, after the settings above

torch.set_num_threads(1)


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
