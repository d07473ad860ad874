"""ReduceLROnPlateau: checked before training, and stepped at the end of an epoch, before its checkpoint is written.

Lightning steps it after the checkpoint, and not at all in an epoch that was resumed.
"""

from collections.abc import Iterator

import lightning as L
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cifar_lightning.errors import UserError


def check_validation(trainer: L.Trainer, monitor: str) -> None:
    """Raise UserError if there will be no validation to log this metric."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    if not (trainer.enable_validation and getattr(datamodule, "has_validation", True)):
        raise UserError(
            f"scheduler.monitor={monitor} needs a validation split: set data.val_size, or monitor train/loss"
        )


def never_stepped(trainer: L.Trainer) -> Iterator[str]:
    """A line for each plateau schedule whose metric was never measured."""
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, ReduceLROnPlateau) and config.scheduler.last_epoch == 0:
            yield f"scheduler=plateau had no {config.monitor} to check: training ended before it was measured"


def step_plateaus(trainer: L.Trainer) -> Iterator[str]:
    """Step each plateau schedule whose metric was logged; yields a line for each lowered learning rate."""
    epochs = trainer.current_epoch + 1
    for config in trainer.lr_scheduler_configs:
        plateau = config.scheduler
        # An epoch that max_steps or max_time ends early has no validation.
        is_logged = config.monitor in trainer.callback_metrics
        if isinstance(plateau, ReduceLROnPlateau) and is_logged and plateau.last_epoch < epochs // config.frequency:
            before = plateau.optimizer.param_groups[0]["lr"]
            plateau.step(trainer.callback_metrics[str(config.monitor)])
            if (after := plateau.optimizer.param_groups[0]["lr"]) < before:
                why = f"{config.monitor} has not improved for more than patience={plateau.patience}"
                yield f"after epoch {epochs}: learning rate lowered from {before:.3g} to {after:.3g}, as {why}"
