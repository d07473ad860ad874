"""What is needed of Lightning beyond its public interface: a test fails where a new version changes it."""

import pytest
import torch
from helpers.small import Batches, small_classifier, small_trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from cifar_lightning.training import lightning_internals as internals


class Ask(Callback):
    """What `question(trainer)` answers at the end of each batch."""

    def __init__(self, question):
        self.question, self.answers = question, []

    def on_train_batch_end(self, trainer, *_):
        self.answers.append(self.question(trainer))


def asked(question, **keys):
    ask = Ask(question)
    small_trainer(callbacks=[ask], max_epochs=2, **keys).fit(small_classifier(), Batches(24, 8))
    return ask.answers


def test_lightning_says_which_batches_are_accumulated():
    # Asked after a batch: whether the next step is still to come. Three batches an epoch, two of them a step.
    assert asked(internals.accumulates, accumulate_grad_batches=2) == [True, False, False] * 2


def test_lightning_says_when_the_least_length_is_over():
    assert asked(internals.may_stop, min_epochs=2) == [False] * 6
    assert asked(internals.may_stop) == [True] * 6


@pytest.mark.parametrize(
    ("keys", "within"), [({}, False), ({"every_n_train_steps": 5}, True), ({"every_n_epochs": 2}, False)]
)
def test_lightning_says_when_a_checkpoint_is_saved(keys, within):
    assert internals.saves_within_epochs(ModelCheckpoint(**keys)) == within


def test_counters_put_forward_are_those_of_steps_that_were_taken():
    def counters(trainer):
        loop = trainer.fit_loop.epoch_loop
        return trainer.global_step, loop.batch_progress.state_dict(), loop.scheduler_progress.state_dict()

    taken = asked(counters)

    def put_forward(trainer):
        if trainer.global_step == 1:
            internals.count_steps(trainer, 1, 0)
        return counters(trainer)

    assert asked(put_forward)[0] == taken[1]


def test_a_validation_that_was_cut_off_begins_anew(tmp_path):
    trainer = small_trainer(max_epochs=1)
    trainer.fit(small_classifier(), Batches(24, 8), Batches(16, 8))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loops = torch.load(tmp_path / "a.ckpt", weights_only=True)["loops"]["fit_loop"]
    internals.repeat_validation(loops)
    progress = loops["epoch_loop.val_loop.batch_progress"]
    assert progress["current"]["completed"] == 0
    assert progress["total"]["ready"] > progress["total"]["completed"]  # which Lightning takes for an interruption
