"""Plots of a comparison: accuracies and differences with their intervals, and the images on which two networks part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from cifar_lightning.reporting.comparison_figures import LONGEST
from cifar_lightning.reporting.figures import COLORS, styled

ACROSS, DOWN = 6, 2  # images in each quarter of the gallery
SCALE_TO = 64  # pixels across an image, at least


@dataclass(frozen=True)
class Interval:
    """A difference in percentage points with its interval, and whether it is decided."""

    name: str
    value: float
    low: float
    high: float
    decided: bool


@styled
def differences(accuracies: Mapping[str, Sequence[float]], intervals: Sequence[Interval], split: str) -> Figure:
    """Draw the accuracy of every network (in %, by side), and below it each difference with its 95 % interval.

    Decided differences are filled, the others hollow.
    """
    rows = (len(accuracies), len(intervals))
    figure = Figure(figsize=(8.5, 2.1 + 0.3 * sum(rows)), layout="constrained")
    above, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [rows[0] + 1.2, rows[1] + 1.2]})
    for row, values in enumerate(accuracies.values()):
        above.plot(values, [row] * len(values), "o", color=COLORS["train"], alpha=0.45, markersize=5)
        above.plot(np.mean(values), row, "|", color="black", markersize=16, markeredgewidth=1.6)
    many = any(len(values) > 1 for values in accuracies.values())
    above.set_title(f"Accuracy on the {split}{'; a dot for each seed, a line for the mean' if many else ''}")
    _rows(above, list(accuracies), "accuracy (%)")
    for row, one in enumerate(intervals):
        color = COLORS["test"] if one.decided else COLORS["grey"]
        below.plot([one.low, one.high], [row, row], color=color)
        below.plot(one.value, row, "o", color=color, markersize=7, markerfacecolor=color if one.decided else "white")
    below.axvline(0, color=COLORS["val"], linestyle="--", linewidth=1.2)
    below.set_title("Difference with its 95 % interval; filled: decided, hollow: not decided")
    _rows(below, [one.name for one in intervals], "difference (percentage points)")
    return figure


def _rows(axes: Axes, names: Sequence[str], label: str) -> None:
    half = (LONGEST - 1) // 2
    axes.set_yticks(range(len(names)), [n if len(n) <= LONGEST else f"{n[:half]}…{n[-half:]}" for n in names])
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")


@styled
def gallery(
    images: ArrayLike, labels: ArrayLike, first: ArrayLike, second: ArrayLike, names: tuple[str, str]
) -> Figure:
    """Draw examples of the four cases: both are right, only the first, only the second, none.

    images: uint8 [N, C, H, W]; labels, first, second: the true class and both answers, text [N]. Below an image is its
    true class, and what was taken for it; the examples are spread evenly over the images.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    answers = [np.asarray(first), np.asarray(second)]
    right = [answer == labels for answer in answers]
    figure = Figure(figsize=(11.5, 5.5), layout="constrained")
    quarters = figure.subplots(2, 2, gridspec_kw={"wspace": 0.06, "hspace": 0.02})
    cases = (
        ("both are right", right[0] & right[1]),
        (f"only {names[0]} is right", right[0] & ~right[1]),
        (f"only {names[1]} is right", ~right[0] & right[1]),
        ("both are wrong", ~right[0] & ~right[1]),
    )
    for axes, (title, chosen) in zip(quarters.flat, cases, strict=True):
        numbers = np.flatnonzero(chosen)
        axes.set_title(f"{title}: {len(numbers):,} of {len(labels):,} ({100 * len(numbers) / len(labels):.1f} %)")
        shown = numbers[np.linspace(0, len(numbers) - 1, min(ACROSS * DOWN, len(numbers))).astype(int)]
        _tiles(axes, images[shown], [_caption(labels[i], [a[i] for a in answers]) for i in shown])
    return figure


def _caption(label: str, answers: Sequence[str]) -> str:
    wrong = dict.fromkeys(answer for answer in answers if answer != label)
    return "\n".join([label, *[f"→ {' or '.join(wrong)}"] * bool(wrong)])


def _tiles(axes: Axes, images: np.ndarray, captions: Sequence[str]) -> None:
    scale = max(1, round(SCALE_TO / images.shape[-1]))
    tiles = images.transpose(0, 2, 3, 1).repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = tiles.shape[1:3]
    below, gap = round(0.42 * height), round(0.2 * width)
    canvas = np.full((DOWN * (height + below), ACROSS * (width + gap), 3), 255, dtype=np.uint8)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        y, x = i // ACROSS * (height + below), i % ACROSS * (width + gap) + gap // 2
        canvas[y : y + height, x : x + width] = tile
        axes.text(x + width / 2, y + height + 0.05 * height, caption, ha="center", va="top", fontsize=6.5)
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
