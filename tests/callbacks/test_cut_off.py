"""A run that an exception or a limit ends in mid-epoch, and that goes on, is the uninterrupted one to the last bit."""

import pytest
import torch
from helpers.records import assert_identical
from helpers.resuming import KINDS, assert_same_run, train
from helpers.stopping import AccidentAt, TimeOverAt
from lightning.pytorch.callbacks import ModelCheckpoint

from cifar_lightning.callbacks.time_limit import TimeLimit

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


def best(folder):
    return ModelCheckpoint(folder, "best", monitor="val/loss", save_weights_only=True, enable_version_counter=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs, and the folders of their checkpoints, by kind."""
    runs = {}

    def run(kind):
        if kind not in runs:
            folder = tmp_path_factory.mktemp("whole")
            runs[kind] = with_best(folder, kind), folder
        return runs[kind]

    return run


def with_best(folder, kind, **keys):
    """Train, keeping the best checkpoint, too, where there is one."""
    callbacks = [*KINDS[kind].get("callbacks", []), *([] if kind == "no validation" else [lambda: best(folder)])]
    return train(folder, **KINDS[kind] | keys | {"callbacks": callbacks})


def assert_goes_on(folder, kind, whole):
    run, original = whole(kind)
    assert_same_run(with_best(folder, kind, ckpt_path=folder / "last.ckpt"), run)
    if kind != "no validation":
        a, b = (torch.load(where / "best.ckpt", weights_only=True) for where in (folder, original))
        assert a["global_step"] == b["global_step"]
        assert_identical(a["state_dict"], b["state_dict"])


def over_in(batch):
    """What makes time run out in a batch, counted from the beginning of training."""
    return [TimeLimit("00:01:00:00"), TimeOverAt("on_train_batch_start", batch)]


def step_of(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("kind", "hook", "n", "every_minutes", "step"),
    [
        ("workers", "on_before_optimizer_step", 9, None, 5),
        ("average", "on_before_optimizer_step", 9, 0, 8),
        ("average", "on_validation_batch_start", 7, 0, 9),
    ],
)
def test_a_run_that_an_exception_has_ended(tmp_path, whole, kind, hook, n, every_minutes, step):
    with pytest.raises(RuntimeError, match="the dog"):
        with_best(tmp_path, kind, more=[AccidentAt(hook, n)], every_minutes=every_minutes)
    assert step_of(tmp_path) == step
    assert_goes_on(tmp_path, kind, whole)


# Not those whose schedule has another end then.
@pytest.mark.parametrize("kind", ["workers", "accumulated", "validation in mid-epoch", "no validation"])
def test_a_run_that_max_steps_has_ended(tmp_path, whole, kind):
    with_best(tmp_path, kind, max_steps=8)
    assert step_of(tmp_path) == 8
    assert_goes_on(tmp_path, kind, whole)


@pytest.mark.parametrize(
    ("kind", "batch", "step"),
    [
        ("average", 8, 8),
        ("plateau and early stopping", 8, 8),
        ("workers", 10, 10),  # the epoch's last
        ("no validation", 8, 8),
        ("accumulated", 8, 5),  # batch 9 is the other half of the step
        ("validation in mid-epoch", 9, 10),  # which follows batch 9
    ],
)
def test_a_run_that_max_time_has_ended(tmp_path, whole, kind, batch, step):
    with_best(tmp_path, kind, more=over_in(batch))
    assert step_of(tmp_path) == step
    assert_goes_on(tmp_path, kind, whole)


def test_max_time_leaves_min_epochs_their_time(tmp_path):
    assert train(tmp_path, more=over_in(1), min_epochs=2)[1].global_step == 10
