"""Plots show the right things in the right places: what is drawn is read back from the axes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from dgm_course import plotting, training
from dgm_course.transforms import Standardize


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def test_density_has_its_mode_in_the_right_place(ax):
    def log_prob(x):
        return -((x - torch.tensor([2.0, -1.0])) ** 2).sum(1) / 0.1

    assert plotting.density(log_prob, ax, bounds=(-1, 3, -2, 5), n=141) is ax
    image = ax.images[0]
    row, column = np.unravel_index(image.get_array().argmax(), image.get_array().shape)
    assert tuple(image.get_extent()) == (-1, 3, -2, 5) and image.origin == "lower"
    assert np.linspace(-1, 3, 141)[column] == pytest.approx(2.0, abs=0.03)
    assert np.linspace(-2, 5, 141)[row] == pytest.approx(-1.0, abs=0.03)
    assert image.get_clim()[0] == 0
    with pytest.raises(ValueError, match=r"shape \(100,\) for 100 points, got \(100, 2\)"):
        plotting.density(lambda x: x, ax, n=10)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_grid_puts_images_in_rows(ax, kind):
    images = torch.stack([torch.full((1, 3, 2), value, dtype=torch.uint8) for value in (0, 51, 102, 153, 255)])
    images = images if kind == "torch" else images.numpy()
    plotting.grid(images, ax, columns=2, pad=1)
    canvas = ax.images[0].get_array()
    assert canvas.shape == (3 * 3 + 2, 2 * 2 + 1, 3)
    assert canvas[0, 0, 0] == 0 and canvas[0, 3, 0] == 0.2 and canvas[4, 0, 0] == 0.4 and canvas[8, 0, 0] == 1
    assert (canvas[8:, 3:] == 1).all() and (canvas[3] == 1).all(), "white where there is no image"


def test_grid_of_floats_is_clipped_and_channels_are_colours(ax):
    image = torch.tensor([-1.0, 0.5, 2.0])[None, :, None, None].expand(1, 3, 4, 4)
    plotting.grid(image, ax)
    assert ax.images[0].get_array()[0, 0].tolist() == [0, 0.5, 1]
    plotting.grid(torch.full((2, 8, 8), 8, dtype=torch.uint8), ax, vmax=16)
    assert ax.images[1].get_array()[0, 0, 0] == 0.5
    for shape in ((4, 2, 8, 8), (8, 8), (0, 1, 8, 8)):
        with pytest.raises(ValueError, match="images must have shape"):
            plotting.grid(torch.zeros(shape), ax)


def test_warp_maps_the_grid(ax):
    transform = Standardize(torch.tensor([[-1.0, -3.0], [1.0, 1.0]]))
    plotting.warp(transform, ax, bounds=(0, 1, 0, 2), lines=5, n=7)
    blue, orange = (np.array(collection.get_segments()) for collection in ax.collections)
    assert blue.shape == orange.shape == (5, 7, 2)
    expected = transform(torch.tensor([[0.25, 2.0]]))[0][0].numpy()
    assert blue[1, -1] == pytest.approx(expected), "second line of constant x, at its upper end"
    assert np.ptp(blue[1, :, 0]) == 0 and np.ptp(orange[1, :, 1]) == 0
    assert to_hex(ax.collections[0].get_color()[0]).upper() == plotting.BLUE


def test_warp_shows_most_points_when_some_fly_away(ax):
    def spike(x):
        return torch.where((x[:, :1] > 0.99) & (x[:, 1:] > 0.99), x * 1000, x)

    plotting.warp(spike, ax, bounds=(0, 1, 0, 1))
    assert ax.get_xlim()[1] < 3 and ax.get_ylim()[1] < 3


def test_latent_colours_points_by_label(ax):
    points, labels = torch.tensor([[0.0, 0], [1, 1], [2, 2]]), torch.tensor([0, 3, 3])
    plotting.latent(points, labels, ax)
    scatter = ax.collections[0]
    ax.figure.canvas.draw()
    colors = [to_hex(color).upper() for color in scatter.get_facecolors()]
    assert colors == [plotting.COLORS[0], plotting.COLORS[3], plotting.COLORS[3]]
    assert scatter.get_offsets().tolist() == points.tolist()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "3"]
    with pytest.raises(ValueError, match=r"points must have shape \(n, 2\), got \(3, 3\)"):
        plotting.latent(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="labels must be 3 integers from 0 to 9"):
        plotting.latent(points, torch.tensor([0, 1, 10]), ax)


def test_quadrants_count_from_the_upper_right():
    assert plotting.quadrant([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]]).tolist() == [0, 1, 2, 3]


def test_learning_curve_is_not_squeezed_by_a_huge_start(ax):
    train = [1e6, *np.linspace(5, 2, 199)]
    history = training.History(train=train, valid_steps=[100, 200], valid=[3.5, 2.2], best_step=200)
    plotting.learning_curve(history, ax)
    low, high = ax.get_ylim()
    assert low < 2 and 4.5 < high < 10
    validation = next(line for line in ax.lines if line.get_label() == "validation")
    assert validation.get_xydata().tolist() == [[100, 3.5], [200, 2.2]]
    kept = next(line for line in ax.lines if line.get_label() == "kept: step 200")
    assert kept.get_xydata().tolist() == [[200, 2.2]]


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_learning_curve_of_a_short_run(ax, steps):
    assert plotting.learning_curve(training.History(train=[1.0] * steps), ax) is ax


def test_only_style_changes_settings():
    with plt.rc_context():
        before = dict(plt.rcParams)
        plotting.density(lambda x: -x.square().sum(1), n=20)
        plotting.grid(torch.rand(4, 1, 3, 3))
        plotting.warp(lambda x: x)
        plotting.latent(torch.randn(10, 2))
        plotting.learning_curve(training.History(train=[1.0, 2.0]))
        assert dict(plt.rcParams) == before
        plotting.style()
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"][0] == plotting.BLUE


def test_colours_differ_for_colour_blind_readers():
    """Every pair of the first eight stays apart when red and green cannot be told from one another (deuteranopia)."""
    # Viénot, Brettel, Mollon, 1999: linear RGB as a dichromat sees it.
    seen = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    rgb = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in plotting.COLORS[:8]])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    there = (linear @ seen.T).clip(0, 1) ** (1 / 2.2)
    gaps = [np.abs(a - b).max() for i, a in enumerate(there) for b in there[:i]]
    assert min(gaps) > 0.1
