"""A run that was stopped and goes on ends where the uninterrupted one ends, in the same folder."""

import errno
import json
import os
import shlex
import signal
from contextlib import contextmanager

import pytest
from helpers.records import assert_same_record, checkpoint
from helpers.stopping import AccidentAt, SignalAt, TimeOverAt

from cifar_lightning.runs import train

QUICK = [
    "data=digits",
    "data.batch_size=128",
    "model=cnn2",
    "callbacks.model_summary=null",
    "trainer.log_every_n_steps=1",
]
LONG = [*QUICK, "trainer.max_epochs=3"]
KINDS = {
    "resnet, average, mixup": [
        "model=resnet",
        "model.stem_width=4",
        "model.widths=[4,8]",
        "model.blocks=1",
        "model.stochastic_depth=0.5",
        "ema_decay=0.9",
        "augmentation=mixup",
    ],
    "workers, early stopping": [
        "augmentation=trivial_augment",
        "data.num_workers=2",
        "scheduler=plateau",
        "scheduler.patience=0",
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=0.5",
        "trainer.max_epochs=4",
    ],
    "dropout": ["model=cnn4", "optimizer=adamw"],
    "muon": ["optimizer=muon", "scheduler=cosine"],
    "sam, hardest, sizes, stochastic average": [
        "model=resnet",
        "model.stem_width=4",
        "model.widths=[4,8]",
        "model.blocks=1",
        "optimizer.sam_rho=0.05",
        "data.keep_hardest=0.8",
        "data.size_schedule=[[0.5,16]]",
        "swa_start=0.5",
    ],
    "schedule-free": ["model=cnn4_bn", "optimizer=extra", "optimizer.name=ScheduleFreeAdamW", "scheduler=none"],
    "no validation part": ["data.val_size=0", "augmentation=flip_crop"],
}
FAST = "resnet, average, mixup"  # tests/training/test_interruption.py has the others with a tiny network
kinds = pytest.mark.parametrize("kind", [k if k == FAST else pytest.param(k, marks=pytest.mark.slow) for k in KINDS])


@pytest.fixture
def at(monkeypatch):
    """`with at(SignalAt(…)): …` adds a callback to the runs inside."""

    @contextmanager
    def added(callback):
        build = train.build_callbacks
        with monkeypatch.context() as patch:
            patch.setattr(train, "build_callbacks", lambda *args: [*build(*args), callback])
            yield

    return added


def printed_command(err):
    """The arguments of the command that a stopped run has printed."""
    words = shlex.split(err.strip().splitlines()[-1])
    assert words[:3] == ["python", "-m", "cifar_lightning"]
    return words[3:]


@kinds
def test_the_command_that_a_stopped_run_prints_completes_it_bit_for_bit(command, at, kind):
    training = [*LONG, *KINDS[kind]]
    assert command(*training, "hydra.run.dir=whole").code == 0
    with at(SignalAt("on_train_batch_start", 12)):  # in the second epoch of nine steps
        stopped = command(*training, "hydra.run.dir=part")
    assert stopped.code == 143
    assert stopped.err.splitlines()[-2] == "stopped by SIGTERM. Resume with:"
    assert checkpoint(command.folder / "part")["global_step"] == 12
    outcome = command(*printed_command(stopped.err))
    assert outcome.code == 0, outcome.err
    assert_same_record(command.folder / "part", command.folder / "whole")


