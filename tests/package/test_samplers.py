"""What every sampler of an autoregressive model takes: completion, temperature, generator, bar, many at once."""

import importlib
import inspect
import pkgutil
from functools import partial

import pytest
import torch

from dgm_course import autoregressive
from dgm_course.autoregressive.bytenet import ByteNet
from dgm_course.autoregressive.fvbn import FVBN
from dgm_course.autoregressive.gated_pixel_cnn import GatedPixelCNN
from dgm_course.autoregressive.made import MADE
from dgm_course.autoregressive.nade import NADE, RNADE
from dgm_course.autoregressive.pixel_cnn import PixelCNN
from dgm_course.autoregressive.pixel_rnn import PixelRNN
from dgm_course.autoregressive.pixels import PixelModel
from dgm_course.autoregressive.sequences import SequenceModel, Softmax
from dgm_course.autoregressive.sparse_transformer import SparseTransformer
from dgm_course.autoregressive.texture import NextPixel, SoftmaxRegression, synthesize
from dgm_course.autoregressive.vectors import Gaussian, VectorModel
from dgm_course.autoregressive.video_pixel_network import VideoPixelNetwork
from dgm_course.autoregressive.wavenet import WaveNet

N, SHAPE = 5, (1, 3, 4)
NET = {"channels": 4, "skip": 4, "layers": 2, "stacks": 1}
MODELS = {
    "FVBN": lambda: FVBN(SHAPE),
    "NADE": lambda: NADE(SHAPE, hidden=8),
    "RNADE": lambda: RNADE(SHAPE, hidden=8),
    "MADE": lambda: MADE(SHAPE, hidden=(8,)),
    "MADE, direct": lambda: MADE(SHAPE, hidden=(8,), direct=True),
    "MADE, Gaussian": lambda: MADE(SHAPE, Gaussian(), (8,)),
    "NextPixel": lambda: NextPixel(SHAPE, radius=2, hidden=(8,)),
    "PixelCNN": lambda: PixelCNN(SHAPE, 3, hidden=4, blocks=1),
    "PixelCNN, colours": lambda: PixelCNN((3, 3, 4), 3, hidden=6, blocks=1),
    "GatedPixelCNN": lambda: GatedPixelCNN(SHAPE, 3, hidden=4, layers=2),
    "PixelRNN, rows": lambda: PixelRNN(SHAPE, 3, hidden=4, layers=1),
    "PixelRNN, diagonals": lambda: PixelRNN(SHAPE, 3, hidden=4, layers=1, kind="diagonal"),
    "WaveNet": lambda: WaveNet("softmax", 3, **NET),
    "WaveNet, mixture": lambda: WaveNet("mixture", 16, components=2, **NET),
    "WaveNet, logistic": lambda: WaveNet("logistic", components=2, **NET),
    "ByteNet": lambda: ByteNet(3, d=4, layers=2, sets=1),
    "SparseTransformer": lambda: SparseTransformer(3, 12, width=8, heads=2, layers=1),
    "VideoPixelNetwork": lambda: VideoPixelNetwork((3, 4), channels=4, encoder=1, decoder=1),
}
EXAMPLE = torch.randint(7, (1, 16, 16), generator=torch.Generator().manual_seed(0))
SAMPLERS = [*MODELS, "synthesize"]
# Shared bases, and draws of a single variable, where there is nothing to complete.
APART = {VectorModel, PixelModel, SequenceModel, Softmax, SoftmaxRegression}


def sampler(name):
    """A sampler that takes n, temperature, generator and progress; the shape of a sample; its axis of a prefix."""
    if name == "synthesize":
        return partial(synthesize, EXAMPLE, (6, 7), 5, epsilon=1.0), (1, 6, 7), None
    torch.manual_seed(0)
    model = MODELS[name]().double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape))  # the last layers of some start at zero
    if isinstance(model, SequenceModel):
        return partial(model.sample, length=12), (12,), 0
    if isinstance(model, VideoPixelNetwork):
        return partial(model.sample, length=2), (2, 1, 3, 4), 0
    return model.sample, model.shape, None


