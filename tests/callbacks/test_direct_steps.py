"""Steps that Lightning does not see are the same steps, and it sees those that somebody asks for."""

import math

import pytest
import torch
from helpers.records import assert_identical
from helpers.resuming import ADAMW, KINDS, SCHEDULES, Shuffled, assert_same_run, stopped, train
from helpers.small import small_classifier, small_network, small_trainer
from helpers.stopping import AccidentAt, SignalAt
from lightning.pytorch.callbacks import Callback, Checkpoint, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from cifar_lightning.callbacks import direct_steps
from cifar_lightning.callbacks.direct_steps import DirectSteps
from cifar_lightning.callbacks.finite_loss import FiniteLoss
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_csv
from cifar_lightning.training.classifier import ImageClassifier

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")

EVERY_STEP = {"average", "accumulated"}  # kinds of training in which Lightning has to see it


class Seen(Callback):
    """Notes the steps after which Lightning calls its callbacks; there are five in an epoch."""

    may_miss_steps = True

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        assert trainer.accumulate_grad_batches > 1 or batch_idx == (trainer.global_step - 1) % 5
        self.steps.append(trainer.global_step)


class Unaware(Callback):
    """Counts its calls, and has never heard of steps that it might miss."""

    def __init__(self):
        self.calls = 0

    def on_before_optimizer_step(self, *_):
        self.calls += 1


class Twice(torch.optim.SGD):
    """Like LBFGS, asks for the loss more than once in a step."""

    def step(self, closure):
        closure()
        return super().step(closure)


def seen(callbacks=(), **keys):
    """The steps of two epochs that Lightning sees, if it need not see one for any time."""
    callback = Seen()
    trainer = small_trainer(
        callbacks=[DirectSteps(math.inf), callback, *callbacks],
        **{"max_epochs": 2, "log_every_n_steps": 0, "limit_val_batches": 0} | keys,
    )
    trainer.fit(small_classifier(), datamodule=Shuffled())
    return callback.steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_as_it_would_if_lightning_saw_every_step(tmp_path, kind):
    callback = Seen()
    direct = train(tmp_path / "direct", more=[DirectSteps(math.inf), callback], **KINDS[kind])
    plain = train(tmp_path / "plain", **KINDS[kind])
    last = direct[1].global_step
    assert (len(callback.steps) < last) == (kind not in EVERY_STEP)
    assert_same_run(direct, plain)
    a, b = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("direct", "plain"))
    for part in ("loops", "epoch", "global_step", "lr_schedulers"):
        assert_identical(a[part], b[part], part)


@pytest.mark.parametrize(
    "keys",
    [
        {"gradient_clip_val": 0.01},
        {"gradient_clip_val": 0.001, "gradient_clip_algorithm": "value"},
        {"precision": "bf16-mixed"},
        {"optimizer": {"_target_": f"{__name__}.Twice", "lr": 0.01}},
    ],
    ids=["norm clipped", "values clipped", "bfloat16", "loss asked for twice"],
)
def test_a_direct_step_is_lightnings_step(tmp_path, keys):
    direct = train(tmp_path / "direct", more=[DirectSteps(math.inf), callback := Seen()], **keys)
    assert callback.steps == [1, 5, 6, 10, 11, 15, 16, 20]
    assert_same_run(direct, train(tmp_path / "plain", **keys))


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({}, [1, 5, 6, 10]),
        ({"log_every_n_steps": 4}, [1, 4, 5, 6, 8, 10]),
        ({"max_steps": 8}, [1, 5, 6, 8]),
        ({"limit_train_batches": 3, "max_epochs": 1}, [1, 3]),
        ({"limit_val_batches": 1, "val_check_interval": 3}, [1, 3, 5, 6, 8, 10]),
        ({"limit_val_batches": 1, "val_check_interval": 4, "check_val_every_n_epoch": None}, [1, 4, 5, 6, 8, 10]),
    ],
)
def test_lightning_sees_the_steps_that_it_does_something_at(keys, steps):
    assert seen(**keys) == steps


@pytest.mark.parametrize(
    "keys",
    [
        {"callbacks": [Unaware()]},
        {"callbacks": [ModelCheckpoint(every_n_train_steps=3, save_top_k=0)], "enable_checkpointing": True},
        {"callbacks": [AccidentAt("on_after_backward", 99)]},
        {"profiler": "simple"},
        {"precision": "64-true"},
    ],
    ids=["hook", "checkpoints by steps", "hook of an object", "profiler", "precision"],
)
def test_lightning_sees_every_step_where_that_matters(tmp_path, keys):
    assert seen(default_root_dir=tmp_path, **keys) == list(range(1, 11))


