"""What a person sees on a terminal while a run goes on; where output is piped, History logs a line an epoch instead."""

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelSummary, RichModelSummary, RichProgressBar


def model_summary(max_depth: int = 3) -> ModelSummary:
    """A table of the layers with their output shapes and parameters, drawn by Rich on a terminal."""
    return RichModelSummary(max_depth=max_depth) if sys.stdout.isatty() else ModelSummary(max_depth=max_depth)


class ProgressBar(RichProgressBar):
    """Rich's bar with the training speed in images per second beside the metrics."""

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self._images, self._start = 0, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._images, self._start = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[1]) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
        if trainer.training and self._images:
            metrics["images/s"] = f"{self._images / (time.perf_counter() - self._start):,.0f}"
        return metrics
