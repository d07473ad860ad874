"""Accumulated gradients, early stopping, the tested checkpoint's figures and torch's optimizers are what they say."""

import copy
import inspect
import json

import pytest
import torch
from helpers.small import Batches, normalized, small_classifier, small_network, small_trainer
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from torch.nn.functional import cross_entropy

from cifar_lightning.callbacks.early_stopping import EarlyStopping
from cifar_lightning.config.compose import best_is
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_csv

SGD = {"_target_": "torch.optim.SGD", "lr": 0.05}
TORCHS = sorted(name for name, kind in vars(torch.optim).items() if inspect.isclass(kind) and name != "Optimizer")


def trained_by_hand(network, batches, groups):
    """SGD over the mean gradient of each group of so many batches, an epoch for each entry of `groups`."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for size in groups:
        epoch = list(batches)
        for first in range(0, len(epoch), size):
            group = epoch[first : first + size]
            optimizer.zero_grad()
            for images, labels in group:
                (cross_entropy(network(normalized(images)), labels) / len(group)).backward()
            optimizer.step()


@pytest.mark.parametrize("full", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("scheduled", [False, True])
def test_accumulated_gradients_are_the_mean_of_each_group(full, scheduled):
    batches, network = Batches(n=48), small_network()
    expected = copy.deepcopy(network).train()
    groups = [1, full] if scheduled else [full, full]
    trained_by_hand(expected, batches, groups)
    keys = (
        {"callbacks": [GradientAccumulationScheduler({0: 1, 1: full})]}
        if scheduled
        else {"accumulate_grad_batches": full}
    )
    trainer = small_trainer(max_epochs=2, limit_val_batches=0, **keys)
    trainer.fit(small_classifier(network, optimizer=SGD), batches)
    for ours, theirs in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("losses", "epochs"), [([3, 4, 5, 2, 1, 2, 3, 4], 7), ([1, 2, 3, 4, 5], 4)])
def test_a_stop_before_min_epochs_counts_only_if_it_is_still_true(losses, epochs):
    class Losses(Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                trainer.callback_metrics["val/loss"] = torch.tensor(float(losses[trainer.current_epoch]))

    trainer = small_trainer(callbacks=[Losses(), EarlyStopping("val/loss", patience=2)], min_epochs=4, max_epochs=8)
    trainer.fit(small_classifier(), Batches(), Batches(n=8))
    assert trainer.current_epoch == epochs


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val/loss", "min"), ("train/loss", "min"), ("val/acc", "max"), ("train/acc", "max"), ("val/error", "min")],
)
def test_the_better_of_two_values(metric, mode):
    assert best_is(metric) == mode


@pytest.mark.parametrize("name", TORCHS)
def test_every_optimizer_of_torch_trains_or_says_what_to_use(name):
    classifier = small_classifier(optimizer={"_target_": f"torch.optim.{name}", "lr": 0.01})
    trainer = small_trainer(max_epochs=1, limit_val_batches=0)
    if name in ("Muon", "SparseAdam"):
        with pytest.raises(UserError, match=r"use optimizer=\w+"):
            trainer.fit(classifier, Batches())
        return
    before = copy.deepcopy(classifier.network.state_dict())
    trainer.fit(classifier, Batches())
    assert not torch.equal(before["0.weight"], classifier.network.state_dict()["0.weight"])


def test_the_figures_are_those_of_the_tested_checkpoint(command):
    monitored = ["callbacks.best_checkpoint.monitor=val/loss", "callbacks.best_checkpoint.filename=lowest"]
    run = ["data=digits", "model=cnn2", "logger=none", "trainer.max_epochs=4", "test=false", "seed=3"]
    assert command(*run, *monitored, "optimizer.lr=0.3", "hydra.run.dir=r").code == 0
    rows = read_csv(command.folder / "r" / "history.csv")
    lowest = min(rows, key=lambda row: float(row["val/loss"]))
    metrics = json.loads((command.folder / "r" / "metrics.json").read_text())
    assert metrics["checkpoint"] == "lowest"
    assert metrics["checkpoint_epoch"] == int(lowest["epoch"])
    assert (metrics["val/loss"], metrics["val/acc"]) == (float(lowest["val/loss"]), float(lowest["val/acc"]))
