"""`trainer.max_time`: end training after a duration, as `trainer.max_steps` does after a step."""

import logging
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer

from cifar_lightning.callbacks.last_checkpoint import agreed, can_resume_after
from cifar_lightning.training.lightning_internals import may_stop

log = logging.getLogger(__name__)


class TimeLimit(Timer):
    """Ends training after `duration` (DD:HH:MM:SS of training), at a step from which it can be resumed exactly.

    Lightning's Timer would validate in mid-epoch and might keep that as the best checkpoint, so that a resumed run
    would differ from an uninterrupted one.
    """

    may_miss_steps = True

    def __init__(self, duration: Any) -> None:
        super().__init__(duration, interval="epoch")

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        remaining, batch_idx = self.time_remaining(), args[-1] if args else kwargs["batch_idx"]
        over = agreed(trainer, remaining is not None and remaining <= 0, batch_idx)
        if over and may_stop(trainer) and can_resume_after(trainer, batch_idx):
            log.info("trainer.max_time reached after step %d", trainer.global_step)
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step
