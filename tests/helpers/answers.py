"""Folders of runs that never ran, with the answers of made-up networks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cifar_lightning.reporting.files import write_predictions

NAMES = ("cat", "dog", "frog")


def labels_of(n: int) -> np.ndarray:
    """The true class of each image, as a number."""
    return np.arange(n) % len(NAMES)


def answers_of(correct: np.ndarray) -> np.ndarray:
    """Predicted classes that are right where `correct` is."""
    labels = labels_of(len(correct))
    return np.where(correct, labels, (labels + 1) % len(NAMES))


def write_run(
    folder: Path,
    correct: np.ndarray,
    *overrides: str,
    seed: int = 1,
    val: float | None = 0.5,
    of_data: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A run's folder whose network is right where `correct` (bool [images]) is."""
    metrics = {
        "test/acc": float(correct.mean()), "val/acc": val, "parameters": 100, "epochs": 1, "train_seconds": 1.0,
        "images_per_second": 1.0, "checkpoint": "best", "experiment": None, "model": "cnn2", "seed": seed,
        "overrides": [*overrides, f"seed={seed}"], "precision": "32-true", "data": "made-up", "data_checksum": "0123",
        "command": " ".join(["python -m cifar_lightning", *overrides, f"seed={seed}"]), "hardware": "one core",
        "test/acc_per_class": dict.fromkeys(NAMES, 0.5), "versions": {}, "date": "2026-11-27",
    } | changes  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    config = {"data": {"name": "made-up", "val_size": 10, "split_seed": 42} | dict(of_data or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_answers(folder / "predictions.csv", correct)
    return folder


def write_answers(path: Path, correct: np.ndarray) -> Path:
    """A predictions.csv as runs write it."""
    n = len(correct)
    write_predictions(path, range(n), labels_of(n).tolist(), answers_of(correct).tolist(), [0.5] * n, NAMES)
    return path


def write_sweep(folder: Path, networks: Mapping[str, Sequence[np.ndarray]]) -> Path:
    """A sweep over an activation: for each value the answers of one network a seed."""
    for value, rows in networks.items():
        for i, correct in enumerate(rows):
            words = (f"activation={value}", "model=cnn2")
            write_run(folder / f"activation={value},seed={i + 1}", correct, *words, seed=i + 1, val=correct.mean())
    (folder / "multirun.yaml").touch()
    return folder
