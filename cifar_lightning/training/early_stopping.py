"""Early stopping that `trainer.min_epochs` puts off and does not merely delay."""

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping


class EarlyStopping(LightningEarlyStopping):
    """Lightning's, but each check decides anew.

    Lightning keeps a stop that comes before `min_epochs` (or `min_steps`) and carries it out as soon as these are over,
    though the metric has improved since.
    """

    may_miss_steps = True
    _stops = False  # whether its latest check asked for the end

    def _run_early_stopping_check(self, trainer: L.Trainer) -> None:
        if self._stops or self.stopped_epoch:  # the latter where the run was resumed since
            trainer.should_stop, self.stopped_epoch = False, 0
        before = trainer.should_stop
        super()._run_early_stopping_check(trainer)
        self._stops = trainer.should_stop and not before
