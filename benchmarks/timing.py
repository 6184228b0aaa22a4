"""Fair timing: all contenders take turns in one process, so that a busy machine slows all of them alike."""

import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def interleaved(contenders, rounds, warmup=5):
    """Run every contender once a round, and time each run.

    Args:
        contenders: name -> function without arguments. One of them may be called `floor`.
        rounds: timed rounds.
        warmup: rounds before them that do not count.

    Returns:
        name -> dict with `ms` (median), `ms_quartiles`, and `ratio`: the median over rounds of its time over the
        time of `floor` in the same round (None where there is no floor).
    """
    seconds = {name: [] for name in contenders}
    for r in range(warmup + rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if r >= warmup:
                seconds[name].append(time.perf_counter() - start)
    floor = seconds.get("floor")
    result = {}
    for name, times in seconds.items():
        low, median, high = (1000 * q for q in statistics.quantiles(times, n=4))
        ratio = statistics.median(t / f for t, f in zip(times, floor, strict=True)) if floor else None
        result[name] = {"ms": median, "ms_quartiles": [low, high], "ratio": ratio}
    return result


def machine(peers):
    """What is needed to judge figures: the machine and the versions of torch and of `peers`."""
    return {
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {peer: version(peer) for peer in ("torch", *peers)},
    }


def report(name, tables, peers):
    """Print tables of results and write them, with what is needed to judge them, to `results/NAME.json`.

    Args:
        name: name of the benchmark.
        tables: title -> results of `interleaved`, each contender with any further numbers to show.
        peers: distributions whose versions belong to the result.
    """
    about = machine(peers)
    for title, rows in tables.items():
        print(f"\n{title}\n{'':>10} {'ms':>8} {'quartiles':>15} {'/ floor':>8}")
        for contender, row in rows.items():
            quartiles = "{:.2f} to {:.2f}".format(*row["ms_quartiles"])
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            extra = "  ".join(f"{k} {v:,}" for k, v in row.items() if k not in ("ms", "ms_quartiles", "ratio"))
            print(f"{contender:>10} {row['ms']:>8.2f} {quartiles:>15} {ratio:>8}  {extra}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": about, "tables": tables}, indent=1) + "\n", encoding="utf-8")
    print(f"\n{about['threads']} threads, torch {about['versions']['torch']}; written to {path}")
