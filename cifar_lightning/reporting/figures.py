"""Plots of arrays and plain numbers, in one light style that the colour-blind can read.

Every function returns a `Figure` without global state (no pyplot); `save_figure` writes it.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from cifar_lightning.reporting.files import atomic_path

DPI = 130
# From the palette of Okabe and Ito, which can be told apart with every kind of colour vision.
COLORS = {"train": "#0072B2", "val": "#D55E00", "test": "#009E73", "grey": "#666666"}
NAMES = {"train": "training", "val": "validation", "test": "test (one value, at the end)"}
FRAMES: dict[bool, dict[str, Any]] = {
    True: {"edgecolor": COLORS["test"], "linewidth": 1.2},
    False: {"edgecolor": COLORS["val"], "linewidth": 2.4, "linestyle": (0, (2, 1))},
}
LABEL_CURVES = (
    ("train/acc_clean", "right label: predicted", "-", COLORS["train"]),
    ("train/acc_flipped", "wrong label: true class predicted", "--", COLORS["test"]),
    ("train/memorized", "wrong label: predicted", ":", COLORS["val"]),
)
TITLES = {"loss": "Loss", "acc": "Accuracy"}
STYLE = {
    "figure.dpi": DPI,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 4,
    "text.parse_math": False,  # names of classes and runs may contain $
}
# On top of matplotlib's defaults, so that a user's matplotlibrc does not change a report.
# Needed when a figure is rendered, too: ticks and their labels are created only then.
styled = style.context(["default", STYLE])


@styled
def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure in the format of its suffix (PNG, SVG, PDF), atomically."""
    kind = Path(path).suffix.lstrip(".") or "png"
    options: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if kind == "png" else {}
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in a script that the font lacks appear as boxes
        figure.savefig(temporary, format=kind, dpi=DPI, **options)


