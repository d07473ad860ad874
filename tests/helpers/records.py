"""What two runs have left in their folders, compared to the last bit."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from cifar_lightning.reporting.files import read_csv


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "hp/train_seconds"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def without_times(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_identical(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_identical(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_same_record(resumed: Path, whole: Path) -> None:
    """Weights, optimizer, curves, history, figures of the test and predictions."""
    a, b = checkpoint(resumed), checkpoint(whole)
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert_identical(a[part], b[part], part)
    assert without_times(read_csv(resumed / "history.csv")) == without_times(read_csv(whole / "history.csv"))
    curves, expected = scalars(resumed), scalars(whole)
    assert curves.keys() == expected.keys()
    for tag in expected:
        assert curves[tag] == expected[tag], tag
    assert (resumed / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (resumed, whole))
    assert {k: v for k, v in first.items() if k.startswith(("val/", "test/"))} == {
        k: v for k, v in second.items() if k.startswith(("val/", "test/"))
    }
    for key in ("epochs", "checkpoint", "model", "seed", "train_images"):
        assert first[key] == second[key]
