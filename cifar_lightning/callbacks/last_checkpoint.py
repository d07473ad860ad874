"""Save last.ckpt, from which a run resumes exactly; and write any checkpoint atomically."""

import io
import math
import os
import time
import uuid
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cifar_lightning.errors import UserError
from cifar_lightning.training.lightning_internals import accumulates

BATCHES_BETWEEN_DECISIONS = 8  # of several processes, on whether to save or to stop


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint next to its destination and renames it, so that there is always a complete one.

    Lightning writes it to the system's temporary folder, from which a rename is not atomic across file systems.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # left by a run that was killed
            left.unlink()
        # A new file with an unpredictable name, so that no link in a received folder is followed.
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        content = io.BytesIO()
        torch.save(checkpoint, content)  # not into the file, as torch would hide the error of a full disk
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


class LastCheckpoint(ModelCheckpoint):
    """Saves last.ckpt after each epoch, every `every_minutes` within one, and when `max_steps` or `max_time` ends it.

    every_minutes: None for no checkpoint within an epoch.
    """

    may_miss_steps = True

    def __init__(self, dirpath: str | Path, every_minutes: float | None = 10) -> None:
        if every_minutes is not None and every_minutes < 0:
            raise UserError(f"callbacks.last_checkpoint.every_minutes={every_minutes}: must be at least 0, or null")
        super().__init__(dirpath, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
        self._seconds = math.inf if every_minutes is None else 60 * every_minutes
        self._next = math.inf

    def save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, unless done since the last step."""
        super().on_train_epoch_end(trainer, pl_module)
        self._next = time.monotonic() + self._seconds

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adapt the paths of the best checkpoint after the run's folder was moved; Lightning would discard them."""
        for state in checkpoint["callbacks"].values():
            if "best_k_models" in state and (Path(str(self.dirpath)) / Path(state["best_model_path"]).name).is_file():
                _move(state, state["dirpath"], str(self.dirpath))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._next = time.monotonic() + self._seconds
        stopping = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
        # Of Lightning's own only `stopped_epoch` is known: 0 also where it stopped in the first epoch.
        if any(getattr(callback, "stops", callback.stopped_epoch > 0) for callback in stopping):
            trainer.should_stop = True  # as it was when the checkpoint was written

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = agreed(trainer, time.monotonic() >= self._next, batch_idx)
        cut_off = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        if (due or cut_off) and can_resume_after(trainer, batch_idx):
            self.save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.save(trainer, pl_module)


def _move(state: dict[str, Any], old: str, new: str) -> None:
    """Replace a folder in the paths of a ModelCheckpoint's state."""
    for key in ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = state[key].replace(old, new)
    state["best_k_models"] = {path.replace(old, new): score for path, score in state["best_k_models"].items()}


def can_resume_after(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a run that is saved after this batch can be resumed exactly.

    Not between batches whose gradients are accumulated, and not before a validation, which Lightning would skip.
    """
    by_epochs = trainer.check_val_every_n_epoch is not None
    batches = batch_idx + 1 if by_epochs else trainer.fit_loop.epoch_loop.batch_progress.total.ready
    followed_by_validation = batches % (trainer.val_check_batch or math.inf) == 0
    return not (trainer.is_last_batch or followed_by_validation or accumulates(trainer))


def agreed(trainer: L.Trainer, wanted: bool, batch_idx: int = -1) -> bool:
    """Whether any process wants it: the same result in all of them, decided every few batches."""
    if trainer.world_size == 1:
        return wanted
    return (batch_idx + 1) % BATCHES_BETWEEN_DECISIONS == 0 and trainer.strategy.reduce_boolean_decision(
        wanted, all=False
    )
