"""Plots of the settings of a summary side by side: accuracies with error bars, learning curves, heat map, time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_lightning.natural_order import natural
from cifar_lightning.reporting.figures import COLORS, styled, use_log_scale
from cifar_lightning.reporting.summary import Setting, Summary
from cifar_lightning.reporting.tables import mean_and_std, spread

MOST_ROWS, MOST_CURVES, MOST_NUMBERED = 40, 8, 16
LONGEST = 44  # characters of a name
# The eight colours of Okabe and Ito, which the colour-blind can tell apart, with a darker yellow.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#B8A800")
WORDS = {"val": "validation", "test": "test", "train": "training"}


def comparison_figures(summary: Summary) -> dict[str, Figure]:
    """The figures for which the settings of a summary have the metrics, by name."""
    settings, split = summary.settings, shown_split(summary)
    names = short_names(settings)
    drawn = {"accuracy": accuracy_bars(settings, names, split)}
    if any(run.history for setting in settings for run in setting.runs):
        drawn["learning_curves"] = curves_with_bands(settings, names)
    if len(settings) > 1 and any(s.values("train_seconds") and s.accuracies(split) for s in settings):
        drawn["accuracy_and_time"] = accuracy_and_time(settings, names, split)
    keys = list(settings[0].differing)
    if len(keys) == 2 and all(len({setting.differing[key] for setting in settings}) > 1 for key in keys):
        drawn["heat_map"] = heat_map(settings, keys, split)
    return drawn


def shown_split(summary: Summary) -> str:
    """Validation where the rows are ranked by it; test where only test accuracies are complete."""
    return "test" if not summary.ranked and all(s.values("test/acc") for s in summary.settings) else "val"


def short_names(settings: Sequence[Setting]) -> list[str]:
    """Short, unique names: only the values where a single key varies; long names are cut in the middle."""
    values = [" ".join(setting.differing.values()) for setting in settings]
    alone = len(settings[0].differing) == 1 and len(set(values)) == len(values)
    names = values if alone else [setting.name for setting in settings]
    half = (LONGEST - 1) // 2
    cut = [name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}" for name in names]
    return [name if cut.count(name) == 1 else f"{i + 1}: {name}" for i, name in enumerate(cut)]


def or_nan(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, or NaN, which matplotlib does not draw, where there are too few values."""
    mean, std = mean_and_std(values)
    return float("nan") if mean is None else mean, float("nan") if std is None else std


@styled
def accuracy_bars(settings: Sequence[Setting], names: Sequence[str], split: str) -> Figure:
    """Draw accuracies as bars with the standard deviation over seeds, and beside them enlarged, with a dot per run."""
    shown = settings[:MOST_ROWS]
    rows = np.arange(len(shown))
    figure = Figure(figsize=(10, 1.7 + 0.27 * len(shown)), layout="constrained")
    bars, closer = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1, 1.25]})
    means, stds = zip(*(or_nan(setting.accuracies(split)) for setting in shown), strict=True)
    bars.barh(rows, np.nan_to_num(means), xerr=stds, color="#9CC3DF", height=0.72, ecolor="#333333", capsize=2)
    for row, setting in enumerate(shown):  # in a column of their own, where no bar or error bar can cross them
        text = spread(setting.accuracies(split))
        bars.text(1.02, row, text, transform=bars.get_yaxis_transform(), va="center", fontsize=8)
    bars.set_yticks(rows, names[: len(shown)])
    bars.set(xlim=(0, 100), xlabel=f"{WORDS[split]} accuracy (%)", ylim=(len(shown) - 0.4, -0.6))
    bars.set_title("Mean ± standard deviation over seeds" if np.isfinite(stds).any() else "One run each")
    bars.grid(True, axis="x")
    for other, marker, offset in (("val", "s", -0.14), ("test", "o", 0.14)):
        _dots(closer, shown, other, marker, offset)
    closer.set(xlabel="accuracy (%)")
    closer.set_title("Enlarged; each run is a dot" if any(len(s.runs) > 1 for s in shown) else "Enlarged")
    closer.grid(True)
    figure.legend(*closer.get_legend_handles_labels(), loc="outside lower right", ncols=2, borderpad=0)
    for axes in (bars, closer):
        axes.tick_params(axis="y", length=0)
    if len(settings) > len(shown):
        figure.supxlabel(f"The first {len(shown)} of {len(settings)}.", fontsize=8)
    return figure


def _dots(axes: Axes, shown: Sequence[Setting], split: str, marker: str, offset: float) -> None:
    filled = [(row + offset, s.accuracies(split)) for row, s in enumerate(shown) if s.accuracies(split)]
    if not filled:
        return
    means, stds = zip(*(or_nan(values) for _, values in filled), strict=True)
    rows = [row for row, _ in filled]
    axes.errorbar(means, rows, xerr=stds, fmt=marker, color=COLORS[split], capsize=2, label=WORDS[split])
    for row, values in filled:
        if len(values) > 1:
            axes.plot(values, [row] * len(values), ".", color=COLORS[split], alpha=0.45, markersize=5, zorder=1)


