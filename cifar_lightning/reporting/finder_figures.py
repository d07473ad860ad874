"""Plots of the searches for a learning rate and a batch size."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from cifar_lightning.reporting.figures import COLORS, styled, use_log_scale


@styled
def learning_rate_curve(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float | None, title: str
) -> Figure:
    """Draw the loss of each step against its learning rate, smoothed (as far as it is finite), and the suggestion."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, ".", color=COLORS["grey"], alpha=0.5, label="loss of a step")
    axes.plot(rates[: len(smoothed)], smoothed, color=COLORS["train"], label="smoothed")
    if suggestion is not None:
        at = smoothed[list(rates).index(suggestion)]
        axes.plot([suggestion], [at], "o", color=COLORS["val"], markersize=8, label=f"lowest: {suggestion:.2g}")
    use_log_scale(axes)
    low, high = min(smoothed), max(smoothed[0], min(smoothed))
    axes.set_ylim(low - 0.25 * (high - low) - 0.02 * abs(low), high + 0.5 * (high - low) + 0.02 * abs(high))
    axes.set(xlabel="learning rate (optimizer.lr)", ylabel="training loss", title=title)
    axes.grid(True)
    axes.legend(loc="lower left")
    return figure


@styled
def batch_size_curve(rows: Sequence[Mapping[str, float | None]], chosen: int, title: str) -> Figure:
    """Draw images a second against the batch size, and below it, where it is known, the device's memory.

    rows: with batch_size, images_per_second and memory_bytes.
    """
    sizes = [float(row["batch_size"] or 0) for row in rows]
    speeds = [float(row["images_per_second"] or 0) for row in rows]
    memory = [row.get("memory_bytes") for row in rows]
    known = all(used is not None for used in memory)
    figure = Figure(figsize=(6.5, 5.5 if known else 4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1 + known, 1, sharex=True))
    panels[0].plot(sizes, speeds, "o-", color=COLORS["train"])
    panels[0].plot([chosen], [speeds[sizes.index(chosen)]], "o", color=COLORS["val"], markersize=9, zorder=3)
    panels[0].annotate(f"{chosen}", (chosen, speeds[sizes.index(chosen)]), (0, 9), textcoords="offset points",
                       ha="center", color=COLORS["val"])  # fmt: skip
    panels[0].set(ylabel="training images a second", ylim=(0, 1.15 * max(speeds)), title=title)
    if known:
        panels[1].plot(sizes, [(used or 0) / 2**30 for used in memory], "o-", color=COLORS["test"])
        panels[1].set(ylabel="memory of the device (GiB)", ylim=(0, None))
    for axes in panels:
        axes.grid(True)
    panels[-1].set_xscale("log", base=2)
    panels[-1].set_xticks(sizes)
    panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panels[-1].xaxis.set_minor_locator(NullLocator())
    panels[-1].xaxis.set_minor_formatter(NullFormatter())
    panels[-1].set_xlabel("batch size (data.batch_size)")
    return figure
