"""A loss that is no number ends the training at once, and no checkpoint ever holds such weights."""

import math

import pytest
import torch
from helpers.resuming import Batches, train
from helpers.small import small_classifier, small_trainer
from lightning.pytorch.callbacks import Callback

from cifar_lightning.callbacks.finite_loss import FiniteLoss
from cifar_lightning.errors import UserError
from cifar_lightning.training.metrics import Sums

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


class Break(Callback):
    """Sets a weight to a value when a hook is called for the n-th time."""

    def __init__(self, hook, n, value=math.nan):
        self.calls, self.n, self.value = 0, n, value
        setattr(self, hook, self._count)

    def _count(self, trainer, pl_module, *_):
        self.calls += 1
        if self.calls == self.n:
            with torch.no_grad():
                pl_module.network[5].bias[0] = self.value


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_step_the_learning_rate_and_the_last_good_checkpoint_are_named(tmp_path, value):
    # Broken after 7 steps, so the eighth has the loss.
    with pytest.raises(UserError) as ending:
        train(tmp_path, more=[Break("on_train_batch_end", 7, value)])
    message = str(ending.value)
    assert message.startswith("the training loss became nan in step 8 (epoch 2, learning rate 0.01)")
    assert f"The last good checkpoint is {tmp_path / 'last.ckpt'}" in message
    assert "trainer.detect_anomaly=true" in message
    assert "\n" not in message
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 5
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


def test_in_the_first_epoch_there_is_no_checkpoint_to_name(tmp_path):
    with pytest.raises(UserError, match=r"in step 3 \(epoch 1, .*No checkpoint was written yet"):
        train(tmp_path, more=[Break("on_train_batch_end", 2)])
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize("validates", [True, False])
def test_weights_that_an_epochs_last_step_has_broken_are_not_saved(tmp_path, validates):
    what = "the validation loss became nan" if validates else "the weights hold NaN or infinity"
    with pytest.raises(UserError, match=rf"^{what} in step 10 \(epoch 2.*The last good checkpoint is .*last.ckpt"):
        train(tmp_path, more=[Break("on_train_batch_end", 10)], limit_val_batches=1.0 if validates else 0)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5


def test_where_looking_costs_time_it_looks_every_so_many_steps(monkeypatch):
    # As on a GPU, whose steps would have to be waited for.
    monkeypatch.setattr("lightning.pytorch.LightningModule.device", property(lambda _: torch.device("meta")))
    monkeypatch.setattr("cifar_lightning.training.classifier.Sums", lambda _: Sums(torch.device("cpu")))
    callbacks = [Break("on_train_batch_end", 1), FiniteLoss(every_n_steps=4)]
    with pytest.raises(UserError, match="in step 4 or up to 3 steps before"):
        small_trainer(callbacks=callbacks).fit(small_classifier(), Batches())


@pytest.mark.parametrize("n", [0, -3])
def test_the_interval_must_be_one_step_or_more(n):
    with pytest.raises(UserError, match=f"^callbacks.finite_loss.every_n_steps={n}: give 1 or more"):
        FiniteLoss(n)