@styled
def pixels(figure: Figure) -> np.ndarray:
    """Render the figure as uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


@styled
def learning_curves(history: Sequence[Mapping[str, Any]], test: Mapping[str, Any] | None = None) -> Figure:
    """Draw loss and accuracy against epochs, for training and validation.

    history: rows with "epoch" and "{train,val}/{loss,acc}"; a null is a gap, and a curve of nulls only is left out. A
    third plot shows the metrics of callbacks/wrong_labels.py, where there are any.
    test: if given, its "test/loss" and "test/acc" are drawn as level lines.
    """
    if not history:
        return message("No epoch was completed, so there are no learning curves.")
    noisy = "train/memorized" in history[-1]
    figure = Figure(figsize=(13 if noisy else 9, 4), layout="constrained")
    losses, accuracies, *labels = figure.subplots(1, 2 + noisy, gridspec_kw={"wspace": 0.04})
    _curves(losses, history, "loss", test or {})
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    _curves(accuracies, history, "acc", test or {})
    accuracies.set(xlabel="epoch", ylabel="accuracy (%)")
    for axes in labels:
        _label_curves(axes, history)
    curves = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    # Outside the axes, where no curve can cross it.
    figure.legend(handles=list(curves.values()), loc="outside lower center", ncols=min(max(len(curves), 1), 3))
    return figure


def _label_curves(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw what was learnt of training images with right and with wrong labels."""
    epochs = [row["epoch"] for row in history]
    for key, words, line, color in LABEL_CURVES:
        values = [100 * row[key] if row.get(key) is not None else math.nan for row in history]
        axes.plot(epochs, values, line, color=color, label=words)
    axes.set(xlabel="epoch", ylabel="share of training images (%)", ylim=(0, 100))
    axes.set_title("Right and wrong labels")
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curves(axes: Axes, history: Sequence[Mapping[str, Any]], quantity: str, test: Mapping[str, Any]) -> None:
    """Draw the curves of one quantity; the title has the best validation value and the test value."""
    factor = 100 if quantity == "acc" else 1
    epochs = [row["epoch"] for row in history]
    marker = {"train": "o", "val": "s"} if len(epochs) <= 25 else {}  # so that a single epoch is visible as a dot
    facts = []
    for split, line in (("train", "-"), ("val", "--")):
        values = factor * np.array([row.get(f"{split}/{quantity}") for row in history], dtype=float)
        if not np.isfinite(values).any():
            continue
        axes.plot(epochs, values, line, marker=marker.get(split), color=COLORS[split], label=NAMES[split])
        if split == "val":
            best = int(np.nanargmax(values) if quantity == "acc" else np.nanargmin(values))
            facts.append(f"best validation: {_written(values[best], quantity)} (epoch {epochs[best]})")
    level = test.get(f"test/{quantity}")
    if level is not None:
        axes.axhline(factor * level, color=COLORS["test"], linestyle=":", label=NAMES["test"])
        facts.append(f"test: {_written(factor * level, quantity)}")
    axes.set_title("\n".join([TITLES[quantity], *[", ".join(facts)] * bool(facts)]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(True)


def _written(value: float, quantity: str) -> str:
    return f"{value:.2f} %" if quantity == "acc" else f"{value:.3f}"


@styled
def confusion_matrix(counts: ArrayLike, class_names: Sequence[str], *, percent: bool = False) -> Figure:
    """Draw the confusion matrix: rows are true classes, columns predictions.

    Cells show counts, or per cent of the row; the colour is always the share of the row, so that classes of
    different size can be compared. Its scale is stretched at the low end, where the errors are.
    """
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    n = len(class_names)
    side = max(4.0, 1.6 + 0.5 * n)
    figure = Figure(figsize=(side + 0.15, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    for row, column in np.ndindex(n, n):
        text = f"{100 * shares[row, column]:.1f}" if percent else f"{counts[row, column]:,}"
        dark = shares[row, column] > 0.4
        faint = "#999999" if counts[row, column] == 0 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else faint)
    if max(map(len, class_names)) > 4:
        axes.set_xticks(range(n), class_names, rotation=40, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(n), class_names)
    axes.set_yticks(range(n), class_names)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"Confusion matrix ({'% of the true class' if percent else 'images'})")
    # White lines between the cells.
    axes.set_xticks(np.arange(n - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(n - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def accuracy_per_class(accuracies: Mapping[str, float]) -> Figure:
    """Draw one bar per class, in the given order, and the mean over classes. Accuracies are fractions."""
    names = list(accuracies)
    values = 100 * np.array(list(accuracies.values()), dtype=float)
    figure = Figure(figsize=(6.5, 1.3 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), np.nan_to_num(values), color=COLORS["train"], height=0.72)
    axes.set_yticks(range(len(names)), names)
    # The numbers have a column of their own, where the line of the mean can't cross them.
    for row, value in enumerate(values):
        text = "no images" if np.isnan(value) else f"{value:.1f}"
        axes.text(109, row, text, ha="right", va="center", fontsize=8)
    if np.isfinite(values).any():
        mean = float(np.nanmean(values))
        axes.axvline(mean, color=COLORS["val"], linestyle="--", linewidth=1.3, label=f"mean: {mean:.1f} %")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
    axes.invert_yaxis()
    axes.set(xlim=(0, 110), xlabel="accuracy (%)", xticks=range(0, 101, 20))
    axes.set_title("Accuracy per class")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    return figure


@styled
def image_grid(
    images: ArrayLike,
    captions: Sequence[str] = (),
    *,
    title: str = "",
    columns: int = 8,
    width: int = 96,
    correct: Sequence[bool] = (),
) -> Figure:
    """Draw images side by side, each pixel enlarged to a square of whole screen pixels, captions below the images.

    images: uint8 [N, 3, H, W]; captions: none or N, of one or more lines; width: about how wide an image becomes;
    correct: none or N; correct images get a solid frame, wrong ones a broken one.
    """
    images = np.asarray(images)
    if len(images) == 0:
        return message("There are no images to show.")
    scale = max(1, round(width / images.shape[3]))
    # [N, 3, H, W] to [N, H, W, 3], and every pixel to scale x scale pixels.
    tiles = images.transpose(0, 2, 3, 1).repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = tiles.shape[1:3]
    gap, line, top = 8, 16, 30 if title else 8
    below = gap + line * max((caption.count("\n") + 1 for caption in captions), default=0)
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    across = max(gap + columns * (width + gap), 11 * len(title))  # at least as wide as the title
    canvas = np.full((top + rows * (height + below), across, 3), 255, dtype=np.uint8)
    # One drawing area as large as the figure, in which one unit is one pixel: fifty times faster than a subplot each.
    figure = Figure(figsize=(canvas.shape[1] / DPI, canvas.shape[0] / DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for i, tile in enumerate(tiles):
        y, x = top + i // columns * (height + below), gap + i % columns * (width + gap)
        canvas[y : y + height, x : x + width] = tile
        for k, text in enumerate(captions[i].split("\n") if captions else ()):
            axes.text(x + width / 2, y + height + 13 + k * line, text, ha="center", fontsize=7)
        if correct:
            frame = FRAMES[correct[i]]
            axes.add_patch(Rectangle((x - 2, y - 2), width + 4, height + 4, fill=False, **frame))
    axes.text(gap, top / 2, title, va="center", fontsize=10)
    axes.imshow(canvas, interpolation="nearest", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    return figure


def use_log_scale(axes: Axes) -> None:
    """Make the x axis logarithmic, with two to five ticks written as decimals (0.001, 0.01), not as powers of ten."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks(log_ticks(low, high))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def log_ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers from `low` to `high`: the finest of a few series, or every so many powers of ten."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{digit}e{exponent}") for exponent in exponents for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) < 2:  # so narrow a range is nearly linear
            return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
        if len(ticks) <= 5:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 5)]


def mistakes(
    images: ArrayLike,
    labels: ArrayLike,
    predictions: ArrayLike,
    confidences: ArrayLike,
    class_names: Sequence[str],
    *,
    most: int = 24,
) -> Figure:
    """Draw the misclassified images with the highest confidence, the most confident first.

    images: uint8 [N, 3, H, W]; confidences: probability of the predicted class, [N].
    """
    images, labels, predictions = np.asarray(images), np.asarray(labels), np.asarray(predictions)
    confidences = np.asarray(confidences)
    wrong = np.flatnonzero(predictions != labels)
    if len(wrong) == 0:
        return message(f"No mistakes: all {len(labels):,} images were classified correctly.")
    shown = wrong[np.argsort(-confidences[wrong], kind="stable")][:most]
    captions = [
        f"{class_names[predictions[i]]}, {100 * confidences[i]:.1f} %\ntrue: {class_names[labels[i]]}" for i in shown
    ]
    title = f"Most confident mistakes ({len(shown)} of {len(wrong):,}): predicted class and confidence, true class"
    return image_grid(images[shown], captions, title=title, columns=6, width=128)


@styled
def message(text: str) -> Figure:
    """Draw a message in the place of a figure for which there is nothing to draw."""
    figure = Figure(figsize=(6.5, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color=COLORS["grey"])
    return figure
