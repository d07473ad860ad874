"""Draw the figures of a score card from plain numbers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cifar_lightning.reporting.figures import COLORS, styled


@styled
def risk_coverage(coverage: Sequence[float], risk: Sequence[float]) -> Figure:
    """Draw the error among the most certain images against their share of all images; both as fractions."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(100 * np.array(coverage), 100 * np.array(risk), color=COLORS["train"])
    axes.fill_between(100 * np.array(coverage), 100 * np.array(risk), color=COLORS["train"], alpha=0.15)
    axes.set(xlim=(0, 100), ylim=(0, None), xlabel="coverage: share of images answered (%)", ylabel="risk: error (%)")
    axes.set_title("Risk and coverage, the most certain images first")
    axes.grid(True)
    return figure


@styled
def heat_map(accuracies: ArrayLike, kinds: Sequence[str], title: str) -> Figure:
    """Draw accuracies [kinds, severities], as fractions: a row for each kind and a column for each severity from 1."""
    values = 100 * np.asarray(accuracies, dtype=float)
    figure = Figure(figsize=(5.4, 1.1 + 0.3 * len(kinds)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        color = "white" if values[row, column] < 50 else "black"
        axes.text(column, row, f"{values[row, column]:.1f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(values.shape[1]), [str(severity + 1) for severity in range(values.shape[1])])
    axes.set(xlabel="severity")
    axes.set_title(title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(shown, ax=axes, label="accuracy (%)", shrink=0.6)
    return figure
