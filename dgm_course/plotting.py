"""Plots with one look, safe for colour-blind readers. Each draws on `ax` (or a new figure) and returns the axes.

Okabe and Ito's colours for categories, viridis for densities. Only `style()` changes global settings.

References:
    Color Universal Design, Okabe, Ito, 2008.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, RED, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#56B4E9", "#D55E00", "#000000"
)  # fmt: skip
COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK, "#999999", "#7A3E00")


def style():
    """Sets the look of all figures of a notebook: readable sizes, no frames, the colours of this module."""
    plt.rcParams.update({
        "figure.figsize": (5, 3.6),
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": plt.cycler(color=COLORS),
        "image.cmap": "viridis",
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "animation.html": "jshtml",
    })  # fmt: skip


def density(log_prob, ax=None, bounds=(-4, 4, -4, 4), n=200, vmax=None):
    """Heat map of a density in the plane.

    Args:
        log_prob: function from points `(m, 2)`, float32 on the CPU, to log-densities `(m,)` in nats.
        ax: axes; None for a new figure.
        bounds: `(x_min, x_max, y_min, y_max)`.
        n: points along each side.
        vmax: density with the brightest colour, to compare figures; None for the highest one.
    """
    x = torch.linspace(*bounds[:2], n)
    y = torch.linspace(*bounds[2:], n)
    points = torch.cartesian_prod(y, x).flip(1)
    with torch.no_grad():
        values = torch.cat([torch.as_tensor(log_prob(part)) for part in points.split(10_000)])
    if values.shape != (n * n,):
        raise ValueError(f"log_prob must return shape ({n * n},) for {n * n} points, got {tuple(values.shape)}")
    ax = _axes(ax)
    image = _numpy(values).reshape(n, n)
    ax.imshow(np.exp(image), origin="lower", extent=bounds, vmin=0, vmax=vmax, cmap="viridis", interpolation="bilinear")
    return _bare(ax)


def grid(images, ax=None, columns=None, vmin=0, vmax=None, pad=1):
    """Images side by side, row by row.

    Args:
        images: `(n, c, h, w)` with 1 or 3 channels, or `(n, h, w)`.
        ax: axes; None for a new figure.
        columns: images in a row; None for about a square.
        vmin, vmax: values shown black and white; vmax=None: 255 for uint8, else 1. Values outside are clipped.
        pad: pixels between images.
    """
    images = torch.as_tensor(images)
    vmax = vmax if vmax is not None else 255 if images.dtype == torch.uint8 else 1
    pixels = ((_numpy(images).astype(float) - vmin) / (vmax - vmin)).clip(0, 1)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not len(pixels):
        raise ValueError(f"images must have shape (n, 1 or 3, h, w) or (n, h, w), got {tuple(images.shape)}")
    count, _, h, w = pixels.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.ones((rows * (h + pad) - pad, columns * (w + pad) - pad, 3))
    for i, image in enumerate(pixels):
        top, left = (h + pad) * (i // columns), (w + pad) * (i % columns)
        canvas[top : top + h, left : left + w] = image.transpose(1, 2, 0)
    ax = _axes(ax, figsize=(6, 6 * canvas.shape[0] / canvas.shape[1]))
    ax.imshow(canvas, interpolation="nearest")
    ax.set_axis_off()
    return ax


def warp(transform, ax=None, bounds=(-3, 3, -3, 3), lines=21, n=300):
    """What a map of the plane does to a regular grid: lines of constant x in blue, of constant y in orange.

    Args:
        transform: function from points `(m, 2)` to points `(m, 2)`, or to a pair `(points, log_det)` as a `Transform`
            gives. For the map from latent to data give `transform.inverse`; for no map `lambda x: x`.
        ax: axes; None for a new figure.
        bounds: `(x_min, x_max, y_min, y_max)` of the grid.
        lines: number of lines in each direction.
        n: points on each line.
    """
    ax = _axes(ax)
    along, everything = torch.linspace(0, 1, n), []
    lows, highs = torch.tensor(bounds[::2]), torch.tensor(bounds[1::2])
    for axis, color in ((0, BLUE), (1, ORANGE)):
        where = torch.cartesian_prod(torch.linspace(0, 1, lines), along)  # (lines * n, 2): constant, running
        points = lows + (highs - lows) * (where if axis == 0 else where.flip(1))
        with torch.no_grad():
            mapped = transform(points)
        mapped = _numpy(mapped[0] if isinstance(mapped, tuple) else mapped).reshape(lines, n, 2)
        ax.add_collection(LineCollection(mapped, colors=color, linewidths=0.8, alpha=0.8))
        everything.append(mapped.reshape(-1, 2))
    # A few points may be thrown far away; the others decide what is seen.
    everything = np.concatenate(everything)
    low, high = np.quantile(everything, [0.05, 0.95], axis=0)
    room = 0.5 * (high - low)
    low, high = np.maximum(everything.min(0), low - room), np.minimum(everything.max(0), high + room)
    margin = 0.03 * (high - low) + 1e-6
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    ax.set_aspect("equal")
    return ax


def latent(points, labels=None, ax=None, size=None, limit=5000):
    """Scatter of points in the plane, coloured by label: `latent(z, quadrant(x))` shows where each part of x went.

    Args:
        points: `(n, 2)`.
        labels: integers `(n,)` from 0 to 9, or None for one colour.
        ax: axes; None for a new figure.
        size: area of a marker in points squared; None for one that suits n.
        limit: of more points than this, the first ones are drawn.
    """
    points = _numpy(points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must have shape (n, 2), got {points.shape}")
    points, ax = points[:limit], _axes(ax)
    look = {"s": size or float(np.clip(6000 / max(len(points), 1), 4, 20)), "linewidths": 0, "alpha": 0.8}
    if labels is None:
        ax.scatter(*points.T, color=BLUE, **look)
    else:
        labels = _numpy(labels)[:limit].astype(int)
        if labels.shape != (len(points),) or labels.min() < 0 or labels.max() >= len(COLORS):
            raise ValueError(f"labels must be {len(points)} integers from 0 to {len(COLORS) - 1}")
        ax.scatter(*points.T, c=labels, cmap=ListedColormap(COLORS), vmin=0, vmax=len(COLORS) - 1, **look)
        present = np.unique(labels)
        if len(present) > 1:
            marks = [plt.Line2D([], [], color=COLORS[k], marker="o", linestyle="", markersize=5) for k in present]
            ax.legend(marks, present, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.1, borderpad=0.2)
    ax.set_aspect("equal")
    return ax


def quadrant(x):
    """Number of the quadrant of each point `(n, 2)`: 0 upper right, 1 upper left, 2 lower left, 3 lower right."""
    right, upper = torch.as_tensor(x).T > 0
    return torch.where(upper, (~right).long(), 2 + right.long())


def learning_curve(history, ax=None):
    """Training loss (thin: each step; thick: running mean), validation loss and the step that was kept.

    Args:
        history: what `training.fit` returns.
        ax: axes; None for a new figure.
    """
    ax = _axes(ax)
    train = np.asarray(history.train, dtype=float)
    steps = np.arange(1, len(train) + 1)
    if len(train):
        width = max(1, len(train) // 50)
        smooth = np.convolve(train, np.ones(width) / width, "valid")
        ax.plot(steps, train, color=SKY, linewidth=0.8, alpha=0.5)
        ax.plot(steps[width - 1 :], smooth, color=BLUE, label="training")
        # The first losses may be huge; what follows must still be seen.
        low, high = np.quantile(train[len(train) // 20 :], [0.005, 0.995])
        shown = [low, high, *np.quantile(history.valid or [high], [0, 0.9])]
        margin = 0.08 * (max(shown) - min(shown)) or 1.0
        ax.set_ylim(min(shown) - margin, max(shown) + margin)
    if history.valid:
        ax.plot(history.valid_steps, history.valid, color=RED, marker="o", markersize=4, label="validation")
    if history.best_step:
        ring = {"marker": "o", "markersize": 10, "markerfacecolor": "none", "linestyle": "", "color": BLACK}
        ax.plot(history.best_step, history.best_valid, label=f"kept: step {history.best_step}", **ring)
    ax.set(xlabel="step", ylabel="loss (nats)")
    if len(train):
        ax.legend(loc="upper right")
    return ax


def _axes(ax, figsize=None):
    return plt.subplots(figsize=figsize)[1] if ax is None else ax


def _bare(ax):
    """Few ticks and no frame: the picture speaks."""
    ax.locator_params(nbins=5)
    for side in ax.spines.values():
        side.set_visible(False)
    return ax


def _numpy(x):
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
