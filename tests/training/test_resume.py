"""A checkpoint that is saved anywhere, by whatever callback, goes on to where the uninterrupted run ends."""

import pytest
import torch
from helpers.records import assert_identical
from helpers.resuming import ADAMW, SCHEDULES, Shuffled
from helpers.small import small_classifier, small_network, small_trainer
from lightning.pytorch.callbacks import Checkpoint, EMAWeightAveraging

STEPS = (4, 7, 10, 12, 13)


class Record(Checkpoint):
    """Every epoch's figures, and checkpoints after some steps, after a validation, and at an epoch's end."""

    def __init__(self, folder):
        self.folder, self.rows = folder, {}

    def on_train_batch_end(self, trainer, *_):
        path = self.folder / f"step={trainer.global_step}.ckpt"
        if trainer.global_step in STEPS and not path.exists():
            trainer.save_checkpoint(path)

    def on_validation_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.folder / "validated=1.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        figures = {key: float(value) for key, value in trainer.callback_metrics.items() if "step" not in key}
        self.rows[trainer.current_epoch] = figures | {"lr": trainer.optimizers[0].param_groups[0]["lr"]}
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.folder / "ended=1.ckpt")


def run(folder, scheduler, ema=False, ckpt_path=None, max_epochs=4, **keys):
    """Train, from random numbers that resuming has to replace."""
    record = Record(folder)
    callbacks = [record, *([EMAWeightAveraging(decay=0.9)] if ema else [])]
    network = small_network(dropout=0.5)
    torch.manual_seed(1 if ckpt_path is None else 99)
    classifier = small_classifier(network, optimizer=ADAMW, scheduler=scheduler)
    trainer = small_trainer(callbacks=callbacks, enable_checkpointing=True, max_epochs=max_epochs, **keys)
    trainer.fit(classifier, datamodule=Shuffled(), ckpt_path=ckpt_path, weights_only=True)
    return classifier, trainer, record.rows


def assert_same_end(resumed, whole):
    (classifier, trainer, rows), (expected, reference, all_rows) = resumed, whole
    assert_identical(classifier.state_dict(), expected.state_dict())
    assert_identical(trainer.optimizers[0].state_dict(), reference.optimizers[0].state_dict())
    assert rows == {epoch: all_rows[epoch] for epoch in rows}
    assert max(rows, default=3) == 3
    assert trainer.global_step == reference.global_step


CASES = {
    "cosine": ({"_target_": SCHEDULES + "cosine", "warmup_epochs": 1.5}, False),
    "onecycle": ({"_target_": SCHEDULES + "onecycle"}, False),
    "plateau": ({"_target_": SCHEDULES + "plateau", "patience": 0, "threshold": 0.9, "monitor": "train/loss"}, False),
    "plateau on validation": ({"_target_": SCHEDULES + "plateau", "patience": 0, "threshold": 0.9}, False),
    "cosine by epoch": ({"_target_": SCHEDULES + "cosine", "interval": "epoch"}, False),
    "average": ({"_target_": SCHEDULES + "linear"}, True),
}


@pytest.mark.parametrize("case", CASES)
def test_resuming_from_any_step_ends_the_same(tmp_path, case):
    scheduler, ema = CASES[case]
    whole = run(tmp_path, scheduler, ema)
    for step in (4, 7, 13):  # none the last of an epoch
        assert_same_end(run(tmp_path / "again", scheduler, ema, ckpt_path=tmp_path / f"step={step}.ckpt"), whole)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("saved", ["validated=1", "ended=1"])
def test_resuming_from_the_end_of_an_epoch_ends_the_same(tmp_path, case, saved):
    scheduler, ema = CASES[case]
    whole = run(tmp_path, scheduler, ema)
    assert_same_end(run(tmp_path / "again", scheduler, ema, ckpt_path=tmp_path / f"{saved}.ckpt"), whole)


@pytest.mark.parametrize("case", ["cosine", "onecycle", "average"])
def test_resuming_from_the_last_step_of_an_epoch_ends_the_same(tmp_path, case):
    # Lightning validates this epoch no more, so a plateau would miss it.
    scheduler, ema = CASES[case]
    whole = run(tmp_path, scheduler, ema)
    assert_same_end(run(tmp_path / "again", scheduler, ema, ckpt_path=tmp_path / "step=10.ckpt"), whole)


def test_resuming_with_accumulated_batches_ends_the_same(tmp_path):
    scheduler, _ = CASES["cosine"]
    whole = run(tmp_path, scheduler, accumulate_grad_batches=2)
    for step in (4, 7):
        ckpt_path = tmp_path / f"step={step}.ckpt"
        assert_same_end(run(tmp_path / "again", scheduler, ckpt_path=ckpt_path, accumulate_grad_batches=2), whole)


def test_a_run_cut_off_by_max_steps_goes_on_in_mid_epoch(tmp_path):
    scheduler, _ = CASES["plateau"]
    whole = run(tmp_path, scheduler)
    run(tmp_path / "first", scheduler, max_steps=12)
    assert_same_end(run(tmp_path / "again", scheduler, ckpt_path=tmp_path / "first" / "step=12.ckpt"), whole)


@pytest.mark.parametrize("case", ["cosine", "onecycle"])
def test_more_epochs_on_resuming_stretch_the_schedule(tmp_path, case):
    scheduler, _ = CASES[case]
    run(tmp_path, scheduler)
    _, trainer, rows = run(tmp_path / "again", scheduler, ckpt_path=tmp_path / "step=7.ckpt", max_epochs=8)
    whole = run(tmp_path / "whole", scheduler, max_epochs=8)[2]
    assert trainer.global_step == 40
    assert [row["lr"] for row in rows.values()] == [whole[epoch]["lr"] for epoch in rows]
