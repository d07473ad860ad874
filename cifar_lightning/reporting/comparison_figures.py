"""Figures of many settings side by side: accuracies with their deviation over seeds, curves, a heat map, the cost."""

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_lightning.reporting.comparison import Entry
from cifar_lightning.reporting.figures import COLORS, styled, use_log_scale

MOST_ROWS, MOST_CURVES, MOST_NUMBERED = 40, 8, 16
LONGEST = 44  # characters of a name
# Okabe and Ito's eight, the darkest yellow they allow.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#B8A800")
WORDS = {"val": "validation", "test": "test", "train": "training"}


def comparison_figures(compared: Sequence[Entry]) -> dict[str, Figure]:
    """The figures that these entries, best first, have the numbers for, by name."""
    names = short_names(compared)
    drawn = {"accuracy": accuracy(compared, names)}
    if any(history for entry in compared for history in entry.histories):
        drawn["learning_curves"] = learning_curves(compared, names)
    if len(compared) > 1 and any(entry.seconds and figures_of(entry, ranked_by(compared)) for entry in compared):
        drawn["accuracy_and_time"] = accuracy_and_time(compared, names)
    keys = list(compared[0].settings)
    if len(keys) == 2 and all(len({entry.settings[key] for entry in compared}) > 1 for key in keys):
        drawn["heat_map"] = heat_map(compared, keys)
    return drawn


def short_names(compared: Sequence[Entry]) -> list[str]:
    """What tells the entries apart, each name once: values alone where one setting varies; long names are cut."""
    values = [" ".join(entry.settings.values()) for entry in compared]
    alone = len(compared[0].settings) == 1 and len(set(values)) == len(values)
    names = values if alone else [entry.name for entry in compared]
    half = (LONGEST - 1) // 2
    cut = [name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}" for name in names]
    return [name if cut.count(name) == 1 else f"{i + 1}: {name}" for i, name in enumerate(cut)]


def ranked_by(compared: Sequence[Entry]) -> str:
    """Validation accuracy where every entry has one: test figures choose nothing."""
    return "val" if all(entry.val for entry in compared) else "test" if all(e.test for e in compared) else "val"


