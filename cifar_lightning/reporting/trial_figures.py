"""Plot the trials of a search: accuracy against each parameter."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cifar_lightning.natural_order import natural
from cifar_lightning.reporting.figures import COLORS, styled, use_log_scale

MARKS: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": COLORS["train"], "label": "complete"},
    "pruned": {"marker": "x", "color": COLORS["grey"], "label": "pruned (last value)", "linewidths": 1.2},
}


@styled
def parameter_figure(trials: Sequence[Mapping[str, Any]], logarithmic: Mapping[str, bool]) -> Figure:
    """Draw a small chart of accuracy against each parameter.

    trials: rows of trials.csv; logarithmic: the parameters in order, with whether their axis is logarithmic.
    """
    columns = min(3, len(logarithmic))
    rows = ceil(len(logarithmic) / columns)
    figure = Figure(figsize=(max(6.5, 3 * columns), 2.6 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (name, log) in zip(grid.flat, logarithmic.items(), strict=False):
        _draw_parameter(axes, name, [t for t in trials if t.get("value") and t.get(name) is not None], log)
    for axes in grid.flat[len(logarithmic) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("validation accuracy (%)")
    marks = {label: mark for axes in grid.flat for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=2)
    return figure


def _draw_parameter(axes: Axes, name: str, trials: Sequence[Mapping[str, Any]], log: bool) -> None:
    places: dict[Any, Any] = {trial[name]: trial[name] for trial in trials}
    if any(isinstance(value, str) for value in places):
        ticks = sorted(map(str, places), key=natural)
        places = {value: ticks.index(str(value)) for value in places}
        crowded = sum(map(len, ticks)) > 24
        axes.set_xticks(range(len(ticks)), ticks, rotation=30 if crowded else 0, ha="right" if crowded else "center")
        axes.set_xlim(-0.5, len(ticks) - 0.5)
    for state, mark in MARKS.items():
        points = [(places[t[name]], 100 * t["value"]) for t in trials if t["state"] == state]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, s=22, zorder=3, **mark)
    if log and trials:
        use_log_scale(axes)
    axes.set_title(name)
    axes.grid(True)
