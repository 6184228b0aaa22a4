"""The full data sets behind the shipped parts: official addresses, checksums, splits and readers.

`dgm data fetch NAME` brings a set into `home()`; `data.load(NAME, full=True)` reads it from there. Checksums are of
the content, so that a repacked gzip or zip file counts as the same data.
"""

import gzip
import hashlib
import os
import pickle
import sys
import wave
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class File:
    """One file of a full set: its name in the set's folder, official address and sha256 of the content.

    `name` may be a folder of wav files, which then comes from a zip archive at `url`.
    """

    name: str
    url: str
    sha256: str
    size: int  # bytes of the download, approximate where the server packs it on demand


@dataclass(frozen=True)
class FullSet:
    """A set that does not ship: `labels` are its kinds of label, `shipped` names the small set to use without it."""

    folder: str
    about: str
    licence: str
    source: str
    shipped: str
    labels: tuple[str, ...]
    files: tuple[File, ...]


def _idx(address: str, *rows: tuple[str, str, int]) -> tuple[File, ...]:
    return tuple(File(f"{stem}.gz", f"{address}{stem}.gz", sha256, size) for stem, sha256, size in rows)


SPEAKERS = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
FULL = {
    "mnist": FullSet(
        folder="mnist",
        about="70,000 handwritten digits, 28x28 grey: 55,000 / 5,000 / 10,000",
        licence="CC-BY-SA-3.0",
        source="https://yann.lecun.com/exdb/mnist/ (the copy that PyTorch keeps)",
        shipped="mnist",
        labels=("digit",),
        files=_idx(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 9912422),
            ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 28881),
            ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 1648877),
            ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 4542),
        ),
    ),
    "fashion_mnist": FullSet(
        folder="fashion-mnist",
        about="70,000 clothes in ten classes, 28x28 grey: 55,000 / 5,000 / 10,000",
        licence="MIT",
        source="https://github.com/zalandoresearch/fashion-mnist",
        shipped="fashion_mnist",
        labels=("class",),
        files=_idx(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 26421880),
            ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 29515),
            ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 4422102),
            ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 5148),
        ),
    ),
    "fsdd": FullSet(
        folder="fsdd",
        about="3,000 spoken digits by six speakers, 8 kHz: 2,400 / 300 / 300",
        licence="CC-BY-SA-4.0",
        source="Free Spoken Digit Dataset, https://github.com/Jakobovski/free-spoken-digit-dataset, commit 26eb9aa",
        shipped="speech",
        labels=("digit", "speaker"),
        files=(
            File(
                "recordings",
                "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aa.zip",
                "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959",
                16_000_000,
            ),
        ),
    ),
    "frey_faces": FullSet(
        folder="freyfaces",
        about="1,965 frames of one face, 28x20 grey: 1,565 / 200 / 200",
        licence="none stated",
        source="B. Frey and S. Roweis, as shipped with https://github.com/riannevdberg/sylvester-flows",
        shipped="fashion_mnist",
        labels=(),
        files=(
            File(
                "freyfaces.pkl",
                "https://github.com/riannevdberg/sylvester-flows/raw/master/data/Freyfaces/freyfaces.pkl",
                "3b69410c6a5fd6e03f09012905168be3712373a094a776f7e58fcd0670d2138a",
                3568521,
            ),
        ),
    ),
    "tiny_shakespeare": FullSet(
        folder="tinyshakespeare",
        about="1,115,394 characters of Shakespeare's plays, the same text that ships",
        licence="public domain",
        source="https://github.com/karpathy/char-rnn",
        shipped="tiny_shakespeare",
        labels=(),
        files=(
            File(
                "input.txt",
                "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                1115394,
            ),
        ),
    ),
}


def home() -> Path:
    """Where full sets live: `DGM_DATA`, or else the user's cache folder (`~/.cache/dgm-course` on Linux)."""
    if os.environ.get("DGM_DATA"):
        return Path(os.environ["DGM_DATA"])
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "dgm-course"


