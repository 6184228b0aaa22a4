"""Data sets, toys, films and the fetching of full sets: what is shipped is what is said, and damage is refused."""

import gzip
import hashlib
import http.server
import json
import math
import pickle
import re
import threading
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from autograder import data_cli
from dgm_course import data, full_sets

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = json.loads((ROOT / "data" / "index.json").read_text())


@pytest.fixture(autouse=True)
def no_full_sets(tmp_path, monkeypatch):
    """Each test has an empty place for full sets, whatever the machine holds."""
    monkeypatch.setenv("DGM_DATA", str(tmp_path / "full"))
    return tmp_path / "full"


# ---- what ships ----


EXPECTED = {
    "mnist": [(4000, 1, 28, 28), (500, 1, 28, 28), (500, 1, 28, 28)],
    "digits8": [(1200, 1, 8, 8), (200, 1, 8, 8), (397, 1, 8, 8)],
    "fashion_mnist": [(10000, 1, 28, 28), (1000, 1, 28, 28), (2000, 1, 28, 28)],
    "textures": [(3, 1, 512, 384), (3, 1, 512, 64), (3, 1, 512, 64)],
    "photos": [(4, 3, 256, 256), (4, 3, 256, 64), (4, 3, 256, 64)],
    "speech": [(160, 1, 4096), (40, 1, 4096), (40, 1, 4096)],
    "speech_phrases": [(16, 1, 12288), (4, 1, 12288), (4, 1, 12288)],
    "tiny_shakespeare": [(1003854,), (55770,), (55770,)],
}


def test_the_table_covers_every_shipped_set():
    assert set(EXPECTED) == set(SHIPPED) == set(data.index())
    for name in [*SHIPPED, *full_sets.FULL]:
        assert re.search(rf"\| {name} +\|", data.load.__doc__), f"{name} has no row in the docstring of load"


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("position, split", list(enumerate(["train", "valid", "test"])))
def test_shape_dtype_and_range(name, position, split):
    x = data.load(name, split)
    assert tuple(x.shape) == EXPECTED[name][position]
    if name.startswith("speech"):
        assert x.dtype == torch.float32 and 0.85 < x.abs().max() <= 1
    elif name == "tiny_shakespeare":
        assert x.dtype == torch.int64 and x.min() == 0 and x.max() <= 64
    else:
        top = {"digits8": 16, "mnist": 255, "fashion_mnist": 255}.get(name)
        assert x.dtype == torch.uint8
        assert x.max() == top if top else x.max() > 200


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in ("textures", "photos", "tiny_shakespeare")])
def test_splits_share_no_example_and_all_joins_them(name):
    parts = [data.load(name, split) for split in ("train", "valid", "test")]
    seen = [{row.numpy().tobytes() for row in part} for part in parts]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert torch.equal(data.load(name, "all"), torch.cat(parts))


@pytest.mark.parametrize("name", ["textures", "photos"])
def test_splits_of_images_are_columns_and_all_is_the_whole_image(name):
    whole, labels = data.load(name, "all", labels=True)
    assert torch.equal(whole, torch.cat([data.load(name, split) for split in ("train", "valid", "test")], dim=-1))
    assert labels.tolist() == list(range(len(whole)))


def test_shipped_files_have_the_recorded_checksums():
    for card in SHIPPED.values():
        content = (ROOT / "data" / card["file"]).read_bytes()
        assert len(content) == card["bytes"]
        assert hashlib.sha256(content).hexdigest() == card["sha256"], card["file"]


def test_split_checksums_are_fixed():
    """Splits must never change: models and figures depend on them."""
    assert SHIPPED["mnist"]["splits"]["test_x"]["sha256"].startswith("b7d4f5146b426977")
    assert SHIPPED["digits8"]["splits"]["test_x"]["sha256"].startswith("9ffc454b91689e80")
    assert SHIPPED["fashion_mnist"]["splits"]["test_x"]["sha256"].startswith("09bbac78738f0229")
    for name, card in SHIPPED.items():
        for key, expected in card["splits"].items():
            if key.endswith("_x") and not name.startswith("speech"):
                x = data.load(name, key.removesuffix("_x")).numpy()
                assert list(x.shape) == expected["shape"] and str(x.dtype) == expected["dtype"]
                assert hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest() == expected["sha256"]