def figures_of(entry: Entry, part: str) -> list[float]:
    return entry.val if part == "val" else entry.test


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample deviation; NaN where there are too few values."""
    mean = statistics.fmean(values) if values else float("nan")
    return mean, statistics.stdev(values) if len(values) > 1 else float("nan")


@styled
def accuracy(compared: Sequence[Entry], names: Sequence[str]) -> Figure:
    """Draw bars from zero with their deviation over seeds, and beside them the same closer, with every run as a dot."""
    part, shown = ranked_by(compared), compared[:MOST_ROWS]
    rows = np.arange(len(shown))
    figure = Figure(figsize=(10, 1.5 + 0.27 * len(shown)), layout="constrained")
    bars, closer = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1, 1.25]})
    means, deviations = zip(*(spread(figures_of(entry, part)) for entry in shown), strict=True)
    bars.barh(rows, np.nan_to_num(means), xerr=deviations, color="#9CC3DF", height=0.72, ecolor="#333333", capsize=2)
    for row, entry in enumerate(shown):
        values = figures_of(entry, part)
        mean, deviation = spread(values)
        text = f"{mean:.2f}" + (f" ± {deviation:.2f}" if len(values) > 1 else "")
        end = np.nan_to_num(mean + np.nan_to_num(deviation))
        inside = mean - np.nan_to_num(deviation) > 30  # else the number would lie on the deviation's mark
        bars.text(1.5 if inside else end + 1.5, row, text if values else "-", va="center", fontsize=8)
    bars.set_yticks(rows, names[: len(shown)])
    bars.set(xlim=(0, 100), xlabel=f"{WORDS[part]} accuracy (%)", ylim=(len(shown) - 0.4, -0.6))
    bars.set_title("Mean ± deviation over seeds" if np.isfinite(deviations).any() else "One run each")
    bars.tick_params(axis="y", length=0)
    bars.grid(True, axis="x")
    for other, marker, offset in (("val", "s", -0.14), ("test", "o", 0.14)):
        _dots(closer, shown, other, marker, offset)
    closer.set(xlabel="accuracy (%)")
    closer.set_title("Closer; each run is a dot" if any(len(e.runs) > 1 for e in shown) else "Closer")
    closer.tick_params(axis="y", length=0)
    closer.grid(True)
    closer.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0, handletextpad=0.3)
    if len(compared) > len(shown):
        figure.supxlabel(f"The first {len(shown)} of {len(compared)}.", fontsize=8)
    return figure


def _dots(axes: Axes, shown: Sequence[Entry], part: str, marker: str, offset: float) -> None:
    filled = [(row + offset, figures_of(entry, part)) for row, entry in enumerate(shown) if figures_of(entry, part)]
    if not filled:
        return
    rows, values = [row for row, _ in filled], [spread(values) for _, values in filled]
    means, deviations = zip(*values, strict=True)
    axes.errorbar(means, rows, xerr=deviations, fmt=marker, color=COLORS[part], capsize=2, label=WORDS[part])
    for row, runs in filled:
        if len(runs) > 1:
            axes.plot(runs, [row] * len(runs), ".", color=COLORS[part], alpha=0.45, markersize=5, zorder=1)


@styled
def learning_curves(compared: Sequence[Entry], names: Sequence[str]) -> Figure:
    """Draw the training loss and the validation accuracy of each epoch: mean over seeds, and a band of ± deviation.

    The first eight have a colour; the rest is grey behind them.
    """
    has_validation = any(row.get("val/acc") is not None for e in compared for h in e.histories for row in h)
    part = "val" if has_validation else "train"
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for axes, key, factor in ((losses, "train/loss", 1), (accuracies, f"{part}/acc", 100)):
        for i, entry in reversed(list(enumerate(compared))):
            _band(axes, entry, key, factor, PALETTE[i] if i < MOST_CURVES else None, names[i])
        axes.set(xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.grid(True)
    losses.set_title("Training loss")
    accuracies.set_title(f"{WORDS[part].capitalize()} accuracy (%)")
    handles = {line.get_label(): line for line in accuracies.get_lines() or losses.get_lines()}
    labels = [name for name in names[:MOST_CURVES] if name in handles]
    longest = max(map(len, labels), default=0)
    notes = ["band: ± deviation over seeds"] * any(len(e.histories) > 1 for e in compared)
    notes += [f"grey: {len(compared) - MOST_CURVES} more"] * (len(compared) > MOST_CURVES)
    figure.legend(
        [handles[name] for name in labels],
        labels,
        loc="outside lower center",
        ncols=max(1, min(4, 130 // (longest + 8))),
        title="; ".join(notes),
        title_fontsize=8,
    )
    return figure


def _band(axes: Axes, entry: Entry, key: str, factor: float, color: str | None, name: str) -> None:
    columns: dict[int, list[float]] = {}
    for row in (row for history in entry.histories for row in history):
        if row.get(key) is not None:
            columns.setdefault(row["epoch"], []).append(factor * row[key])
    if not columns:
        return
    epochs = sorted(columns)
    means, deviations = (np.array(values) for values in zip(*(spread(columns[e]) for e in epochs), strict=True))
    style: dict[str, Any] = {"marker": "o"} if len(epochs) == 1 else {}
    if color is None:
        axes.plot(epochs, means, color="#cccccc", linewidth=1, zorder=1, label="_", **style)
        return
    axes.plot(epochs, means, color=color, label=name, **style)
    if np.isfinite(deviations).any():
        axes.fill_between(epochs, means - deviations, means + deviations, color=color, alpha=0.18, linewidth=0)


@styled
def heat_map(compared: Sequence[Entry], keys: Sequence[str]) -> Figure:
    """Draw the mean accuracy for each pair of the two settings' values; a pair that was not run stays white."""
    part = ranked_by(compared)
    down, across = sorted(keys, key=lambda key: len({e.settings[key] for e in compared}), reverse=True)
    rows, columns = (sorted({e.settings[key] for e in compared}, key=_natural) for key in (down, across))
    means = np.full((len(rows), len(columns)), np.nan)
    figure = Figure(figsize=(2.6 + min(16, len(columns)), 1.5 + 0.52 * len(rows)), layout="constrained")
    axes = figure.subplots()
    texts: dict[tuple[int, int], str] = {}
    for entry in compared:
        place = rows.index(entry.settings[down]), columns.index(entry.settings[across])
        mean, deviation = spread(figures_of(entry, part))
        means[place] = mean
        texts[place] = f"{mean:.2f}" + (f"\n± {deviation:.2f}" if len(figures_of(entry, part)) > 1 else "")
    picture = axes.imshow(means, cmap="Blues", aspect="auto")
    low, high = np.nanmin(means), np.nanmax(means)
    for place, text in texts.items():
        dark = high > low and (means[place] - low) / (high - low) > 0.6
        axes.text(place[1], place[0], text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=30 if max(map(len, columns)) > 9 else 0)
    axes.set(xlabel=across, ylabel=down)
    axes.set_title(f"Mean {WORDS[part]} accuracy (%)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, pad=0.02).outline.set_visible(False)
    return figure


def _natural(text: str) -> tuple[Any, ...]:
    """Numbers by size, before words."""
    try:
        return 0, float(text)
    except ValueError:
        return 1, [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))]


@styled
def accuracy_and_time(compared: Sequence[Entry], names: Sequence[str]) -> Figure:
    """Draw accuracy against training time, a numbered dot each; the line joins those that none beats in both."""
    part = ranked_by(compared)
    points = {
        i: (statistics.fmean(entry.seconds), spread(figures_of(entry, part))[0])
        for i, entry in enumerate(compared)
        if entry.seconds and figures_of(entry, part)
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
    axes.set(xlabel="training time (s, mean of a run)", ylabel=f"{WORDS[part]} accuracy (%)")
    axes.set_title("Accuracy and time; blue: nothing is both faster and better")
    axes.grid(True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=8, handlelength=0, markerscale=0)
    return figure


def front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Those that no other beats in time and accuracy at once, fastest first."""
    kept: list[int] = []
    for i in sorted(points, key=lambda i: (points[i][0], -points[i][1])):
        if not kept or points[i][1] > points[kept[-1]][1]:
            kept.append(i)
    return kept
