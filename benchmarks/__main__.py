"""Runs the named benchmarks, or all of them."""

import argparse
import importlib

NAMES = ("coupling", "distillation", "grading", "sampling", "sequences")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=60, help="times that each contender runs (default: 60)")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(NAMES)}")
    for name in args.names or NAMES:
        importlib.import_module(f"benchmarks.{name}").main(args.rounds)
