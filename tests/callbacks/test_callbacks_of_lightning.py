"""Through the command, every callback that Lightning exports does what it is for, or is refused."""

import pytest
import torch
from helpers.records import assert_identical
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import Callback

from cifar_lightning.reporting.files import read_csv

ARGUMENTS = {
    "BasePredictionWriter": ["write_interval=batch"],
    "BackboneFinetuning": ["unfreeze_backbone_at_epoch=1"],
    "EarlyStopping": ["monitor=val/loss"],
    "GradientAccumulationScheduler": ["scheduling={0: 1, 1: 4}"],
    "ModelPruning": ["pruning_fn=l1_unstructured", "amount=0.3"],
    "OnExceptionCheckpoint": ["dirpath=here"],
    "StochasticWeightAveraging": ["swa_lrs=0.01"],
    "ThroughputMonitor": ["batch_size_fn={_target_: hydra.utils.get_method, path: builtins.len}"],
}
REFUSED = {
    "BackboneFinetuning": "use model.freeze",
    "BaseFinetuning": "it is a base class",
    "BatchSizeFinder": "the command batch_size_find",
    "DeviceStatsMonitor": "logger=csv",
    "LearningRateFinder": "the command lr_find",
    "ModelPruning": "channels_last=false",
    "SpikeDetection": "callbacks.finite_loss",
    "StochasticWeightAveraging": "use swa_start=0.75",
}
FAST = {"GradientAccumulationScheduler", "StochasticWeightAveraging"}


class HalvesGradients(callbacks.ModelCheckpoint):
    """What is made from an indifferent class need not be indifferent."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for parameter in pl_module.parameters():
            parameter.grad /= 2


class ClipsLater(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        trainer.gradient_clip_val = 0.01 if trainer.current_epoch == 1 else None


def run(command, target, seconds, *more):
    folder = command.folder / f"{seconds}"
    outcome = command(
        *(
            "data=digits",
            "model=cnn2",
            "trainer.max_epochs=2",
            "logger=none",
            "test=false",
            "trainer.precision=32",
            f"hydra.run.dir={folder}",
        ),
        *(f"callbacks.direct_steps.seconds={seconds}", f"+callbacks.own._target_={target}", *more),
    )
    return outcome, folder


def assert_same_whatever_lightning_sees(command, target, *more):
    folders = []
    for seconds in (0, 1000):
        outcome, folder = run(command, target, seconds, *more)
        assert outcome.code == 0, outcome.err
        folders.append(folder)
    rows = [read_csv(folder / "history.csv") for folder in folders]
    for row in (*rows[0], *rows[1]):
        row.pop("seconds")
    assert rows[0] == rows[1]
    a, b = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in folders)
    assert_identical(a, b, "weights")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in callbacks.__all__]
)
def test_a_callback_of_lightning_does_what_it_says(command, name):
    target, more = f"lightning.pytorch.callbacks.{name}", [f"+callbacks.own.{a}" for a in ARGUMENTS.get(name, ())]
    if name not in REFUSED:
        assert_same_whatever_lightning_sees(command, target, *more)
        return
    outcome, _ = run(command, target, 0, *more)
    assert outcome.code == 1
    last = outcome.err.strip().splitlines()[-1]
    assert f"{name}: " in last
    assert REFUSED[name] in last


@pytest.mark.slow
def test_pruning_without_channels_last(command):
    more = [f"+callbacks.own.{a}" for a in ARGUMENTS["ModelPruning"]]
    assert_same_whatever_lightning_sees(
        command,
        "lightning.pytorch.callbacks.ModelPruning",
        *more,
        "channels_last=false",
        "callbacks.best_checkpoint=null",
    )


@pytest.mark.parametrize("own", [HalvesGradients, pytest.param(ClipsLater, marks=pytest.mark.slow)])
def test_a_callback_of_ones_own_misses_nothing(command, own):
    assert_same_whatever_lightning_sees(command, f"{__name__}.{own.__name__}")
