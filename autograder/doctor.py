"""`dgm doctor`: what this machine offers the grader, and what its isolation does not stop."""

import argparse
import os
import platform
import sys

import torch

from autograder.isolation import LEVELS, NOT_STOPPED, available
from autograder.runner import versions


def main(argv):
    """Prints a line for each fact. Returns 1 if answers cannot be isolated at all."""
    argparse.ArgumentParser(prog="dgm doctor", description="What this machine offers the grader.").parse_args(argv)
    found = available()
    for level in LEVELS:
        note = "in use" if level == found[0] else "works" if level in found else "does not work here"
        print(f"isolation {level:<11} {note}")
    print(f"  {found[0]} does not stop {NOT_STOPPED[found[0]]}")
    if found[0] == "none":
        print("  `dgm grade` refuses to grade at this level without --unsafe")
    print(f"system    {platform.platform()}, {'root' if os.getuid() == 0 else 'an ordinary user'}")
    print(f"cores     {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}")
    print(f"memory    {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB")
    print(f"GPU       {torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'none (none is needed)'}")
    print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    return 1 if found[0] == "none" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
