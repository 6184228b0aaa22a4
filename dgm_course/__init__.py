"""Reference implementations for a course on deep generative models."""

import importlib.metadata
import sys

__version__ = "0.1.0"


def _look_around():
    """Says in a sentence what is wrong with an installation, in place of a puzzling error further on."""
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        raise ImportError(
            f"dgm_course needs Python 3.11 to 3.13, this is {sys.version.split()[0]}: choose another kernel"
        )
    remedy = (
        "choose the kernel of the course's .venv, or install again: pip install -c constraints.txt -e '.[lab,grade]'"
    )
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"dgm_course needs torch, which is not installed here: {remedy}") from None
    if tuple(int(part) for part in torch.split("+")[0].split(".")[:2]) < (2, 6):
        raise ImportError(f"dgm_course needs torch 2.6 or newer, this is {torch}: {remedy}")


_look_around()
