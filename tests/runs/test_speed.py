"""The parts of the speed recipes together: first layer from data, Muon, alternating flips, views of the test images."""

import json

import pytest
import torch

from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.models.speednet import SpeedNet
from cifar_lightning.models.whitening import whitening_filters

# As conf/experiment/speed/cifar94.yaml, with a schedule that does not depend on the number of epochs.
RECIPE = [
    "data=digits", "model=speednet", "model.widths=[8,8,16]", "activation=gelu", "augmentation=alternating_flip_shift",
    "optimizer=muon", "optimizer.rescale=true", "optimizer.ns_steps=3", "optimizer.lr=0.1", "optimizer.sgd_lr=0.01",
    "+optimizer.groups.whitening={epochs: 1}", "+optimizer.groups.head={muon: false, lr: 0.1}", "scheduler=none",
    "loss.reduction=sum", "loss.label_smoothing=0.2", "test_tta=flip_shift", "data.batch_size=200", "logger=none",
]  # fmt: skip


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.slow
def test_a_resumed_run_ends_bit_for_bit_and_computes_no_first_layer(command, monkeypatch):
    assert command(*RECIPE, "trainer.max_epochs=3").code == 0
    assert command(*RECIPE, "trainer.max_epochs=1", "test=false").code == 0
    whole, stopped = sorted(command.runs(), key=lambda path: path.stat().st_mtime)
    after_one = weights(stopped)["state_dict"]
    (stopped / "metrics.json").unlink()

    def computed(*_):
        raise AssertionError("the checkpoint has the first layer")

    monkeypatch.setattr(SpeedNet, "initialize_from", computed)
    outcome = command("ckpt_path=last", "trainer.max_epochs=3", "test=true")
    assert outcome.code == 0, outcome.err
    expected, resumed = weights(whole), weights(stopped)
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(tensor, resumed["state_dict"][name]), name
    assert str(expected["optimizer_states"]) == str(resumed["optimizer_states"])

    data = ImageDataModule(name="digits", val_size=0.2)
    data.setup()
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    expected, found = (
        filters.flatten(1)[:12].T @ filters.flatten(1)[:12]  # grey images leave the directions without colour open
        for filters in (
            whitening_filters((data.train.images / 255 - mean) / std),
            resumed["state_dict"]["network.whitening.weight"],
        )
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.1)
    # Its bias is trained in the first epoch only, all others go on.
    changed = {name for name, tensor in after_one.items() if not torch.equal(tensor, resumed["state_dict"][name])}
    assert "network.whitening.bias" not in changed
    assert {"network.head.weight", "network.groups.0.entry.2.bias", "network.groups.0.entry.0.weight"} <= changed
    assert after_one["network.whitening.bias"].count_nonzero() == 24


def test_the_record_has_figures_with_and_without_the_views(command):
    command(*RECIPE, "trainer.max_epochs=2")
    (folder,) = command.runs()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test_tta"] == "flip_shift"
    assert metrics["test/loss"] != metrics["test/loss_without_tta"]
    assert metrics["test/acc_without_tta"] > 0.3

    checkpoint = f"ckpt_path={folder / 'checkpoints' / 'best.ckpt'}"
    assert command("train=false", checkpoint, "test_tta=none").code == 0
    (again,) = (path for path in command.runs() if path != folder)
    plain = json.loads((again / "metrics.json").read_text())
    assert plain["test/loss"] == pytest.approx(metrics["test/loss_without_tta"])
    assert "test_tta" not in plain


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("test_tta=flop", "test_tta=flop: must be one of none, flip, flip_shift, flip_shift_uncertain"),
        ("loss.reduction=total", "loss.reduction=total: must be one of mean, sum"),
        ("scheduler=onecycle", "optimizer.groups"),
        ("optimizer.momentum=1.5", "momentum=1.5"),
    ],
)
def test_what_does_not_fit_is_a_sentence(command, override, message):
    outcome = command(*RECIPE, "trainer.max_epochs=1", override)
    assert outcome.code != 0
    assert message in outcome.err
    assert "Traceback" not in outcome.err