def test_a_module_with_a_step_of_its_own_takes_all_of_them():
    class Own(ImageClassifier):
        def training_step(self, batch, batch_idx):
            return 2 * super().training_step(batch, batch_idx)

    module = small_classifier()
    module.__class__ = Own
    callback = Seen()
    trainer = small_trainer(callbacks=[DirectSteps(math.inf), callback], max_epochs=1, limit_val_batches=0)
    trainer.fit(module, datamodule=Shuffled())
    assert callback.steps == [1, 2, 3, 4, 5]


def test_lightning_sees_a_step_every_so_many_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(direct_steps.time, "perf_counter", lambda: now[0])
    network, callback = small_network(), Seen()
    network.register_forward_hook(lambda *_: now.__setitem__(0, now[0] + 1))  # a step takes a second
    trainer = small_trainer(callbacks=[DirectSteps(2), callback], max_epochs=2, limit_val_batches=0)
    trainer.fit(small_classifier(network), datamodule=Shuffled())
    assert callback.steps == [1, 4, 5, 6, 9, 10]


def test_the_curves_have_the_same_points(tmp_path):
    curves = []
    for name, more in (("direct", [DirectSteps(math.inf)]), ("plain", [])):
        torch.manual_seed(0)
        trainer = small_trainer(
            callbacks=[LearningRateMonitor(), *more], logger=CSVLogger(tmp_path, name), log_every_n_steps=3
        )
        scheduler = {"_target_": SCHEDULES + "cosine", "warmup_epochs": 1.5}
        trainer.fit(small_classifier(optimizer=ADAMW, scheduler=scheduler), datamodule=Shuffled())
        curves.append(read_csv(tmp_path / name / "version_0" / "metrics.csv"))
    assert len(curves[0]) > 10
    assert curves[0] == curves[1]


@pytest.mark.parametrize("n", [3, 4, 5])
def test_a_run_stopped_after_direct_steps_goes_on_as_if_never_stopped(tmp_path, monkeypatch, n):
    unseen_steps = direct_steps.unseen_steps
    monkeypatch.setattr(direct_steps, "unseen_steps", lambda trainer: min(1, unseen_steps(trainer)))
    monkeypatch.setattr(SignalAt, "may_miss_steps", True, raising=False)
    kind = KINDS["dropout"] | {"callbacks": [lambda: DirectSteps(math.inf)]}
    last = stopped(tmp_path, at=("on_train_batch_start", n), **kind)  # Lightning sees 1, 3, 5; 6, 8, 10; …
    assert torch.load(last, weights_only=True)["global_step"] == {3: 5, 4: 6, 5: 8}[n]
    assert_same_run(train(tmp_path, ckpt_path=last, **kind), train(tmp_path / "whole", **KINDS["dropout"]))


def test_after_an_accident_the_steps_before_it_are_counted(tmp_path):
    class Rescue(Checkpoint):
        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    class Accident(DirectSteps):
        def on_train_start(self, trainer, pl_module):
            super().on_train_start(trainer, pl_module)
            batch_loss, calls = pl_module.batch_loss, iter(range(100))
            pl_module.batch_loss = lambda batch: batch_loss(batch) if next(calls) != 8 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, more=[Accident(math.inf)], callbacks=[Rescue], **KINDS["dropout"])
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 8
    resumed = train(tmp_path, ckpt_path=tmp_path / "last.ckpt", more=[DirectSteps(math.inf)], **KINDS["dropout"])
    assert_same_run(resumed, train(tmp_path / "whole", **KINDS["dropout"]))


def test_a_loss_that_became_nan_in_a_direct_step_is_seen_with_the_next(tmp_path):
    class Break(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            with torch.no_grad():
                pl_module.network[5].bias[0] = math.nan if trainer.current_epoch == 1 else 0.0

    with pytest.raises(UserError, match=r"in step 6 \(epoch 2"):
        seen([Break(), FiniteLoss()])

    class BreakLater(Callback):
        may_miss_steps = True

        def on_train_batch_end(self, trainer, pl_module, *_):
            with torch.no_grad():
                pl_module.network[5].bias[0] = math.nan

    with pytest.raises(UserError, match=r"in step 5 or up to 3 steps before \(epoch 1"):
        seen([BreakLater(), FiniteLoss()])


def test_a_negative_time_is_refused():
    with pytest.raises(UserError, match=r"^callbacks.direct_steps.seconds=-1: give 0 or more"):
        DirectSteps(-1)
