"""Figures of a search: its history, what mattered, and how each parameter did. They take plain rows, a trial each."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_lightning.reporting.figures import COLORS, message, styled, use_log_scale

Trials = Sequence[Mapping[str, Any]]  # "number", "state", "value" (a fraction, or None), "params"
MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": COLORS["train"], "label": "complete"},
    "pruned": {"marker": "x", "color": COLORS["grey"], "label": "pruned (last value)", "linewidths": 1.2},
    "failed": {"marker": "|", "color": COLORS["val"], "label": "failed", "linewidths": 1.2},
}


@styled
def history(trials: Trials) -> Figure:
    """Draw each trial's accuracy in the order in which they began, and the best so far; failed ones at the foot."""
    done = [trial for trial in trials if trial["state"] == "complete"]
    if not done:
        return message("No trial was completed, so there is no history.")
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    numbers = [trial["number"] for trial in done]
    best = np.maximum.accumulate([100 * trial["value"] for trial in done])
    axes.step([*numbers, trials[-1]["number"]], [*best, best[-1]], where="post", color=COLORS["test"], label="best")
    for state in ("complete", "pruned"):
        _marks(axes, state, [(t["number"], 100 * t["value"]) for t in trials if t["state"] == state and t["value"]])
    foot = axes.get_ylim()[0]
    _marks(axes, "failed", [(t["number"], foot) for t in trials if t["state"] == "failed"])
    top = max(done, key=lambda trial: trial["value"])
    axes.set_title(f"Best: {100 * top['value']:.2f} % (trial {top['number']})")
    axes.set(xlabel="trial", ylabel="validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _marks(axes: Axes, state: str, points: Sequence[tuple[float, float]]) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=22, zorder=3, **MARKS[state])


@styled
def importance(importances: Mapping[str, float]) -> Figure:
    """Draw how much each parameter mattered, the most important on top; shares of 1."""
    if not importances:
        return message("Two completed trials are needed to tell which parameters mattered.")
    names = sorted(importances, key=lambda name: importances[name])
    figure = Figure(figsize=(6.5, 1.2 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    values = [100 * importances[name] for name in names]
    axes.barh(range(len(names)), values, color=COLORS["train"], height=0.7)
    for row, value in enumerate(values):
        axes.text(value + 1, row, f"{value:.0f}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, max(values) * 1.1 + 2), xlabel="share of the importance (%)")
    axes.set_title("What mattered for the validation accuracy (PED-ANOVA)")
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    return figure


@styled
def parameters(trials: Trials, logarithmic: Mapping[str, bool]) -> Figure:
    """Draw accuracy against each parameter, one small chart each. logarithmic: the names in order, and their scale."""
    shown = [t for t in trials if t["state"] in ("complete", "pruned") and t["value"]]
    names = [name for name in logarithmic if any(name in trial["params"] for trial in shown)]
    if not names:
        return message("No trial was completed, so there is nothing to show.")
    columns = min(3, len(names))
    rows = ceil(len(names) / columns)
    figure = Figure(figsize=(max(6.5, 3 * columns), 2.6 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, name in zip(grid.flat, names, strict=False):
        _against(axes, name, shown, logarithmic[name])
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("validation accuracy (%)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _against(axes: Axes, name: str, trials: Trials, logarithmic: bool) -> None:
    having = [trial for trial in trials if name in trial["params"]]
    values = [trial["params"][name] for trial in having]
    if any(isinstance(value, str) for value in values):
        ticks = sorted(set(map(str, values)), key=lambda value: (len(value) if value.isdigit() else 0, value))
        places = {value: i for i, value in enumerate(ticks)}
        crowded = sum(map(len, ticks)) > 24
        axes.set_xticks(range(len(ticks)), ticks, rotation=30 if crowded else 0, ha="right" if crowded else "center")
        axes.set_xlim(-0.5, len(ticks) - 0.5)
    for state in ("complete", "pruned"):
        points = [
            (places[str(value)] if isinstance(value, str) else value, 100 * trial["value"])
            for trial, value in zip(having, values, strict=True)
            if trial["state"] == state
        ]
        _marks(axes, state, points)
    if logarithmic:
        use_log_scale(axes)
    axes.set_title(name)
    axes.grid(True)
