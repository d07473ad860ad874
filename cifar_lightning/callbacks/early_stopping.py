"""Early stopping that decides again at each check after `trainer.min_epochs`."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from cifar_lightning.training.classifier import ImageClassifier


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, but a stop before `min_epochs` (or `min_steps`) is withdrawn at the next check.

    Lightning would stop as soon as these are reached, even if the metric has improved since.
    """

    may_miss_steps = True
    best_epoch = 0  # counted from 1
    stops = False  # whether the latest check asked to stop; `stopped_epoch` is 0 also for a stop in the first epoch

    def _run_early_stopping_check(self, trainer: L.Trainer) -> None:
        if self.stops:
            trainer.should_stop, self.stopped_epoch = False, 0
        before, best = trainer.should_stop, self.best_score.clone()
        super()._run_early_stopping_check(trainer)
        self.stops = trainer.should_stop and not before
        if not best.equal(self.best_score):
            self.best_epoch = trainer.current_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best_epoch": self.best_epoch, "stops": self.stops}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.best_epoch, self.stops = state_dict["best_epoch"], state_dict["stops"]

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, ImageClassifier):
            return
        if self.stops:
            why = f"{self.monitor} was best ({float(self.best_score):.4f}) in epoch {self.best_epoch}"
            if self.stopping_reason is not EarlyStoppingReason.PATIENCE_EXHAUSTED:  # a threshold, or not finite
                reason = str(self.stopping_reason_message).partition(". ")[0]
                why = reason[:1].lower() + reason[1:]
            pl_module.announce(f"after epoch {self.stopped_epoch + 1}: stopped early, as {why}")
        elif not self.best_score.isfinite() and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            pl_module.announce(f"early stopping had no {self.monitor} to check: training ended before it was measured")