def content_sha256(path: Path) -> str:
    """sha256 of what a file holds, in hex: of a gzip file uncompressed, of wav files in a zip or folder by name.

    For wav files it is the sha256 of the lines "<sha256>  <file name>", sorted by file name.

    Raises:
        OSError, EOFError, zlib.error or zipfile.BadZipFile: the file is truncated or damaged.
    """
    if path.is_dir():
        return _list_sha256({file.name: file.read_bytes() for file in path.glob("*.wav")})
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".wav")]
            return _list_sha256({Path(name).name: archive.read(name) for name in members})
    digest = hashlib.sha256()
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _list_sha256(files: dict[str, bytes]) -> str:
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_intact(path: Path, sha256: str) -> bool:
    """Whether `path` exists and holds exactly the content with this checksum."""
    try:
        return path.exists() and content_sha256(path) == sha256
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        return False


def folder(name: str) -> Path:
    """The folder of a full set that is there.

    Raises:
        FileNotFoundError: a file of the set is missing; the message names the command and the shipped alternative.
    """
    card = FULL[name]
    path = home() / card.folder
    missing = [file.name for file in card.files if not (path / file.name).exists()]
    if missing:
        raise FileNotFoundError(
            f"the full set {name} is not in {path} (missing: {', '.join(missing)}). "
            f"Bring it with: dgm data fetch {name}. Without a network use the shipped data: load({card.shipped!r})"
        )
    return path


ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArraysOnly(pickle.Unpickler):
    """An unpickler that rebuilds numpy arrays and refuses every other class or function by name."""

    def find_class(self, module, name):
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}; only numpy arrays are allowed")
        return ARRAY_PARTS[module, name]


def _frey_faces(path: Path) -> np.ndarray:
    """The faces, uint8 (1965, 1, 28, 20). A pickle can run code, so its checksum comes first and only arrays pass."""
    (file,) = FULL["frey_faces"].files
    if not is_intact(path / file.name, file.sha256):
        raise ValueError(f"{path / file.name} is not the known file (sha256 differs): dgm data fetch frey_faces")
    with open(path / file.name, "rb") as stream:
        (faces,) = ArraysOnly(stream, encoding="latin1").load()
    return faces.reshape(-1, 1, 28, 20)


def _read_idx(path: Path) -> np.ndarray:
    with gzip.open(path) as file:
        data = file.read()
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def _read_wav(path: Path, length: int = 8192) -> np.ndarray:
    """16-bit samples, cut or padded with silence to `length`."""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(length), "<i2")
    return np.pad(samples, (0, length - len(samples)))


def read(name: str, split: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One split ("train", "valid" or "test") of a full set of images or sound: x, and int64 labels by kind.

    mnist and fashion_mnist: the official training images are cut at 55,000 into train and valid. fsdd: the official
    test recordings 0 to 4 are test, 5 to 9 valid, the rest train; 8,192 samples each. frey_faces: shuffled by
    RandomState(0), then 1565 / 200 / 200 as in van den Berg et al., Sylvester Normalizing Flows, 2018.
    """
    path = folder(name)
    if name == "fsdd":
        takes = {"test": range(5), "valid": range(5, 10), "train": range(10, 50)}[split]
        names = [file.stem.split("_") for file in sorted((path / "recordings").glob("*.wav"))]
        rows = [(digit, speaker, take) for digit, speaker, take in names if int(take) in takes]
        x = np.stack([_read_wav(path / "recordings" / f"{'_'.join(row)}.wav") for row in rows])[:, None]
        speaker = np.array([SPEAKERS.index(speaker) for _, speaker, _ in rows])
        return x, {"digit": np.array([int(digit) for digit, _, _ in rows]), "speaker": speaker}
    if name == "frey_faces":
        train, valid, test = np.split(np.random.RandomState(0).permutation(1965), [1565, 1765])
        return _frey_faces(path)[{"train": train, "valid": valid, "test": test}[split]], {}
    stem = "t10k" if split == "test" else "train"
    rows = {"train": slice(0, 55_000), "valid": slice(55_000, 60_000), "test": slice(0, 10_000)}[split]
    (kind,) = FULL[name].labels
    x = _read_idx(path / f"{stem}-images-idx3-ubyte.gz")[rows, None]
    return x.copy(), {kind: _read_idx(path / f"{stem}-labels-idx1-ubyte.gz")[rows].astype(np.int64)}