@styled
def curves_with_bands(settings: Sequence[Setting], names: Sequence[str]) -> Figure:
    """Draw training loss and validation accuracy per epoch: the mean over seeds, with a band of ± standard deviation.

    The first eight are coloured; the rest are grey in the background.
    """
    has_validation = any(r.get("val/acc") is not None for s in settings for run in s.runs for r in run.history)
    split = "val" if has_validation else "train"
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for axes, key, factor in ((losses, "train/loss", 1), (accuracies, f"{split}/acc", 100)):
        for i, setting in reversed(list(enumerate(settings))):
            _band(axes, setting, key, factor, PALETTE[i] if i < MOST_CURVES else None, names[i])
        axes.set(xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.grid(True)
    losses.set_title("Training loss")
    accuracies.set_title(f"{WORDS[split].capitalize()} accuracy (%)")
    handles = {line.get_label(): line for line in accuracies.get_lines() or losses.get_lines()}
    labels = [name for name in names[:MOST_CURVES] if name in handles]
    longest = max(map(len, labels), default=0)
    notes = ["band: ± standard deviation over seeds"] * any(len(s.runs) > 1 for s in settings)
    notes += [f"grey: {len(settings) - MOST_CURVES} more"] * (len(settings) > MOST_CURVES)
    figure.legend(
        [handles[name] for name in labels],
        labels,
        loc="outside lower center",
        ncols=max(1, min(4, 130 // (longest + 8))),
        title="; ".join(notes),
        title_fontsize=8,
    )
    return figure


def _band(axes: Axes, setting: Setting, key: str, factor: float, color: str | None, name: str) -> None:
    values: dict[int, list[float]] = {}
    for row in (row for run in setting.runs for row in run.history):
        if row.get(key) is not None:
            values.setdefault(row["epoch"], []).append(factor * row[key])
    if not values:
        return
    epochs = sorted(values)
    means, stds = np.array([or_nan(values[epoch]) for epoch in epochs]).T
    style: dict[str, Any] = {"marker": "o"} if len(epochs) == 1 else {}
    if color is None:
        axes.plot(epochs, means, color="#cccccc", linewidth=1, zorder=1, label="_", **style)
        return
    axes.plot(epochs, means, color=color, label=name, **style)
    if np.isfinite(stds).any():
        axes.fill_between(epochs, means - stds, means + stds, color=color, alpha=0.18, linewidth=0)


@styled
def heat_map(settings: Sequence[Setting], keys: Sequence[str], split: str) -> Figure:
    """Draw the mean accuracy for each combination of two keys' values; combinations without a run stay white."""
    values = {key: sorted({s.differing[key] for s in settings}, key=natural) for key in keys}
    down, across = sorted(keys, key=lambda key: len(values[key]), reverse=True)
    rows, columns = values[down], values[across]
    means = np.full((len(rows), len(columns)), np.nan)
    figure = Figure(figsize=(2.6 + min(16, len(columns)), 1.5 + 0.52 * len(rows)), layout="constrained")
    axes = figure.subplots()
    texts = {}
    for setting in settings:
        place = rows.index(setting.differing[down]), columns.index(setting.differing[across])
        means[place] = or_nan(setting.accuracies(split))[0]
        texts[place] = spread(setting.accuracies(split), separator="\n")
    picture = axes.imshow(means, cmap="Blues", aspect="auto")
    low, high = np.nanmin(means), np.nanmax(means)
    for (row, column), text in texts.items():
        dark = high > low and (means[row, column] - low) / (high - low) > 0.6
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=30 if max(map(len, columns)) > 9 else 0)
    axes.set(xlabel=across, ylabel=down)
    axes.set_title(f"Mean {WORDS[split]} accuracy (%)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, pad=0.02).outline.set_visible(False)
    return figure


@styled
def accuracy_and_time(settings: Sequence[Setting], names: Sequence[str], split: str) -> Figure:
    """Draw accuracy against training time as numbered dots; a line joins the Pareto front."""
    points = {
        i: (or_nan(setting.values("train_seconds"))[0], or_nan(setting.accuracies(split))[0])
        for i, setting in enumerate(settings)
        if setting.values("train_seconds") and setting.accuracies(split)
    }
    listed = [i for i in points if i < MOST_NUMBERED]
    figure = Figure(figsize=(9, max(4.2, 1.2 + 0.2 * len(listed))), layout="constrained")
    axes = figure.subplots()
    best = front(points)
    axes.plot(*zip(*(points[i] for i in best), strict=True), "-", color="#bbbbbb", linewidth=1.2, zorder=1)
    for i, (seconds, value) in reversed(points.items()):
        color = COLORS["train"] if i in best else "#8a8a8a"
        label = f"{i + 1}  {names[i]}" if i in listed else None
        axes.plot(seconds, value, "o", markersize=12 if i in listed else 5, color=color, label=label, mec="white")
        if i in listed:
            axes.annotate(str(i + 1), (seconds, value), color="white", fontsize=7, ha="center", va="center")
    times = [seconds for seconds, _ in points.values()]
    if max(times) > 8 * min(times):
        use_log_scale(axes)
    axes.margins(0.08)
    axes.set(xlabel="training time (s, mean of a run)", ylabel=f"{WORDS[split]} accuracy (%)")
    axes.set_title("Accuracy and time; blue: no other setting is both faster and better")
    axes.grid(True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=8, handlelength=0, markerscale=0)
    return figure


def front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """The indices of the points (time, accuracy) on the Pareto front, fastest first."""
    kept: list[int] = []
    for i in sorted(points, key=lambda i: (points[i][0], -points[i][1])):
        if not kept or points[i][1] > points[kept[-1]][1]:
            kept.append(i)
    return kept
