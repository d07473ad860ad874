"""Histograms of weights, activations or gradients, layer by layer."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cifar_lightning.reporting.figures import COLORS, styled

BINS = 60


@styled
def layer_histograms(
    networks: Mapping[str, Mapping[str, ArrayLike]], *, xlabel: str, colors: Sequence[str] = (), log: bool = False
) -> Figure:
    """Draw a histogram for each layer: a row per network, a column per layer.

    networks: by name, layers by name, values of any shape. log: draw the power of ten of their sizes, zeros left out;
    then all rows share one scale, else each has its own. Heights are counts; up to three bars that would dwarf the
    others are cut off at the top.
    """
    values = {name: {k: _numbers(v, log) for k, v in layers.items()} for name, layers in networks.items()}
    ranges = {name: _range(list(layers.values())) for name, layers in values.items()}
    if log:
        low, high = zip(*ranges.values(), strict=True)
        ranges = dict.fromkeys(values, (min(low), max(high)))
    columns = max(map(len, values.values()))
    figure = Figure(figsize=(1.2 + 1.35 * columns, 0.5 + 1.1 * len(values)), layout="constrained")
    grid = figure.subplots(len(values), columns, squeeze=False)
    for row, (name, layers) in enumerate(values.items()):
        for axes, (layer, numbers) in zip(grid[row], layers.items(), strict=False):
            _draw(axes, numbers, ranges[name], colors[row] if colors else COLORS["train"])
            axes.set_title(layer if row == 0 else "", fontsize=8, loc="center")
        for axes in grid[row][len(layers) :]:
            axes.set_visible(False)
        grid[row][0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.supxlabel(f"{xlabel} (powers of ten)" if log else xlabel, fontsize=9)
    return figure


def _draw(axes: Axes, numbers: np.ndarray, limits: tuple[float, float], color: str) -> None:
    counts, edges = np.histogram(numbers, bins=BINS, range=limits)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=color)
    fourth = sorted(counts)[-4]  # the zeros of a ReLU would dwarf all other bars
    axes.set(yticks=[], xlim=limits, ylim=(0, max(min(1.3 * fourth or np.inf, 1.05 * max(counts)), 1)))
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7)


def _numbers(values: ArrayLike, log: bool) -> np.ndarray:
    numbers = np.asarray(values, dtype=float).ravel()
    numbers = numbers[np.isfinite(numbers)]
    return np.log10(np.abs(numbers[numbers != 0])) if log else numbers


def _range(layers: Sequence[np.ndarray]) -> tuple[float, float]:
    """The 0.1st and 99.9th percentile of all values: one far outlier would squeeze everything else."""
    everything = np.concatenate(layers) if layers else np.zeros(1)
    if not len(everything):
        return -1.0, 1.0
    low, high = np.percentile(everything, [0.1, 99.9])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)
