"""Fold the metrics.json of many runs into one row per setting: mean ± standard deviation over seeds.

Torch is not imported: reading a hundred runs takes less time than importing it.
"""

import difflib
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cifar_lightning.errors import UserError
from cifar_lightning.natural_order import natural
from cifar_lightning.reporting.ledger import looks
from cifar_lightning.reporting.run_files import Run, comparable, typed
from cifar_lightning.reporting.tables import (
    NOTHING,
    Row,
    markdown_table,
    mean_and_std,
    number,
    operations,
    spread,
    without_empty_columns,
)


@dataclass(frozen=True)
class Setting:
    """One row of a summary: its name, its runs (one per seed), and the values in which it differs from other rows."""

    name: str
    runs: Sequence[Run]
    differing: Mapping[str, str]

    def values(self, key: str) -> list[float]:
        """The metric of each run that has it. The training time of runs that only tested (0 s) does not count."""
        timed = key in ("train_seconds", "images_per_second")
        values = [run.metrics.get(key) for run in self.runs]
        return [value for value in values if value is not None and (value or not timed)]

    def accuracies(self, split: str) -> list[float]:
        """Accuracies in per cent."""
        return [100 * value for value in self.values(f"{split}/acc")]


@dataclass(frozen=True)
class Summary:
    """The rows of a table, the notes below it, and the setting of each row.

    marks: none, or for each row how it stands beside the best one (evaluation/marks.py).
    """

    rows: list[Row]
    notes: list[str]
    settings: list[Setting]
    marks: Sequence[str] = ()

    @property
    def ranked(self) -> bool:
        """Whether rows are sorted by validation accuracy; they are never sorted by test accuracy."""
        return _ranked(self.settings)

    def markdown(self) -> str:
        return markdown_table(self.rows) + "".join(f"\n{note}\n" for note in self.notes)

    def csv_rows(self) -> list[dict[str, Any]]:
        """The table as numbers; accuracies are fractions, as in metrics.json."""
        rows = []
        for i, setting in enumerate(self.settings):
            runs = setting.runs
            row: dict[str, Any] = {**(setting.differing or {"run": setting.name}), "n": len(runs)}
            row["seeds"] = " ".join(str(run.metrics.get("seed")) for run in runs)
            row |= {
                key: "/".join(sorted({str(run.metrics.get(key)) for run in runs})) for key in ("model", "checkpoint")
            }
            for key in ("val/acc", "test/acc", "train_seconds"):
                row[key], row[f"{key} std"] = mean_and_std(setting.values(key))
            for key in ("images_per_second", "operations", "parameters"):
                row[key] = mean_and_std(setting.values(key))[0]
            row |= {"vs. best": self.marks[i]} if self.marks else {}
            rows.append(row)
        return rows


def summarize(runs: Sequence[Run], by: Sequence[str] = ()) -> Summary:
    """Fold the runs into a row for each setting, or for each combination of the values of the keys `by`.

    The rows are sorted by validation accuracy where every run has one, else by name.
    """
    if not runs:
        raise UserError("there are no runs to summarise.")
    whole = [run for run in runs if not run.metrics.get("partial")] or list(runs)
    kept = newest_of_each_seed(whole)
    groups = grouped(kept, by)
    keys = ordered(key for run in kept for key in run.settings)
    common = _in_all(kept) if len(groups) > 1 and not by else {}
    told = [key for key in keys if key not in common]
    environments = list(dict.fromkeys(_environment(run) for run in kept))
    differing = [key for key in ("data", "checkpoint", "precision") if len({run.value(key) for run in kept}) > 1]
    settings, rows = [], []
    for members in groups:
        said = {key: members[0].value(key) for key in by} or _said(members[0], told)
        setting = Setting(_name(said, members[0], by), members, said)
        row = dict(said) if by else {"run": setting.name}
        row |= {key: " / ".join(sorted({run.value(key) for run in members})) for key in differing}
        row |= _figures(setting)
        if len(environments) > 1:
            indices = sorted({environments.index(_environment(run)) for run in members})
            row["made on"] = ", ".join(map(_letter, indices))
        settings.append(setting)
        rows.append(row)
    rank = _ranking(settings, rows)
    order = sorted(range(len(rows)), key=lambda i: (str(groups[i][0].metrics.get("data")), rank(i)))
    notes = _notes(kept, len(whole), common, environments)
    notes += looks((run.path, run.metrics) for run in kept)
    if len(whole) < len(runs):
        notes.append(f"Left out: {len(runs) - len(whole)} trial runs on part of the data (debug, limit_*_batches).")
    return Summary(
        without_empty_columns([rows[i] for i in order]),
        notes,
        _told_apart([settings[i] for i in order]),
    )


def ordered(keys: Iterable[str]) -> list[str]:
    """Each key once, in the order in which they are typed: groups, keys in them, the seed."""
    return sorted(dict.fromkeys(keys), key=lambda key: (key == "seed", "." in key))


def newest_of_each_seed(runs: Iterable[Run]) -> list[Run]:
    """Drop earlier repetitions of a setting with the same seed (and fold), which are not independent samples.

    A training counts more than a later test of its checkpoint, which took no training time.
    """
    newest: dict[Hashable, Run] = {}
    order = sorted(runs, key=lambda run: (bool(run.metrics.get("train_seconds")), str(run.metrics.get("date"))))
    for run in order:
        seed = run.metrics.get("seed")
        newest[run.key, run.path if seed is None else seed, run.overrides.get("data.fold")] = run
    return sorted(newest.values(), key=lambda run: run.path)


