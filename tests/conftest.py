"""One thread for each worker, the smallest budget and no windows, set before torch and matplotlib are imported."""

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ.setdefault("DGM_BUDGET", "smoke")
os.environ["MPLBACKEND"] = "Agg"

import torch  # noqa: E402, after the settings above

torch.set_num_threads(1)
