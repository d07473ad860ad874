"""All access to Lightning's private attributes.

Bit-exact resume in mid-epoch, and steps that bypass Lightning (callbacks/direct_steps.py), need its loops' counters.
tests/training/test_lightning_internals.py fails if a new version of Lightning changes them.
"""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


def accumulates(trainer: L.Trainer) -> bool:
    """Whether the current batch's gradients are accumulated, so that no optimizer step follows it."""
    return trainer.fit_loop._should_accumulate()


def may_stop(trainer: L.Trainer) -> bool:
    """Whether `min_epochs` and `min_steps` have been reached."""
    return trainer.fit_loop._can_stop_early


def saves_within_epochs(callback: ModelCheckpoint) -> bool:
    return bool(callback._every_n_train_steps or callback._train_time_interval)


def set_up_loader_again(trainer: L.Trainer) -> None:
    """Discard the loader that counting the steps created before its position in the epoch was restored."""
    trainer.fit_loop._combined_loader = None


def count_steps(trainer: L.Trainer, steps: int, step_schedulers: int) -> None:
    """Advance Lightning's counters as if it had done this many steps itself."""
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
    """With `max_steps` Lightning would repeat the end of a finished epoch after a resume."""
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        for each in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
            each._restarting = False
            each.reset_restart_stage()


def repeat_validation(fit_loop: dict[str, Any]) -> None:
    """Let a run that was saved during validation repeat that validation from its start.

    Lightning takes these counters for an interrupted validation, which it would otherwise continue.
    """
    progress = fit_loop["epoch_loop.val_loop.batch_progress"]
    nothing = dict.fromkeys(("ready", "started", "processed", "completed"), 0)
    progress.update(current=nothing, total=nothing | {"ready": 1, "started": 1}, is_last_batch=False)
