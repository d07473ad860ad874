"""What two runs have left in their folders, compared to the last bit."""

import json

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar_lightning.reporting.files import read_csv


def checkpoint(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def scalars(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "hp/train_seconds"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def without_times(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_record(resumed, whole):
    """Weights, optimizer, curves, history, figures of the test and predictions."""
    a, b = checkpoint(resumed), checkpoint(whole)
    for name, tensor in b["state_dict"].items():
        assert torch.equal(tensor, a["state_dict"][name]), name
    assert str(a["optimizer_states"]) == str(b["optimizer_states"])
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
