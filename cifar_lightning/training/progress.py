"""What a person sees on a terminal while a run goes on; where output is piped, History logs a line an epoch instead."""

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelSummary, RichModelSummary, RichProgressBar


def model_summary(max_depth: int = 3) -> ModelSummary:
    """A table of the layers with their output shapes and parameters, drawn by Rich on a terminal."""
    return RichModelSummary(max_depth=max_depth) if sys.stdout.isatty() else ModelSummary(max_depth=max_depth)


# How often in a second Lightning's thread looks whether to draw. Each epoch waits for its end, so until it next looks.
LOOKS = 50


class ProgressBar(RichProgressBar):
    """Rich's bar with the training speed in images per second beside the metrics, drawn `refresh_rate` times a second.

    A drawing takes a millisecond or more from training, and the figures of a step that is not drawn aren't asked for.
    """

    may_miss_steps = True

    def __init__(self, refresh_rate: int = 4) -> None:
        super().__init__(refresh_rate=LOOKS if refresh_rate else 0, leave=True)
        self._between = 1 / max(refresh_rate, 1)  # seconds
        self._start, self._drawn = 0.0, 0.0
        self._images = 0  # trained on before this epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._images = pl_module.images_trained  # type: ignore[assignment]
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now - self._drawn >= self._between or trainer.is_last_batch:
            self._drawn = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
        images = (pl_module.images_trained - self._images) * trainer.world_size  # type: ignore[operator]
        if trainer.training and images:
            metrics["images/s"] = f"{images / (time.perf_counter() - self._start):,.0f}"
        return metrics