ENDS = {
    "an exception": (AccidentAt("on_before_optimizer_step", 13), ["callbacks.last_checkpoint.every_minutes=0"], 1),
    "max_steps": (AccidentAt("on_exception", 1), ["trainer.max_steps=12"], 0),
    "max_time": (TimeOverAt("on_train_batch_start", 12), ["trainer.max_time=01:00:00:00"], 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_ended_in_mid_epoch_goes_on_bit_for_bit(command, at, end):
    event, limits, code = ENDS[end]
    training = [*LONG, "model.dropout=0.5", "scheduler=plateau"]
    assert command(*training, "hydra.run.dir=whole").code == 0
    with at(event):
        stopped = command(*training, *limits, "hydra.run.dir=part")
    assert stopped.code == code, stopped.err
    assert checkpoint(command.folder / "part")["global_step"] == 12
    free = ["trainer.max_steps=-1", "trainer.max_time=null"]
    outcome = command("ckpt_path=part/checkpoints/last.ckpt", *free)
    assert outcome.code == 0, outcome.err
    assert_same_record(command.folder / "part", command.folder / "whole")


def test_last_is_the_run_that_was_stopped(command, at):
    with at(SignalAt("on_validation_batch_start", 1, signal.SIGINT)):
        stopped = command(*LONG, "trainer.max_epochs=1", "test=false", "logger=csv")
    assert stopped.code == 130
    (folder,) = command.runs()
    assert printed_command(stopped.err) == [
        f"ckpt_path={folder.relative_to(command.folder)}/checkpoints/last.ckpt",
        "test=false",
    ]
    written = (folder / "csv" / "metrics.csv").read_text()
    assert command("ckpt_path=last", "test=false").code == 0
    assert command.runs() == [folder]
    assert (folder / "metrics.json").exists()
    assert (folder / "csv" / "metrics.csv").read_text() == written
    assert (folder / "csv" / "from_step_9" / "metrics.csv").exists()


@pytest.mark.parametrize("hook", ["on_fit_start", "on_test_batch_start"])
def test_outside_of_training_a_run_ends_at_once(command, at, hook):
    with at(SignalAt(hook, 1)):
        stopped = command(*LONG, "trainer.max_epochs=1", "logger=none", "hydra.run.dir=part")
    assert stopped.code == 143
    if hook == "on_fit_start":
        assert stopped.err == "stopped by SIGTERM. No checkpoint was written yet: start it again\n"
    else:
        assert not (command.folder / "part" / "metrics.json").exists()
        assert command(*printed_command(stopped.err)).code == 0
        assert json.loads((command.folder / "part" / "metrics.json").read_text())["test/acc"] > 0


@pytest.mark.slow
def test_a_signal_ends_a_sweep_which_the_same_command_completes(command, at):
    sweep = ["-m", *QUICK, "trainer.max_epochs=2", "seed=1,2", "logger=none", "hydra.sweep.dir=sweep"]
    with at(SignalAt("on_train_batch_start", 12, signal.SIGINT)):
        stopped = command(*sweep)
    assert stopped.code == 130
    assert stopped.err.startswith("stopped by SIGINT; the same command with hydra.sweep.dir=")
    assert len(list(command.folder.glob("sweep/*/metrics.json"))) == 0
    assert command(*sweep).code == 0
    assert len(list(command.folder.glob("sweep/*/metrics.json"))) == 2


class Full:
    """Lets the n-th writing of a checkpoint find no space."""

    def __init__(self, monkeypatch, n):
        self.calls, self.n = 0, n
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, _):
        self.calls += 1
        if self.calls >= self.n:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_leaves_the_checkpoints_before(command, monkeypatch):
    # Two checkpoints are written after the first epoch, best.ckpt and last.ckpt.
    Full(monkeypatch, 3)
    outcome = command(*LONG, "logger=none", "hydra.run.dir=part")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: can't write {command.folder}/part: No space left on device.")
    assert printed_command(outcome.err) == ["ckpt_path=part/checkpoints/last.ckpt"]
    assert checkpoint(command.folder / "part")["global_step"] == 9
    assert {path.name for path in (command.folder / "part" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_full_disk_that_the_curves_find_first_is_the_same_line(command, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer._AsyncWriter.write", fail)
    outcome = command(*QUICK, "trainer.max_epochs=1", "callbacks.dashboard=null", "hydra.run.dir=part")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: can't write {command.folder}/part: No space left on device.")
    assert "Traceback" not in outcome.out + outcome.err


def test_a_diverging_run_is_one_line(command):
    outcome = command(*LONG, "optimizer.lr=1e30", "trainer.gradient_clip_val=null", "scheduler=none", "logger=none")
    assert outcome.code == 1
    assert outcome.err.startswith("error: the training loss became nan in step ")
    assert outcome.err.count("\n") == 1