def test_shipped_data_is_small():
    files = [path for path in (ROOT / "data").rglob("*") if path.is_file()]
    small = [path.stat().st_size for path in files if "pretrained" not in path.relative_to(ROOT).parts]
    assert sum(small) <= 15e6
    assert sum(path.stat().st_size for path in files) <= 20e6


def test_every_file_has_its_provenance_on_the_page():
    page = (ROOT / "data" / "README.md").read_text()
    for name, card in SHIPPED.items():
        assert f"`{name}`" in page and f"**{name}.**" in page and card["licence"] in page, name
        assert card["sha256"] in page, f"{name}: the sha256 on the page is out of date"
        assert card["source"] and card["about"]
    known = {card["file"] for card in SHIPPED.values()} | {"README.md", "index.json", "build.py"}
    extra = {path.name for path in (ROOT / "data").iterdir() if path.is_file()} - known
    assert all(name.startswith("LICENSE") for name in extra), f"files without provenance: {extra}"


def test_labels():
    x, y = data.load("mnist", "valid", labels=True)
    assert y.dtype == torch.int64 and y.bincount().tolist() == [50] * 10 and len(x) == len(y)
    _, voice = data.load("speech", labels="voice")
    assert voice.bincount().tolist() == [80, 80]
    assert data.class_names("fashion_mnist")[9] == "Ankle boot"
    assert data.class_names("speech", "voice") == ["en-us", "en-us+f1"]


def test_a_digit_looks_like_its_label():
    """Nearest class mean on 8x8 digits reaches what it should: images and labels belong together."""
    x, y = data.load("digits8", labels=True)
    means = torch.stack([x[y == digit].float().mean(0) for digit in range(10)]).flatten(1)
    x, y = data.load("digits8", "test", labels=True)
    assert (torch.cdist(x.float().flatten(1), means).argmin(1) == y).float().mean() > 0.85


def test_the_two_voices_differ_in_pitch():
    def spacing(sound):  # period of the autocorrelation in the loudest 64 ms, in Hz
        start = sound.square().unfold(0, 512, 64).sum(1).argmax() * 64
        window = sound[start : start + 512] * torch.hann_window(512)
        spectrum = torch.fft.rfft(window, 1024).abs().square()
        correlation = torch.fft.irfft(spectrum)[30:120]  # 67 to 267 Hz
        return 8000 / (30 + correlation.argmax().item())

    x, voice = data.load("speech", labels="voice")
    pitch = torch.tensor([spacing(clip) for clip in x[:, 0]])
    assert pitch[voice == 0].median() < 130 < 150 < pitch[voice == 1].median()


def test_text_goes_to_codes_and_back():
    alphabet = data.vocabulary()
    assert len(alphabet) == 65 and list(alphabet) == sorted(alphabet)
    codes = data.load("tiny_shakespeare")
    assert data.decode(codes[:14], alphabet) == "First Citizen:"
    assert torch.equal(data.encode("First Citizen:", alphabet), codes[:14])
    with pytest.raises(ValueError, match="not in the alphabet"):
        data.encode("First %", alphabet)


def test_patches_are_cuts_of_the_images():
    images = data.load("photos")
    cuts = data.patches(images, 16, 5, seed=1)
    assert cuts.shape == (5, 3, 16, 16) and cuts.dtype == torch.uint8
    assert torch.equal(cuts, data.patches(images, 16, 5, seed=1))
    windows = images.unfold(2, 16, 1).unfold(3, 16, 1)[:, 0]
    assert (windows == cuts[0, 0]).flatten(-2).all(-1).any()
    with pytest.raises(ValueError, match="size must be from 1 to 256"):
        data.patches(images, 300, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("cifar",), "name must be one of mnist, digits8.*got 'cifar'"),
        (("mnist", "dev"), "split must be one of train, valid, test, all; got 'dev'"),
        (("mnist", "train", "voice"), "labels of mnist must be one of digit"),
        (("tiny_shakespeare", "train", True), "tiny_shakespeare has no labels"),
        (("speech", "train", False, True), "name of a full set must be one of mnist.*got 'speech'"),
    ],
)
def test_a_wrong_name_lists_the_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.load(*arguments)


