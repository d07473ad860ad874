"""From the metrics.json of many runs to one row for each setting, seeds folded into mean ± deviation.

Torch is not imported: reading a hundred runs takes less time than importing it.
"""

import difflib
import os
import re
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cifar_lightning.config.keys import decides
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_json, read_yaml
from cifar_lightning.reporting.tables import NOTHING, Row, markdown_table, number

# Overrides that change where, how fast or how visibly a run takes place, but not what is trained.
# trainer=ddp is not among them: it has another batch size. Precision is compared as it was in the end, not as typed.


MOST = 1e15  # more than any count of parameters or seconds


@dataclass(frozen=True)
class Run:
    """One metrics.json: where it lies and what it says."""

    path: Path
    metrics: Mapping[str, Any]

    @cached_property
    def overrides(self) -> dict[str, str]:
        """What was overridden, as name -> value."""
        parts = (override.lstrip("+").partition("=") for override in self.metrics["overrides"])
        return {name: value for name, _, value in parts}

    @cached_property
    def settings(self) -> dict[str, str]:
        """The overrides that change what is trained."""
        return {name: value for name, value in self.overrides.items() if not decides(_typed(name, value)).folds}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The run's config.yaml; empty where it lies no longer beside the metrics."""
        try:
            config = read_yaml(Path(self.path).with_name("config.yaml"))
        except (OSError, ValueError, UserError):
            return {}
        return config if isinstance(config, dict) else {}

    def default(self, key: str) -> str | None:
        """What the run has for a key that it did not set, if that is a choice or a single value."""
        choices, value = self.config.get("choices"), self.config
        if isinstance(choices, dict) and key in choices:
            return str(choices[key])
        for name in key.split("."):
            value = value.get(name, {}) if isinstance(value, dict) else {}
        return None if isinstance(value, dict | list) or value is None else str(value)

    @cached_property
    def checkpoint(self) -> str:
        """Which checkpoint was tested: "best", "last", or the name of another file."""
        return Path(str(self.metrics.get("checkpoint") or NOTHING)).stem

    @cached_property
    def key(self) -> Hashable:
        """Equal for runs that differ in nothing but the seed."""
        fields = ("experiment", "model", "parameters", "precision", "data", "data_checksum")
        settings = {name: _comparable(value) for name, value in self.settings.items()}
        return *map(self.metrics.get, fields), self.checkpoint, frozenset(settings.items())


@dataclass(frozen=True)
class Summary:
    """Rows for a table, the lines beneath it, and the runs and the name of each row."""

    rows: list[Row]
    notes: list[str]
    groups: list[list[Run]]
    names: list[str]

    def markdown(self) -> str:
        return markdown_table(self.rows) + "".join(f"\n{note}\n" for note in self.notes)


def load_runs(folders: Iterable[str | os.PathLike[str]]) -> tuple[list[Run], list[str]]:
    """Read every metrics.json in and below the folders; say what is wrong with those that are none of ours."""
    found: dict[Path, Path] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder. Give folders that hold runs, such as logs.")
        for path in sorted(folder.rglob("metrics.json")):
            found.setdefault(path.resolve(), path)
    runs, problems = [], []
    for path in found.values():
        try:
            runs.append(_load(path))
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
        except UserError as error:
            problems.append(f"{path}: {str(error).removeprefix(str(path)).strip()}")
    return runs, problems


def _load(path: Path) -> Run:
    metrics = read_json(path)
    overrides = metrics.get("overrides") if isinstance(metrics, dict) else None
    strings = isinstance(overrides, list) and all(isinstance(override, str) for override in overrides)
    if not strings or not {"test/acc", "val/acc"} & set(metrics):
        raise ValueError("not the result of a run (overrides, or both test/acc and val/acc are missing)")
    for key in ("test/acc", "val/acc", "parameters", "published_test_acc", "train_seconds", "images_per_second"):
        value = metrics.get(key)
        if not isinstance(value, int | float | None) or (key.endswith("/acc") and value and not 0 <= value <= 1):
            raise ValueError(f"{key} = {value!r} is not {'a fraction' if key.endswith('/acc') else 'a number'}")
        if value is not None and not abs(value) < MOST:
            raise ValueError(f"{key} is not a number that a run can have")
    for key in ("experiment", "model", "precision", "data", "data_checksum", "hardware", "accelerator", "date"):
        if not isinstance(metrics.get(key), str | None):
            raise ValueError(f"{key} = {str(metrics[key])[:40]!r} is not a text")
    if not isinstance(metrics.get("seed"), int | None) or not isinstance(metrics.get("versions"), dict | None):
        raise ValueError("seed or versions are not those of a run")
    return Run(path, metrics)


def summarize(runs: Sequence[Run], by: Sequence[str] = ()) -> Summary:
    """Fold the runs into a row for each setting, or for each combination of the values of the keys `by`.

    The rows are sorted by validation accuracy where every run has one, else by name: test figures rank nothing.
    """
    if not runs:
        raise UserError("there are no runs to summarise.")
    whole = [run for run in runs if not run.metrics.get("partial")] or list(runs)
    kept = newest_of_each_seed(whole)
    groups = group(kept, by)
    common = {} if by or len(groups) == 1 else _in_all(kept)
    told = [] if by else list(dict.fromkeys(key for run in kept for key in run.settings if key not in common))
    environments = list(dict.fromkeys(_environment(run) for run in kept))
    differing = [key for key in ("data", "checkpoint", "precision") if len({_value(run, key) for run in kept}) > 1]
    rows = []
    for members in groups:
        row = {key: _value(members[0], key) for key in by} or {"run": _name(members[0], common, told)}
        row |= {key: " / ".join(sorted({_value(run, key) for run in members})) for key in differing}
        row |= _figures(members)
        if len(environments) > 1:
            indices = sorted({environments.index(_environment(run)) for run in members})
            row["made on"] = ", ".join(_letter(i) for i in indices)
        rows.append(row)
    rank = _ranking(groups, rows)
    order = sorted(range(len(rows)), key=lambda i: (str(groups[i][0].metrics.get("data")), rank(i)))
    empty = {column for column in rows[0] if all(row[column] == NOTHING for row in rows)}
    rows = [{column: text for column, text in rows[i].items() if column not in empty} for i in order]
    names = [", ".join(_value(g[0], key) for key in by) if by else _name(g[0], common, told) for g in groups]
    notes = _notes(kept, len(whole), common, environments)
    if len(whole) < len(runs):
        notes.append(f"Left out: {len(runs) - len(whole)} trial runs over a part of the data (debug, limit_*_batches).")
    return Summary(rows, notes, [groups[i] for i in order], [names[i] for i in order])


