"""What is seen while a run goes on: the same of an epoch wherever it stands."""

import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar_lightning import api
from cifar_lightning.callbacks.model_summary import layer_rows
from cifar_lightning.reporting.files import read_csv
from cifar_lightning.runs.build import build_module

RUN = [
    *("data=digits", "data.batch_size=128", "model=cnn2", "augmentation=none", "trainer.max_epochs=3"),
    *("trainer.accelerator=cpu", "callbacks.model_summary=null", "test=false"),
]
LINE = re.compile(r"epoch (\d+)/3  train ([\d.]+) ([\d.]+)%  val ([\d.]+) ([\d.]+)%")


def on_a_terminal(*arguments: str) -> str:
    """What the command writes to a terminal of 80 columns, without colours and cursor movements."""
    written = bytearray()

    def read(descriptor: int) -> bytes:
        written.extend(block := os.read(descriptor, 1024))
        return block

    code = pty.spawn([*("env", "COLUMNS=80", "TERM=xterm"), sys.executable, "-m", "cifar_lightning", *arguments], read)
    assert code == 0, written.decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())


@pytest.fixture
def spawn_quietly(monkeypatch):
    monkeypatch.setattr("pty.STDOUT_FILENO", os.open(os.devnull, os.O_WRONLY))


def test_a_terminal_a_pipe_the_history_and_tensorboard_say_the_same_of_an_epoch(command, spawn_quietly):
    terminal = on_a_terminal(*RUN, "hydra.run.dir=terminal")
    piped = command(*RUN, "hydra.run.dir=piped").out
    history = read_csv(Path("piped/history.csv"))
    expected = [
        (str(row["epoch"]), *(f"{row[k]:.4f}" if k.endswith("loss") else f"{100 * row[k]:.2f}" for k in keys))
        for row in history
        for keys in [("train/loss", "train/acc", "val/loss", "val/acc")]
    ]
    assert [row[0] for row in expected] == ["1", "2", "3"]
    assert LINE.findall(piped) == expected
    assert LINE.findall(terminal) == expected
    assert LINE.findall(Path("terminal/cifar_lightning.log").read_text()) == expected
    events = EventAccumulator("piped").Reload()
    for key in ("train/loss", "train/acc", "val/loss", "val/acc"):
        assert [event.value for event in events.Scalars(key)] == pytest.approx([row[key] for row in history], rel=1e-6)
    assert re.search(r"epoch 3/3 .*train \d\.\d{4} \d+\.\d\d%", terminal.replace("\n", " "))  # inside the epoch


def test_a_piped_run_says_how_an_epoch_goes(command):
    outcome = command(*RUN, "trainer.print_every=4", "callbacks.direct_steps.seconds=0", "trainer.max_epochs=1")
    lines = re.findall(r"epoch 1/1  step (\d+) of 9  train [\d.]+ [\d.]+%", outcome.out)
    assert lines == ["4", "8"]
    assert "step" not in command(*RUN, "trainer.print_every=0", "trainer.max_epochs=1").out


def test_what_changes_the_course_of_training_is_said_and_kept(command):
    command(
        *RUN, "scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9", "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=9", "hydra.run.dir=run",
    )  # fmt: skip
    events = json.loads(Path("run/metrics.json").read_text())["events"]
    assert events[0].startswith("after epoch 2: learning rate lowered from 0.1 to 0.01, as val/loss has not improved")
    assert re.fullmatch(r"after epoch 2: stopped early, as val/loss was best \([\d.]+\) in epoch 1", events[-1])
    log = Path("run/cifar_lightning.log").read_text()
    assert all(event in log for event in events)


def test_a_stop_in_the_first_epoch_holds_when_the_run_is_resumed(command):
    stop = ["callbacks=early_stopping", "+callbacks.early_stopping.stopping_threshold=99"]
    assert command(*RUN, *stop, "scheduler=none", "hydra.run.dir=run").code == 0
    outcome = command("ckpt_path=run", "trainer.max_epochs=4")
    assert outcome.code == 0, outcome.err
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["epochs"] == 1
    assert metrics["events"][-1].startswith("after epoch 1: stopped early, as stopping threshold reached: val/loss = ")


def test_a_run_says_where_it_is_once_and_what_can_be_typed_next(command):
    out = command(*RUN, "trainer.max_epochs=1", "logger=none", "seed=3", "hydra.run.dir=run").out
    assert out.count("in run:") == 1
    assert "tensorboard" not in out
    assert "tested checkpoint" not in out
    after = [line.strip() for line in out.partition("next:")[2].splitlines() if line.strip()]
    assert after[0] == "python -m cifar_lightning report run"
    assert after[1] == "python -m cifar_lightning predict ckpt_path=run index=val:0,1,2"
    assert after[2].endswith("logger=none seed=4")


@pytest.mark.parametrize(("model", "multiply_adds"), [("lenet3", 3_318_664), ("resnet", 26_657_408)])
def test_the_summary_counts_for_one_image_and_exactly(model, multiply_adds):
    config = api.compose(["data=digits", f"model={model}"])
    module = build_module(config, api.load_data(config))
    rows = layer_rows(module, module.network, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert rows[-1]["multiply-adds"] == f"{multiply_adds:,}"
    assert rows[-1]["parameters"] == f"{sum(p.numel() for p in module.network.parameters()):,}"
    assert len(rows) == len(list(module.network.modules()))
    assert module.network.training


def test_every_table_of_a_run_fits_80_columns(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [word for word in RUN if not word.startswith(("callbacks", "model", "test"))]
    out = command(*words, "model=resnet", "callbacks.model_summary.max_depth=-1", "trainer.max_epochs=1").out
    table = [line for line in out.splitlines() if not line.startswith(("  python", "in logs", "  tensorboard"))]
    assert max(map(len, table)) <= 80
    assert "blocks.5.shortcut" in out or "blocks.5" in out
