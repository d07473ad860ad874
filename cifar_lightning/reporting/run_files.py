"""Read the files of finished runs: metrics.json, which is checked, with config.yaml and history.csv beside it."""

import os
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cifar_lightning.config.keys import decides
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_csv, read_json, read_yaml
from cifar_lightning.reporting.tables import NOTHING

MOST = 1e15  # more than any count of parameters or seconds


@dataclass(frozen=True)
class Run:
    """A metrics.json: its path and its content."""

    path: Path
    metrics: Mapping[str, Any]

    @cached_property
    def overrides(self) -> dict[str, str]:
        parts = (override.lstrip("+").partition("=") for override in self.metrics["overrides"])
        return {name: value for name, _, value in parts}

    @cached_property
    def settings(self) -> dict[str, str]:
        """The overrides that change what is trained."""
        return {name: value for name, value in self.overrides.items() if not decides(typed(name, value)).folds}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The run's config.yaml; empty if it is no longer beside the metrics."""
        try:
            config = read_yaml(Path(self.path).with_name("config.yaml"))
        except (OSError, ValueError, UserError):
            return {}
        return config if isinstance(config, dict) else {}

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        path = Path(self.path).with_name("history.csv")
        return read_csv(path) if path.exists() else []

    def default(self, key: str) -> str | None:
        """The run's value of a key that was not overridden, if it is a choice or a single value."""
        choices, value = self.config.get("choices"), self.config
        if isinstance(choices, dict) and key in choices:
            return str(choices[key])
        for name in key.split("."):
            value = value.get(name, {}) if isinstance(value, dict) else {}
        return None if isinstance(value, dict | list) or value is None else str(value)

    def setting(self, key: str) -> str | None:
        return self.settings[key] if key in self.settings else self.default(key)

    def value(self, key: str) -> str:
        """The value of a field of metrics.json or of an overridden key."""
        if key == "checkpoint":
            return self.checkpoint
        value = self.metrics.get(key)
        return self.overrides.get(key) or self.default(key) or "default" if value is None else str(value)

    @cached_property
    def checkpoint(self) -> str:
        """Which checkpoint was tested: "best", "last", or the name of another file."""
        return Path(str(self.metrics.get("checkpoint") or NOTHING)).stem

    @cached_property
    def key(self) -> Hashable:
        """Equal for runs that differ in nothing but the seed."""
        fields = ("experiment", "model", "parameters", "precision", "data", "data_checksum")
        settings = {name: comparable(value) for name, value in self.settings.items()}
        return *map(self.metrics.get, fields), self.checkpoint, frozenset(settings.items())


def load_runs(folders: Iterable[str | os.PathLike[str]]) -> tuple[list[Run], list[str]]:
    """Read every metrics.json in and below the folders; and a line about each that is not the result of a run."""
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
    for key in (
        "test/acc",
        "val/acc",
        "parameters",
        "published_test_acc",
        "train_seconds",
        "images_per_second",
        "operations",
    ):
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


def comparable(value: str) -> str | float:
    """1e-3 and 0.001 are one value."""
    try:
        return float(value)
    except ValueError:
        return value


def typed(name: str, value: str) -> str:
    return f"{name}={value}" if value else name
