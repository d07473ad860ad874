"""What was learnt of wrong labels is measured after each epoch, and stands in history, dashboard, table and report."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar_lightning import api
from cifar_lightning.config.monitors import NOISE_METRICS
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.reporting.files import read_csv

RUN = [
    *("data=digits", "data.label_noise=0.4", "model=cnn2", "optimizer=adam", "scheduler=none", "augmentation=none"),
    *("callbacks.model_summary=null", "trainer.max_epochs=2", "data.val_size=0", "hydra.run.dir=run"),
]


@pytest.mark.figures
def test_the_last_epochs_figures_are_those_of_the_tested_weights(command):
    outcome = command(*RUN)
    assert outcome.code == 0, outcome.err
    history, metrics = read_csv(Path("run/history.csv")), json.loads(Path("run/metrics.json").read_text())
    data = ImageDataModule(name="digits", label_noise=0.4, val_size=0, batch_size=8)
    data.setup()
    predictions = api.load("run/checkpoints/last.ckpt").predict(data.train.images).classes
    wrong = data.train.labels != data.true_labels
    expected = [
        (predictions == data.true_labels)[~wrong].float().mean(),
        (predictions == data.true_labels)[wrong].float().mean(),
        (predictions == data.train.labels)[wrong].float().mean(),
    ]
    events = EventAccumulator("run").Reload()
    for name, value in zip(NOISE_METRICS, expected, strict=True):
        assert history[-1][name] == metrics[name]
        assert metrics[name] == pytest.approx(value.item(), abs=0.01)  # the run may have been in bfloat16
        logged = [event.value for event in events.Scalars(name)]
        assert logged == pytest.approx([row[name] for row in history])
    assert "wrong labels learnt by heart" in outcome.out
    assert command("report", "run").code == 0
    page = Path("run/report.html").read_text()
    assert "wrong labels: learnt by heart" in page


def test_a_stopped_and_resumed_run_has_the_same_history_and_weights(command):
    assert command(*RUN, "logger=none").code == 0
    steps = [*RUN[:-1], "logger=none", "hydra.run.dir=parts"]
    assert command(*steps, "trainer.max_steps=10").code == 0
    assert command("ckpt_path=parts", "trainer.max_steps=-1").code == 0
    whole, parts = (read_csv(Path(folder, "history.csv")) for folder in ("run", "parts"))
    assert [row["train/memorized"] for row in parts[-1:]] == [row["train/memorized"] for row in whole[-1:]]
    a, b = (torch.load(f"{folder}/checkpoints/last.ckpt")["state_dict"] for folder in ("run", "parts"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_without_wrong_labels_there_is_nothing_of_it(command):
    assert command(*[word for word in RUN if "noise" not in word], "logger=none").code == 0
    assert "train/memorized" not in read_csv(Path("run/history.csv"))[0]
