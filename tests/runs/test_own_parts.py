"""Data, losses, modules, callbacks and loggers of the user's own, by `_target_`, on a first run and on a resume."""

import json
from pathlib import Path

import pytest

OWN = """
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.nn.functional import cross_entropy

from cifar_lightning.training.classifier import ImageClassifier


class Focal(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, targets):
        losses = cross_entropy(logits, targets, reduction="none")
        return (1 - torch.exp(-losses)) ** self.gamma * losses


class Noisy(ImageClassifier):
    def training_step(self, batch, batch_idx):
        images = batch[0].float() / 255
        return super().training_step((images + 0.01 * torch.rand_like(images), batch[1]), batch_idx)


class Alone(L.LightningModule):
    def __init__(self, network, optimizer):
        super().__init__()
        self.network, self.lr = network, optimizer["lr"]

    def step(self, batch, stage):
        logits = self.network(batch[0].float() / 255)
        loss = cross_entropy(logits, batch[1])
        self.log_dict({f"{stage}/loss": loss, f"{stage}/acc": (logits.argmax(1) == batch[1]).float().mean()})
        return loss

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.lr)


class Count(Callback):
    steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1

    def on_train_end(self, *_):
        with open("steps", "a") as file:
            file.write(f"{self.steps} ")


class Logger(CSVLogger):
    pass
"""
QUICK = [
    "data=digits", "model=cnn2", "augmentation=none", "optimizer=adam", "optimizer.lr=0.003", "scheduler=none",
    "callbacks.model_summary=null", "trainer.max_epochs=2", "hydra.run.dir=run", "logger=none",
]  # fmt: skip


@pytest.fixture
def own(command, monkeypatch):
    Path("mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(command.folder))
    return command


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param(["loss._target_=mine.Focal", "+loss.gamma=1.0"], marks=pytest.mark.slow),
        pytest.param(["loss._target_=torch.nn.CrossEntropyLoss"], marks=pytest.mark.slow),
        ["loss.weight=[1,1,1,1,1,2,2,2,2,2]", "loss.reduction=sum", "optimizer.lr=0.0001"],
        pytest.param(["loss.label_smoothing=0.1", "augmentation=mixup"], marks=pytest.mark.slow),
        pytest.param(["module._target_=mine.Noisy"], marks=pytest.mark.slow),
        ["module._target_=mine.Alone"],
        ["+callbacks.count._target_=mine.Count", "+logger.mine._target_=mine.Logger", "+logger.mine.save_dir=run"],
    ],
    ids=str,
)
def test_a_part_of_ones_own_trains_goes_on_and_is_evaluated(own, typed):
    outcome = own(*QUICK, *typed)
    assert outcome.code == 0, outcome.err
    first = json.loads(Path("run/metrics.json").read_text())
    assert first["test/acc"] > 0.3
    assert 0 < first["val/loss"] < 3
    outcome = own("ckpt_path=run", "trainer.max_epochs=4")  # as the command of a stopped run has it: nothing else
    assert outcome.code == 0, outcome.err
    second = json.loads(Path("run/metrics.json").read_text())
    assert second["epochs"] == 4
    assert second["test/acc"] > first["test/acc"] - 0.05
    if "Alone" not in typed[0]:  # whose validation needs no normalization of ours
        outcome = own("evaluate", "run")
        assert outcome.code == 0, outcome.err
        tested = json.loads(Path("run/checkpoints/best_test/evaluation.json").read_text())
        assert tested["test/acc"] == pytest.approx(second["test/acc"])
    if "count" in typed[0]:
        assert Path("steps").read_text().split() == ["72", "72"]  # every step, though direct_steps is on


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("loss._target_=mine.Focl", "Focl"),
        ("loss._target_=os.getpid", "loss._target_=os.getpid: expected a loss, got int"),
        ("module._target_=torch.nn.Identity", "expected a LightningModule, got Identity"),
        ("module._target_=mine.Missing", "Missing"),
        ("loss.weight=[1,2]", "loss.weight: give a number for each of the 10 classes, got 2"),
        ("~loss._target_", "loss._target_ is missing"),
    ],
)  # fmt: skip
def test_a_mistake_in_it_is_one_line(own, typed, message):
    outcome = own(*QUICK, typed)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert message in outcome.err
