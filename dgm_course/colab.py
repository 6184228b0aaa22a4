"""What the first cell of a lecture does on Colab, once it has fetched the course."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

# torch, numpy, matplotlib and tqdm are Colab's own, and stay as they are.
NEEDED = ("safetensors", "torchdiffeq")
NETWORK = "look at the network, then run this cell again; most of the lecture works without"


def set_up(home):
    """Installs the course in `home` without its dependencies, then those that are missing. Prints two lines.

    The kernel imports the course from `home` itself, where its data is; the installation adds the command `dgm`.
    """
    tasks = [[name] for name in NEEDED if importlib.util.find_spec(name) is None]
    try:
        importlib.metadata.distribution("dgm-course")
    except importlib.metadata.PackageNotFoundError:
        tasks.insert(0, ["--no-deps", str(home)])
    done, failed = [], []
    for words in tasks:
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *words]
        good = subprocess.run(command, capture_output=True).returncode == 0
        (done if good else failed).append("dgm-course" if words[0] == "--no-deps" else words[0])
    importlib.invalidate_caches()
    text = f"installed {', '.join(done)}" if done else "nothing to install"
    failure = f"; could not install {', '.join(failed)}: {NETWORK}" if failed else ""
    print(f"course: {Path(home).name}, data: {Path(home) / 'data'}")
    print(f"{text}{failure}; torch, numpy and the rest are Colab's own")
