"""A run that was stopped and goes on ends where the uninterrupted one ends, in the same folder."""

import csv
import json

import pytest
import torch

EXPERIMENT = ["experiment=demo", "trainer.max_epochs=3", "logger=none"]


def folder_of(command, n=-1):
    return sorted((command.folder / "logs" / "demo" / "runs").glob("*"), key=lambda p: p.stat().st_mtime)[n]


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("extra", [[], ["ema_decay=0.9"], ["augmentation=mixup"]], ids=["plain", "ema", "mixup"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(command, extra):
    # A schedule without a length: one that has it would end with the first epoch.
    settings = [*EXPERIMENT, "scheduler=none", *extra]
    command(*settings)
    whole = folder_of(command)
    command(*settings, "trainer.max_epochs=1", "test=false")
    stopped = folder_of(command)
    (stopped / "metrics.json").unlink()
    outcome = command("ckpt_path=last", "task_name=demo", "trainer.max_epochs=3", "test=true")
    assert outcome.code == 0, outcome.err
    assert folder_of(command) == stopped

    expected, resumed = weights(whole), weights(stopped)
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(tensor, resumed["state_dict"][name]), name
    assert str(expected["optimizer_states"]) == str(resumed["optimizer_states"])
    for file in ("history.csv",):
        rows = [list(csv.DictReader((folder / file).open())) for folder in (whole, stopped)]
        assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows[0]] == [
            {k: v for k, v in row.items() if k != "seconds"} for row in rows[1]
        ]
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (whole, stopped))
    assert first["test/loss"] == second["test/loss"]
    assert second["experiment"] == "demo"
