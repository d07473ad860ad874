"""Stop training when the loss is NaN or infinite, before it is written into a checkpoint."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from cifar_lightning.errors import UserError
from cifar_lightning.training.finite import not_finite


class FiniteLoss(Callback):
    """Raises UserError if the loss is NaN or infinite: at once on a CPU, else within `every_n_steps`.

    It checks the sum over the epoch so far, in which NaN and infinity persist, so that a GPU need not wait for each
    step and steps taken directly (direct_steps.py) are included.
    """

    may_miss_steps = True

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise UserError(f"callbacks.finite_loss.every_n_steps={every_n_steps}: give 1 or more")
        self.every_n_steps = every_n_steps
        self._checked = 0  # step of the latest check

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._checked = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = trainer.global_step - self._checked
        if pl_module.device.type == "cpu" or steps >= self.every_n_steps or trainer.is_last_batch:
            self._checked = trainer.global_step
            sums: Any = getattr(pl_module, "train_sums", None)
            if sums is None:  # the user's own module
                return
            loss = sums.loss.item()
            if not math.isfinite(loss):
                when = f" or up to {steps - 1} steps before" if steps > 1 else ""
                raise UserError(not_finite(trainer, f"the training loss became {loss}", when))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = float(trainer.callback_metrics.get("val/loss", 0.0))
        if trainer.state.fn == "fit" and not math.isfinite(loss):
            raise UserError(not_finite(trainer, f"the validation loss became {loss}"))