# ---- toys and energies ----


@pytest.mark.parametrize("name", data.TOYS)
def test_toys_are_float32_and_follow_their_seed(name):
    x = data.toy(name, 101, seed=3)
    assert x.shape == (101, 2) and x.dtype == torch.float32 and x.isfinite().all()
    assert torch.equal(x, data.toy(name, 101, seed=3))
    assert not torch.equal(x, data.toy(name, 101, seed=4))
    assert data.toy(name, 0).shape == (0, 2)


# Mean and variance by hand: a circle of radius r has variance r^2 / 2 in each coordinate.
MOMENTS = {
    "circles": ([0, 0], [9 * (0.625 / 2 + 0.08**2)] * 2),
    "eight_gaussians": ([0, 0], [(16 / 2 + 0.25) / 1.414**2] * 2),
    "checkerboard": ([0, 0], [64 / 12] * 2),
    "parabola": ([1 / 40, 0], [(2 + 1) / 1600, 4 / 1600]),
    "moons": ([0, 0.3], [4 * (0.75 + 0.1**2), None]),
    "spirals": ([0, 0], [None, None]),
    "pinwheel": ([0, 0], [2 * (1 + 0.09 + 0.01)] * 2),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_toy_moments(name):
    x = data.toy(name, 200_000).double()
    mean, variance = MOMENTS[name]
    for d in range(2):
        column = x[:, d]
        assert abs(column.mean() - mean[d]) < 4 * column.std() / math.sqrt(len(x))
        if variance[d] is not None:
            spread = (column - column.mean()).square()
            assert abs(spread.mean() - variance[d]) < 4 * spread.std() / math.sqrt(len(x))


@pytest.mark.parametrize("name", ["eight_gaussians", "checkerboard", "parabola"])
def test_toy_density_integrates_to_one_and_gives_the_entropy(name):
    half = 0.6 if name == "parabola" else 6.0
    step = 2 * half / 600
    axis = -half + step * (torch.arange(600, dtype=torch.float64) + 0.5)
    grid = torch.cartesian_prod(axis, axis)
    assert data.toy_log_prob(name, grid).exp().sum() * step**2 == pytest.approx(1, abs=1e-3)
    surprise = -data.toy_log_prob(name, data.toy(name, 100_000).double())
    assert surprise.isfinite().all()
    assert abs(surprise.mean() - data.TOY_ENTROPY[name]) < 4 * surprise.std() / math.sqrt(1e5) + 1e-3


def test_entropy_of_moons():
    """The density of moons is a Gaussian smeared along two arcs: averaged over 400 angles, as an independent route."""
    angle = torch.pi * (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    centre = 2 * torch.cat([upper, torch.tensor([1.0, 0.5]) - upper]) + torch.tensor([-1.0, -0.2])
    x = data.toy("moons", 20_000).double()
    mixture = torch.logsumexp(-torch.cdist(x, centre).square() / (2 * 0.2**2), 1)
    log_prob = mixture - math.log(800 * 2 * math.pi * 0.2**2)
    assert -log_prob.mean() == pytest.approx(data.TOY_ENTROPY["moons"], abs=0.02)


def test_the_checkerboard_is_empty_between_its_squares():
    x = data.toy("checkerboard", 50_000)
    assert ((x / 2).floor().sum(1) % 2 == 0).all() and x.min() >= -4 and x.max() < 4
    outside = torch.tensor([[-1.0, 1.0], [4.5, 0.5], [1.0, -5.0]])
    assert data.toy_log_prob("checkerboard", outside).tolist() == [-math.inf] * 3


def test_spirals_wind_one_and_a_half_times():
    """Point symmetric, two arms, radius from 0 to 3 pi / 3."""
    x = data.toy("spirals", 50_000).double()
    radius = x.norm(dim=1)
    assert 3.1 < radius.quantile(0.99) < 3.5 and radius.max() < 4
    assert torch.cdist(-x[:1000], x[:20_000]).min(1).values.median() < 0.05  # points lie near mirrored ones


def test_arms_of_the_pinwheel_bend_by_a_quarter_of_exp_radius():
    """A point is 2 (r + it) exp(-i angle) as a complex number; its fifth power forgets the arm."""
    z = data.toy("pinwheel", 200_000).double().numpy() @ np.array([1, 1j]) / 2
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    r, t = 1 + 0.3 * node[:, None], 0.1 * node
    expected = ((r + 1j * t) ** 5 * np.exp(-5j * 0.25 * np.exp(r)) * weight[:, None] * weight).sum() / (2 * math.pi)
    assert abs((z**5).mean() - expected) < 5 * (z**5).std() / math.sqrt(len(z))


def test_unknown_toy_lists_the_choices():
    with pytest.raises(ValueError, match=r"toy must be one of moons, circles.*got 'moon'"):
        data.toy("moon", 3)
    with pytest.raises(ValueError, match="closed-form density must be one of"):
        data.toy_log_prob("moons", torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"x must have shape \(n, 2\), got \(2,\)"):
        data.toy_log_prob("parabola", torch.zeros(2))


def direct_energy(name, a, b):
    """Table 1 of Rezende and Mohamed (2015) in plain arithmetic."""
    w1 = math.sin(2 * math.pi * a / 4)
    w2 = 3 * math.exp(-0.5 * ((a - 1) / 0.6) ** 2)
    w3 = 3 / (1 + math.exp(-(a - 1) / 0.3))
    ring = 0.5 * ((math.hypot(a, b) - 2) / 0.4) ** 2
    modes = math.exp(-0.5 * ((a - 2) / 0.6) ** 2) + math.exp(-0.5 * ((a + 2) / 0.6) ** 2)
    third = math.exp(-0.5 * ((b - w1) / 0.35) ** 2) + math.exp(-0.5 * ((b - w1 + w2) / 0.35) ** 2)
    fourth = math.exp(-0.5 * ((b - w1) / 0.4) ** 2) + math.exp(-0.5 * ((b - w1 + w3) / 0.35) ** 2)
    return {
        "U1": ring - math.log(modes),
        "U2": 0.5 * ((b - w1) / 0.4) ** 2,
        "U3": -math.log(third),
        "U4": -math.log(fourth),
    }[name]


@pytest.mark.parametrize("name", ["U1", "U2", "U3", "U4"])
def test_energies_match_the_paper(name):
    points = [(-2.0, 0.3), (0.1, -1.2), (1.0, 0.9), (1.7, -1.5), (0.0, 0.0)]
    values = data.energy(name, torch.tensor(points, dtype=torch.float64))
    assert values.tolist() == pytest.approx([direct_energy(name, a, b) for a, b in points], abs=1e-9)
    far = torch.tensor([[30.0, -40.0]], requires_grad=True)
    data.energy(name, far).sum().backward()
    assert data.energy(name, far).isfinite().all() and far.grad.isfinite().all()


def test_unknown_energy_lists_the_choices():
    with pytest.raises(ValueError, match="energy must be one of U1, U2, U3, U4; got 'U5'"):
        data.energy("U5", torch.zeros(1, 2))


# ---- films ----


def test_moving_digits_shape_and_seed():
    films = data.moving_digits(3, frames=6, seed=1, size=48)
    assert films.shape == (3, 6, 1, 48, 48) and films.dtype == torch.uint8 and films.amax((1, 2, 3, 4)).min() > 200
    assert torch.equal(films, data.moving_digits(3, frames=6, seed=1, size=48))
    assert not torch.equal(films, data.moving_digits(3, frames=6, seed=2, size=48))
    with pytest.raises(ValueError, match="size must be above 28, the side of a digit, got 28"):
        data.moving_digits(1, size=28)


def test_where_digits_overlap_the_brighter_pixel_is_shown():
    crowd = data.moving_digits(1, frames=3, size=30, digits=60)
    assert crowd[0, :, 0, 12:18, 12:18].min() > 240


def test_a_digit_keeps_its_shape_moves_straight_and_bounces():
    film = data.moving_digits(1, frames=60, seed=5, size=40, digits=1)[0, :, 0].double()
    assert (film.sum((1, 2)) == film[0].sum()).all()  # whole in every frame, so never beyond an edge
    grid = torch.arange(40, dtype=torch.float64)
    for weights in (film.sum(2), film.sum(1)):
        centre = (weights * grid).sum(1) / weights.sum(1)
        step = centre.diff()
        assert step.abs().max() <= 5.5
        turns = (step[:-1].sign() * step[1:].sign() < 0).sum()
        assert turns >= 2, "the digit should come back from the edges"


# ---- full sets from a server on this machine ----


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files` with ranges; `faults[path]` is a list of ways to fail, one for each request."""

    files: dict[str, bytes]
    faults: dict[str, list]
    log: list[tuple]

    def do_GET(self):
        content = self.files.get(self.path)
        fault = self.faults.get(self.path, []).pop(0) if self.faults.get(self.path) else None
        wanted = self.headers.get("Range")
        self.log.append((self.path, wanted))
        if content is None:
            return self.send_error(404)
        if fault == "altered":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "truncated":  # complete as far as the client can tell
            content = content[: len(content) // 2]
        start = int(wanted[6:-1]) if wanted and fault != "no ranges" else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + (len(content) // 3 if fault == "cut" else len(content))])

    def log_message(self, *args):
        """No lines on stderr."""


def small_idx(count, image):
    rng = np.random.default_rng(count)
    shape = (count, 28, 28) if image else (count,)
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    return header + rng.integers(0, 256 if image else 10, shape, dtype=np.uint8).tobytes()


@pytest.fixture
def server(monkeypatch):
    """A mirror with one small set, `tiny`: a gzip file and a plain one."""
    plain, packed = b"to be or not to be " * 5000, gzip.compress(small_idx(40, image=True))
    files = {"/tiny/text.txt": plain, "/tiny/images.gz": packed}
    digests = [hashlib.sha256(content).hexdigest() for content in (plain, gzip.decompress(packed))]
    handler = type("Handler", (Server,), {"files": files, "faults": {}, "log": []})
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{httpd.server_port}"
    card = full_sets.FullSet(
        folder="tiny", about="a test", licence="CC0-1.0", source="here", shipped="mnist", labels=(),
        files=(
            full_sets.File("text.txt", f"{address}/tiny/text.txt", digests[0], len(plain)),
            full_sets.File("images.gz", f"{address}/tiny/images.gz", digests[1], len(packed)),
        ),
    )  # fmt: skip
    monkeypatch.setitem(full_sets.FULL, "tiny", card)
    handler.address = address
    yield handler
    httpd.shutdown()
    httpd.server_close()


def test_fetch_brings_a_set_and_keeps_what_is_intact(server, no_full_sets, capsys):
    assert data_cli.main(["fetch", "tiny"]) == 0
    assert (no_full_sets / "tiny" / "text.txt").read_bytes() == server.files["/tiny/text.txt"]
    assert sorted(path.name for path in (no_full_sets / "tiny").iterdir()) == ["images.gz", "text.txt"]
    requests = len(server.log)
    assert data_cli.main(["fetch", "tiny"]) == 0
    assert len(server.log) == requests and "already there, intact" in capsys.readouterr().out
    assert data_cli.main(["path", "tiny"]) == 0
    assert capsys.readouterr().out.strip() == str(no_full_sets / "tiny")


def test_a_repacked_gzip_file_counts_as_the_same_data(server, no_full_sets):
    server.files["/tiny/images.gz"] = gzip.compress(gzip.decompress(server.files["/tiny/images.gz"]), 1)
    assert data_cli.main(["fetch", "tiny"]) == 0


@pytest.mark.parametrize("fault", ["altered", "truncated"])
@pytest.mark.parametrize("path", ["/tiny/text.txt", "/tiny/images.gz"])
def test_a_damaged_file_is_refused_and_fetched_again(server, no_full_sets, capsys, path, fault):
    server.faults[path] = [fault]
    assert data_cli.main(["fetch", "tiny"]) == 0
    assert "truncated or altered (wrong sha256), refused" in capsys.readouterr().err
    assert data_cli.main(["verify"]) == 0


def test_a_server_that_always_sends_damage_is_given_up(server, no_full_sets, capsys):
    server.faults["/tiny/text.txt"] = ["altered"] * 10
    assert data_cli.main(["fetch", "tiny"]) == 1
    message = capsys.readouterr().err
    assert "refused" in message and "load('mnist')" in message
    assert not (no_full_sets / "tiny" / "text.txt").exists()


def test_a_cut_download_goes_on_where_it_stopped(server, no_full_sets):
    server.faults["/tiny/text.txt"] = ["cut"]
    assert data_cli.main(["fetch", "tiny"]) == 0
    ranges = [wanted for path, wanted in server.log if path == "/tiny/text.txt"]
    third = len(server.files["/tiny/text.txt"]) // 3
    assert ranges == [None, f"bytes={third}-"]


def test_a_download_of_yesterday_goes_on_today(server, no_full_sets):
    content = server.files["/tiny/text.txt"]
    (no_full_sets / "tiny").mkdir(parents=True)
    (no_full_sets / "tiny" / ".part-text.txt").write_bytes(content[:1000])
    server.faults["/tiny/text.txt"] = [None]
    assert data_cli.main(["fetch", "tiny"]) == 0
    assert ("/tiny/text.txt", "bytes=1000-") in server.log


@pytest.mark.parametrize("stale", [b"other bytes", b"longer than it should be " * 9000])
def test_a_wrong_beginning_is_thrown_away(server, no_full_sets, stale):
    (no_full_sets / "tiny").mkdir(parents=True)
    (no_full_sets / "tiny" / ".part-text.txt").write_bytes(stale)
    assert data_cli.main(["fetch", "tiny"]) == 0
    assert (no_full_sets / "tiny" / "text.txt").read_bytes() == server.files["/tiny/text.txt"]


def test_a_server_without_ranges_sends_the_whole_file(server, no_full_sets):
    (no_full_sets / "tiny").mkdir(parents=True)
    (no_full_sets / "tiny" / ".part-text.txt").write_bytes(server.files["/tiny/text.txt"][:1000])
    server.faults["/tiny/text.txt"] = ["no ranges"]
    assert data_cli.main(["fetch", "tiny"]) == 0


def test_a_file_damaged_on_disk_is_found_and_replaced(server, no_full_sets, capsys):
    data_cli.main(["fetch", "tiny"])
    (no_full_sets / "tiny" / "images.gz").write_bytes(b"\x1f\x8b not a gzip file")
    assert data_cli.main(["verify"]) == 1
    assert "WRONG  tiny" in capsys.readouterr().out
    assert data_cli.main(["fetch", "tiny"]) == 0
    assert data_cli.main(["verify"]) == 0


def test_a_missing_file_says_what_the_server_answered(server, capsys):
    del server.files["/tiny/images.gz"]
    assert data_cli.main(["fetch", "tiny"]) == 1
    assert "the server answered 404" in capsys.readouterr().err


def test_offline_names_the_shipped_alternative(capsys):
    assert data_cli.main(["fetch", "fsdd", "--mirror", "http://127.0.0.1:9/"]) == 1  # nobody listens on port 9
    message = capsys.readouterr().err
    assert "cannot reach http://127.0.0.1:9/fsdd/" in message and "load('speech')" in message


def test_a_set_that_is_not_there_says_how_to_get_it(capsys):
    with pytest.raises(FileNotFoundError, match=r"dgm data fetch fashion_mnist.*load\('fashion_mnist'\)"):
        data.load("fashion_mnist", full=True)
    with pytest.raises(FileNotFoundError, match=r"dgm data fetch fsdd.*load\('speech'\)"):
        data.load("fsdd")
    assert data_cli.main(["path", "fsdd"]) == 1
    assert "dgm data fetch fsdd" in capsys.readouterr().err


def test_list_names_every_set(capsys):
    assert data_cli.main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in [*SHIPPED, *full_sets.FULL])


def test_official_sets_are_complete():
    for name, card in full_sets.FULL.items():
        assert card.shipped in SHIPPED and card.licence and card.source.strip(), name
        for file in card.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256) and file.url.startswith("http") and file.size > 0
    (text,) = full_sets.FULL["tiny_shakespeare"].files
    assert text.sha256 == SHIPPED["tiny_shakespeare"]["sha256"]


def test_full_images_are_read_from_idx_files(no_full_sets):
    folder = no_full_sets / "fashion-mnist"
    folder.mkdir(parents=True)
    for stem, count in [("train", 60_000), ("t10k", 10_000)]:
        header = bytes([0, 0, 8, 1]) + count.to_bytes(4, "big")
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.tobytes(), 1))
        header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
        images = np.repeat(labels, 784)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes(), 1))
    for split, count in [("train", 55_000), ("valid", 5_000), ("test", 10_000)]:
        x, y = data.load("fashion_mnist", split, labels=True, full=True)
        assert x.shape == (count, 1, 28, 28) and x.dtype == torch.uint8 and torch.equal(x[:, 0, 0, 0].long(), y)


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())


def test_spoken_digits_come_from_a_zip_archive(server, no_full_sets, tmp_path, monkeypatch):
    source, archive = tmp_path / "source", tmp_path / "fsdd.zip"
    source.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for take in (0, 7, 20):
            write_wav(source / f"3_theo_{take}.wav", np.full(100, take + 1))
            file.write(source / f"3_theo_{take}.wav", f"fsdd-26eb9aa/recordings/3_theo_{take}.wav")
        file.writestr("fsdd-26eb9aa/README.md", "not a recording")
    server.files["/fsdd/26eb9aa.zip"] = archive.read_bytes()
    server.faults["/fsdd/26eb9aa.zip"] = ["truncated"]
    (official,) = full_sets.FULL["fsdd"].files
    known = full_sets.File("recordings", official.url, full_sets.content_sha256(source), 1)
    monkeypatch.setitem(
        full_sets.FULL, "fsdd", full_sets.FullSet(**{**vars(full_sets.FULL["fsdd"]), "files": (known,)})
    )
    assert data_cli.main(["fetch", "fsdd", "--mirror", server.address]) == 0
    assert sorted(path.name for path in (no_full_sets / "fsdd").iterdir()) == ["recordings"]
    for split, take in [("test", 0), ("valid", 7), ("train", 20)]:
        x, y = data.load("fsdd", split, labels=True)
        assert x.shape == (1, 1, 8192) and y.tolist() == [3] and (x[0, 0, :100] * 32768 == take + 1).all()
        assert (x[0, 0, 100:] == 0).all()
    assert data.load("fsdd", "test", labels="speaker")[1].tolist() == [full_sets.SPEAKERS.index("theo")]


def faces_pickle():
    """Faces, and the bytes of a pickle like the published one, which an old Python 2 wrote as text."""
    faces = np.arange(1965 * 560, dtype=np.uint32).reshape(1965, 560).astype(np.uint8)
    head = (
        b"(lp0\ncnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n"
        b"(I1\n(I1965\nI560\ntp7\ncnumpy\ndtype\np8\n(S'u1'\np9\nI0\nI1\ntp10\nRp11\n"
        b"(I3\nS'|'\np12\nNNNI-1\nI-1\nI0\ntp13\nbI00\nS"
    )
    return faces, head + repr(faces.tobytes())[1:].encode() + b"\np14\ntp15\nba."


def test_faces_are_read_only_from_the_known_pickle(no_full_sets, monkeypatch):
    folder = no_full_sets / "freyfaces"
    folder.mkdir(parents=True)
    faces, content = faces_pickle()
    (folder / "freyfaces.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="not the known file"):
        data.load("frey_faces")
    card = full_sets.FULL["frey_faces"]
    known = full_sets.File("freyfaces.pkl", card.files[0].url, hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setitem(full_sets.FULL, "frey_faces", full_sets.FullSet(**{**vars(card), "files": (known,)}))
    parts = [data.load("frey_faces", split) for split in ("train", "valid", "test")]
    assert [part.shape for part in parts] == [(1565, 1, 28, 20), (200, 1, 28, 20), (200, 1, 28, 20)]
    assert torch.cat(parts).long().sum() == faces.astype(int).sum()


class Harmful:
    def __reduce__(self):
        return print, ("this must not run",)


def test_a_pickle_that_runs_code_is_refused(tmp_path, capsys):
    path = tmp_path / "harmful.pkl"
    path.write_bytes(pickle.dumps([Harmful()], protocol=0))
    with open(path, "rb") as file, pytest.raises(pickle.UnpicklingError, match=r"asks for .*print; only numpy arrays"):
        full_sets.ArraysOnly(file, encoding="latin1").load()
    assert "must not run" not in capsys.readouterr().out