def newest_of_each_seed(runs: Iterable[Run]) -> list[Run]:
    """Leave out earlier repetitions of a setting with the same seed: they are no independent samples.

    A training counts more than a later test of its checkpoint, which took no training time.
    """
    newest: dict[Hashable, Run] = {}
    order = sorted(runs, key=lambda run: (bool(run.metrics.get("train_seconds")), str(run.metrics.get("date"))))
    for run in order:
        seed = run.metrics.get("seed")
        newest[run.key, run.path if seed is None else seed] = run
    return sorted(newest.values(), key=lambda run: run.path)


def group(runs: Iterable[Run], by: Sequence[str] = ()) -> list[list[Run]]:
    """Put together runs of the same setting, or, if `by` is given, runs that agree in these keys.

    Two checkpoints of one training are never samples of the same thing.
    """
    runs = list(runs)
    for key in by:
        _check_known(key, runs)
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        values = tuple(_comparable(_value(run, key)) for key in by)
        data = run.metrics.get("data"), run.metrics.get("data_checksum")  # accuracies on two are never averaged
        groups.setdefault((run.checkpoint, data, values) if by else run.key, []).append(run)
    return list(groups.values())


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write mean ± sample deviation (n - 1 in the denominator); one value has no deviation."""
    if not values:
        return NOTHING
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _figures(runs: Sequence[Run]) -> Row:
    def values(key: str) -> list[float]:
        return [run.metrics[key] for run in runs if run.metrics.get(key) is not None]

    def mean(key: str) -> float | None:
        # A run that only tested a checkpoint took 0 s to train: no time to average.
        timed = [value for value in values(key) if value]
        return statistics.fmean(timed) if timed else None

    def different(key: str, digits: int = 0) -> str:
        return " / ".join(number(value, digits) for value in sorted(set(values(key)))) or NOTHING

    test, val = ([100 * value for value in values(key)] for key in ("test/acc", "val/acc"))
    seconds = mean("train_seconds")
    return {
        "parameters": different("parameters"),
        "published": different("published_test_acc", 2),
        "test accuracy": f"{spread(test)} ({len(test)})" if test else NOTHING,
        "validation": spread(val) + (f" ({len(val)})" if val and len(val) != len(test) else ""),
        "seconds": number(seconds, 1 if seconds is not None and seconds < 10 else 0),
        "images/s": number(mean("images_per_second")),
    }


def _value(run: Run, key: str) -> str:
    """What a run says of a key: a field of its metrics.json, or what it was overridden with."""
    if key == "checkpoint":
        return run.checkpoint
    value = run.metrics.get(key)
    return run.overrides.get(key) or run.default(key) or "default" if value is None else str(value)


def _check_known(key: str, runs: Sequence[Run]) -> None:
    fields = {name for run in runs for name, value in run.metrics.items() if isinstance(value, str | int | float)}
    known = sorted(fields | {name for run in runs for name in run.overrides})
    if key not in known and all(run.default(key) is None for run in runs):
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
        raise UserError(f"by={key}: no run has or overrides {key}. {hint}")


def _comparable(value: str) -> str | float:
    """1e-3 and 0.001 are one value."""
    try:
        return float(value)
    except ValueError:
        return value


def _typed(name: str, value: str) -> str:
    return f"{name}={value}" if value else name


def _in_all(runs: Sequence[Run]) -> dict[str, str]:
    first = runs[0].settings
    rest = [{name: _comparable(value) for name, value in run.settings.items()} for run in runs]
    return {name: first[name] for name in first if all(one.get(name) == _comparable(first[name]) for one in rest)}


def _name(run: Run, common: Mapping[str, str], told: Sequence[str] = ()) -> str:
    """What a row is called: the experiment, and of `told` (the keys that any run sets) what is not common to all."""
    values = {key: run.settings[key] if key in run.settings else run.default(key) for key in [*run.settings, *told]}
    settings = [_typed(name, value) for name, value in values.items() if name not in common and value is not None]
    parts = [run.metrics.get("experiment"), *settings]
    return ", ".join(filter(None, parts)) or f"{run.metrics.get('model') or 'model'}, defaults"


def _ranking(groups: Sequence[Sequence[Run]], rows: Sequence[Row]) -> Callable[[int], Any]:
    if all(run.metrics.get("val/acc") is not None for members in groups for run in members):
        return lambda i: -statistics.fmean(run.metrics["val/acc"] for run in groups[i])
    return lambda i: [_natural(text) for text in rows[i].values()]


def _natural(text: str) -> list[int | str]:
    """cnn2 comes before cnn10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", text))]


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
        notes.append(f"In all runs: {', '.join(map(_typed, common, common.values()))}.")
    notes.append("Accuracies in %: mean ± sample deviation over the runs of a row (number of runs).")
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
