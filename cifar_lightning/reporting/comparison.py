"""The settings of a sweep side by side: their numbers as rows for a CSV file, ready for figures."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cifar_lightning.reporting.files import read_csv
from cifar_lightning.reporting.summary import Run, Summary


@dataclass(frozen=True)
class Entry:
    """One setting with its runs, one for each seed. Accuracies are in per cent.

    settings: what differs among the entries, as key -> value; histories: the rows of each run's history.csv.
    """

    name: str
    settings: Mapping[str, str]
    runs: Sequence[Mapping[str, Any]]
    histories: Sequence[Sequence[Mapping[str, Any]]]

    @property
    def val(self) -> list[float]:
        return [100 * value for value in self.values("val/acc")]

    @property
    def test(self) -> list[float]:
        return [100 * value for value in self.values("test/acc")]

    @property
    def seconds(self) -> list[float]:
        return [value for value in self.values("train_seconds") if value]  # none for a run that only tested

    def values(self, key: str) -> list[float]:
        return [run[key] for run in self.runs if run.get(key) is not None]


def entries(summary: Summary) -> list[Entry]:
    """An entry for each row of the summary, in its order."""
    told = [_settings(runs[0]) for runs in summary.groups]
    keys = list(dict.fromkeys(key for settings in told for key in settings))
    varying = [key for key in keys if len({settings.get(key) for settings in told}) > 1]
    # Two checkpoints of one training, or two precisions, have the same settings.
    names = [
        name if summary.names.count(name) == 1 else f"{name}, {runs[0].checkpoint}, {runs[0].metrics.get('precision')}"
        for name, runs in zip(summary.names, summary.groups, strict=True)
    ]
    return [
        Entry(
            name,
            {key: settings.get(key) or runs[0].default(key) or "default" for key in varying},
            [run.metrics for run in runs],
            [_history(run) for run in runs],
        )
        for name, runs, settings in zip(names, summary.groups, told, strict=True)
    ]


def _settings(run: Run) -> dict[str, str]:
    experiment = run.metrics.get("experiment")
    return ({"experiment": str(experiment)} if experiment else {}) | run.settings


def _history(run: Run) -> list[dict[str, Any]]:
    path = run.path.with_name("history.csv")
    return read_csv(path) if path.exists() else []


def csv_rows(compared: Sequence[Entry]) -> list[dict[str, Any]]:
    """One row an entry: what differs, the number of runs, their seeds, and mean and sample deviation of the figures.

    Accuracies are fractions here, as in metrics.json.
    """
    rows = []
    for entry in compared:
        row: dict[str, Any] = {**(entry.settings or {"run": entry.name}), "n": len(entry.runs)}
        row["seeds"] = " ".join(str(run.get("seed")) for run in entry.runs)
        row |= {key: "/".join(sorted({str(run.get(key)) for run in entry.runs})) for key in ("model", "checkpoint")}
        for key in ("val/acc", "test/acc", "train_seconds"):
            values = entry.seconds if key == "train_seconds" else entry.values(key)
            row[key] = statistics.fmean(values) if values else None
            row[f"{key} deviation"] = statistics.stdev(values) if len(values) > 1 else None
        for key in ("images_per_second", "parameters"):
            values = entry.values(key)
            row[key] = statistics.fmean(values) if values else None
        rows.append(row)
    return rows