def grouped(runs: Sequence[Run], by: Sequence[str] = ()) -> list[list[Run]]:
    """Group runs of the same setting, or, if `by` is given, runs with the same values of these keys.

    Two checkpoints of one training are never samples of the same thing.
    """
    for key in by:
        _check_known(key, runs)
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        values = tuple(comparable(run.value(key)) for key in by)
        data = (
            run.metrics.get("data"),
            run.metrics.get("data_checksum"),
        )  # accuracies on different data are never averaged
        groups.setdefault((run.checkpoint, data, values) if by else run.key, []).append(run)
    return list(groups.values())


def _check_known(key: str, runs: Sequence[Run]) -> None:
    fields = {name for run in runs for name, value in run.metrics.items() if isinstance(value, str | int | float)}
    known = sorted(fields | {name for run in runs for name in run.overrides})
    if key not in known and all(run.default(key) is None for run in runs):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
        raise UserError(f"by={key}: no run has or overrides {key}. {hint}")


def _in_all(runs: Sequence[Run]) -> dict[str, str]:
    first = runs[0].settings
    rest = [{name: comparable(value) for name, value in run.settings.items()} for run in runs]
    return {name: first[name] for name in first if all(one.get(name) == comparable(first[name]) for one in rest)}


def _said(run: Run, keys: Sequence[str]) -> dict[str, str]:
    """The values that name a row: the experiment, and the run's value of each key."""
    said = {"experiment": run.metrics.get("experiment"), **{key: run.setting(key) for key in keys}}
    return {key: value for key, value in said.items() if value is not None}


def _name(said: Mapping[str, str], run: Run, by: Sequence[str]) -> str:
    parts = [value if by or key == "experiment" else typed(key, value) for key, value in said.items()]
    return ", ".join(parts) or f"{run.metrics.get('model') or 'model'}, defaults"


def _told_apart(settings: Sequence[Setting]) -> list[Setting]:
    """The settings with unique names, and only with the values in which they differ."""
    keys = dict.fromkeys(key for setting in settings for key in setting.differing)
    varying = [key for key in keys if len({setting.differing.get(key) for setting in settings}) > 1]
    names = [setting.name for setting in settings]
    # Two checkpoints of one training, or two precisions, have the same settings.
    return [
        Setting(
            name if names.count(name) == 1 else f"{name}, {s.runs[0].checkpoint}, {s.runs[0].metrics.get('precision')}",
            s.runs,
            {key: s.differing.get(key) or "default" for key in varying},
        )
        for name, s in zip(names, settings, strict=True)
    ]


def _figures(setting: Setting) -> Row:
    def different(key: str, digits: int = 0) -> str:
        return " / ".join(number(value, digits) for value in sorted(set(setting.values(key)))) or NOTHING

    test, val = setting.accuracies("test"), setting.accuracies("val")
    seconds, spent = (mean_and_std(setting.values(key))[0] for key in ("train_seconds", "operations"))
    return {
        "parameters": different("parameters"),
        "published": different("published_test_acc", 2),
        "test accuracy": f"{spread(test)} ({len(test)})" if test else NOTHING,
        "validation": spread(val) + (f" ({len(val)})" if val and len(val) != len(test) else ""),
        "seconds": number(seconds, 1 if seconds is not None and seconds < 10 else 0),
        "operations": operations(spent),
        "images/s": number(mean_and_std(setting.values("images_per_second"))[0]),
    }


def _ranked(settings: Sequence[Setting]) -> bool:
    return all(run.metrics.get("val/acc") is not None for setting in settings for run in setting.runs)


def _ranking(settings: Sequence[Setting], rows: Sequence[Row]) -> Callable[[int], Any]:
    if _ranked(settings):
        return lambda i: -statistics.fmean(settings[i].values("val/acc"))
    return lambda i: [natural(text) for text in rows[i].values()]


def _environment(run: Run) -> str:
    get = run.metrics.get
    where = [str(get(key)) for key in ("hardware", "accelerator") if get(key)]
    versions = [f"{name} {version}" for name, version in (get("versions") or {}).items()]
    data = [f"data {get('data')}, checksum {get('data_checksum')}"] if get("data") else []
    return "; ".join(", ".join(part) for part in (where, versions, data) if part) or "unknown hardware"


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else str(index + 1)


def _notes(kept: Sequence[Run], total: int, common: Mapping[str, str], environments: Sequence[str]) -> list[str]:
    notes = []
    if common:
        notes.append(f"In all runs: {', '.join(map(typed, common, common.values()))}.")
    notes.append("Accuracies in %: mean ± standard deviation over the runs of a row (number of runs).")
    if len(kept) < total:
        notes.append(f"Of repeated runs with the same seed only the newest counts; {total - len(kept)} left out.")
    precisions = {run.metrics.get("precision") for run in kept}
    if len(precisions) == 1 and None not in precisions:
        notes.append(f"Precision: {precisions.pop()}.")
    if len(environments) == 1:
        notes.append(f"Made on: {environments[0]}.")
    else:
        notes += [f"Made on {_letter(i)}: {environment}." for i, environment in enumerate(environments)]
    dates = sorted({str(run.metrics["date"])[:10] for run in kept if run.metrics.get("date")})
    if dates:
        notes.append(f"Date: {dates[0]}." if len(dates) == 1 else f"Dates: {dates[0]} to {dates[-1]}.")
    return notes
