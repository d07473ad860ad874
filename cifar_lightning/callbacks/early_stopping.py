"""Early stopping that decides again at each check after `trainer.min_epochs`."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping

from cifar_lightning.training.classifier import ImageClassifier


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, but a stop before `min_epochs` (or `min_steps`) is withdrawn at the next check.

    Lightning would stop as soon as these are reached, even if the metric has improved since.
    """

    may_miss_steps = True
    best_epoch = 0  # counted from 1
    _stops = False  # whether the latest check asked to stop

    def _run_early_stopping_check(self, trainer: L.Trainer) -> None:
        if self._stops or self.stopped_epoch:  # the latter after a resume
            trainer.should_stop, self.stopped_epoch = False, 0
        before, best = trainer.should_stop, self.best_score.clone()
        super()._run_early_stopping_check(trainer)
        self._stops = trainer.should_stop and not before
        if not best.equal(self.best_score):
            self.best_epoch = trainer.current_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best_epoch = state_dict.get("best_epoch", 0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._stops and isinstance(pl_module, ImageClassifier):
            pl_module.announce(
                f"after epoch {self.stopped_epoch + 1}: stopped early, as {self.monitor} was best "
                f"({float(self.best_score):.4f}) in epoch {self.best_epoch}"
            )
