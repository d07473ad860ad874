"""What a terminal shows while a run goes on, beside the line an epoch that History logs everywhere."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from cifar_lightning.callbacks.history import running

# How often in a second Lightning's thread looks whether to draw. Each epoch waits for its end, so until it next looks.
LOOKS = 50


class ProgressBar(RichProgressBar):
    """Rich's bar over one epoch, with the loss and accuracy of the epoch so far, drawn `refresh_rate` times a second.

    What an epoch gave is the line that `History` logs above it, the same as where output is piped. A drawing takes a
    millisecond or more from training, and the metrics of a step that is not drawn aren't asked for.
    """

    may_miss_steps = True

    def __init__(self, refresh_rate: int = 4) -> None:
        super().__init__(refresh_rate=LOOKS if refresh_rate else 0, leave=False)
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
