"""Show a progress bar on a terminal, beside the line per epoch that History logs."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from cifar_lightning.callbacks.history import running

# How often per second Lightning's thread checks whether to draw. The end of each epoch waits for the next check.
CHECKS = 50


class ProgressBar(RichProgressBar):
    """Rich's bar over one epoch, with the loss and accuracy of the epoch so far, drawn `refresh_rate` times per second.

    The metrics of a finished epoch are in the line that `History` logs above it. Drawing takes a millisecond or more
    from training, so metrics are computed only for steps that are drawn.
    """

    may_miss_steps = True

    def __init__(self, refresh_rate: int = 4) -> None:
        super().__init__(refresh_rate=CHECKS if refresh_rate else 0, leave=False)
        self._between = 1 / max(refresh_rate, 1)  # seconds
        self._start, self._drawn = 0.0, 0.0
        self._images = 0  # trained on before this epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._images = getattr(pl_module, "images_trained", 0)
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now - self._drawn >= self._between or trainer.is_last_batch:
            self._drawn = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        images = (getattr(pl_module, "images_trained", 0) - self._images) * trainer.world_size
        if not trainer.training or not images:
            return {}
        return {"": f"{running(pl_module)}  {images / (time.perf_counter() - self._start):,.0f}/s"}

    def _get_train_description(self, current_epoch: int) -> str:
        of = f"/{self.trainer.max_epochs}" if (self.trainer.max_epochs or 0) > 0 else ""
        return f"epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))