def completion(samples, prefix):
    """What a sampler is given of samples `(n, ...)`, and a mask of it: a prefix of half the axis, or columns."""
    mask = torch.zeros(samples.shape[1:], dtype=torch.bool)
    if prefix is None:
        mask[..., :2] = True
        return (lambda x: {"known": x, "mask": mask if mask.shape[0] > 1 else mask[0]}), mask
    mask[: len(mask) // 2] = True
    return (lambda x: {"prefix": x.narrow(-len(mask.shape), 0, len(mask) // 2)}), mask


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_table_has_every_class_that_samples():
    modules = [
        importlib.import_module(f"{autoregressive.__name__}.{m.name}")
        for m in pkgutil.iter_modules(autoregressive.__path__)
    ]
    found = {c for m in modules for c in vars(m).values() if inspect.isclass(c) and hasattr(c, "sample")}
    found = {c for c in found if c.__module__.startswith(autoregressive.__name__)}
    assert found - APART == {type(make()) for make in MODELS.values()}


@pytest.mark.parametrize("name", SAMPLERS)
def test_many_at_once_follow_the_generator_alone(name):
    sample, shape, _ = sampler(name)
    before = torch.get_rng_state()
    one, again, other = (sample(n=N, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state()), "the global random state is left alone"
    assert one.shape == (N, *shape)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert len(one.flatten(1).unique(dim=0)) > 1, "each of them is its own draw"
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        sample(n=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_temperature_sharpens_and_at_zero_leaves_no_choice(name):
    sample, _, prefix = sampler(name)
    given, _ = completion(sample(n=1, generator=seeded()), prefix)
    start = given(sample(n=1, generator=seeded())[0])
    if name == "synthesize":  # the order of the pixels stays random, so one is left to draw; no match is exact
        start = {"known": 2 * start["known"] % 7, "mask": torch.arange(42).view(6, 7) != 20}
    cold = torch.cat([sample(n=N, temperature=0, generator=seeded(s), **start) for s in (0, 1)])
    torch.testing.assert_close(cold, cold[:1].expand_as(cold), rtol=1e-9, atol=1e-9)
    hot = sample(n=40, temperature=30.0, generator=seeded(), **start)
    assert len(hot.flatten(1).unique(dim=0)) > 1
    with pytest.raises(ValueError, match=r"temperature must be at least 0, got .*-1"):
        sample(n=1, temperature=-1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_given_is_kept_for_all_alike_or_for_each(name):
    sample, _, prefix = sampler(name)
    x = sample(n=N, temperature=5.0, generator=seeded(3))
    given, mask = completion(x, prefix)
    each = sample(n=N, generator=seeded(), **given(x))
    assert (each == x)[:, mask].all() and not (each == x)[:, ~mask].all()
    alike = sample(n=N, generator=seeded(), **given(x[0]))
    assert (alike == x[0])[:, mask].all()
    copies = sample(n=N, generator=seeded(), **given(x[:1].expand_as(x)))
    assert torch.equal(alike, copies)
    with pytest.raises(ValueError, match=r"(known|prefix) must"):
        sample(n=N, **given(x[: N - 1]))
    if prefix is None:
        with pytest.raises(ValueError, match="completion needs both"):
            sample(n=N, known=x)
        with pytest.raises(ValueError, match=r"mask (must broadcast to )?\("):
            sample(n=N, known=x, mask=torch.ones(2, 5))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_bar_on_request_changes_nothing(name, capsys):
    sample, _, _ = sampler(name)
    quiet = sample(n=2, generator=seeded())
    assert capsys.readouterr() == ("", "")
    assert torch.equal(sample(n=2, generator=seeded(), progress=True), quiet)
    assert "%|" in capsys.readouterr().err


@pytest.mark.parametrize("name", MODELS)
def test_cached_is_naive(name):
    sample, _, prefix = sampler(name)
    given, _ = completion(sample(n=N, generator=seeded(3)), prefix)
    for start in ({}, given(sample(n=N, generator=seeded(3)))):
        fast, slow = (sample(n=N, generator=seeded(), cached=cached, **start) for cached in (True, False))
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
