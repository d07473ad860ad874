"""What is read and changed of Lightning beyond its public interface, and the promise that needs it.

Resuming in mid-epoch bit for bit, and steps that Lightning does not see (callbacks/direct_steps.py), need its loops'
counters. tests/training/test_lightning_internals.py fails where a new version of Lightning changes them.
"""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


def accumulates(trainer: L.Trainer) -> bool:
    """Whether the current batch's gradients are added to those of the next: no optimizer step follows it."""
    return trainer.fit_loop._should_accumulate()


def may_stop(trainer: L.Trainer) -> bool:
    """Whether `min_epochs` and `min_steps` are over."""
    return trainer.fit_loop._can_stop_early


def saves_within_epochs(callback: ModelCheckpoint) -> bool:
    return bool(callback._every_n_train_steps or callback._train_time_interval)


def set_up_loader_again(trainer: L.Trainer) -> None:
    """Counting the steps has set the loader up, before it could be given its position in the epoch."""
    trainer.fit_loop._combined_loader = None


def count_steps(trainer: L.Trainer, steps: int, step_schedulers: int) -> None:
    """Put Lightning's counters to where they are after so many steps of its own."""
    fetcher, loop = trainer.fit_loop._data_fetcher, trainer.fit_loop.epoch_loop
    if not steps or fetcher is None:
        return
    fetcher.fetched += steps
    loop.batch_progress.increment_by(steps)
    loop.automatic_optimization.optim_progress.optimizer.step.increment_by(steps)
    loop.automatic_optimization.optim_progress.optimizer.zero_grad.increment_by(steps)
    loop.scheduler_progress.increment_by(steps * step_schedulers)
    loop._batches_that_stepped += steps


def leave_finished_epoch(trainer: L.Trainer) -> None:
    """Under `max_steps` Lightning would go through the end of an epoch again that had ended."""
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        for part in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
            part._restarting = False
            part.reset_restart_stage()


def repeat_validation(fit_loop: dict[str, Any]) -> None:
    """Let a run that is saved within a validation begin that validation anew.

    This is how Lightning tells that one was interrupted; it would go on with the batch after.
    """
    progress = fit_loop["epoch_loop.val_loop.batch_progress"]
    nothing = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
    progress.update(current=nothing, total=nothing | {"ready": 1, "started": 1}, is_last_batch=False)
