"""Reference implementations for a course on deep generative models."""

import importlib.metadata
import re
import sys

__version__ = "0.1.0"

# What every lecture needs, as in pyproject.toml: the lowest version that will do, and the first that will not.
_NEEDED = {"torch": ("2.6", "3"), "numpy": ("2.0", "3"), "matplotlib": ("3.9", "4"), "tqdm": ("4.66", "5")}


def _look_around():
    """Says in a sentence what is wrong with an installation, in place of a puzzling error further on."""
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        raise ImportError(
            f"dgm_course needs Python 3.11 to 3.13, this is {sys.version.split()[0]}: choose another kernel"
        )
    remedy = (
        "choose the kernel of the course's .venv, or install again: pip install -c constraints.txt -e '.[lab,grade]'"
    )
    for name, (lowest, beyond) in _NEEDED.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(f"dgm_course needs {name}, which is not installed here: {remedy}") from None
        found, low, high = (tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (version, lowest, beyond))
        if not low <= found < high:
            raise ImportError(f"dgm_course needs {name} {lowest} or newer, below {beyond}; this is {version}: {remedy}")


_look_around()
