"""Add the chart layout, the network's graph and augmented images to TensorBoard at the start of training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from lightning.pytorch import loggers
from lightning.pytorch.callbacks import Callback
from torch import nn

from cifar_lightning.reporting import tensorboard

if TYPE_CHECKING:
    from cifar_lightning.training.classifier import ImageClassifier


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's logger without the scalar `epoch`, which would come first on TensorBoard's pages."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        kept = {name: value for name, value in metrics.items() if name != "epoch"}
        if kept:
            super().log_metrics(kept, step)


class Dashboard(Callback):
    """Adds the chart layout, the network's graph and a grid of `examples` augmented training images."""

    may_miss_steps = True

    def __init__(self, examples: int = 40) -> None:
        self.examples = examples

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, loggers.TensorBoardLogger)]
        if not trainer.is_global_zero or trainer.global_step > 0 or not writers:
            return
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        images, labels = datamodule.augmented_examples(self.examples)
        captions = [datamodule.class_names[label] for label in most_likely(labels).tolist()]
        for writer in writers:
            tensorboard.add_layout(writer, wrong_labels=getattr(datamodule, "true_labels", None) is not None)
            tensorboard.add_image_grid(writer, "augmented training images", images.numpy(), captions)
            example = pl_module.example_input_array
            # A sharded network must run in all processes at once.
            if isinstance(example, torch.Tensor) and not hasattr(pl_module.network, "unshard"):
                example = torch.zeros(1, *example.shape[1:], device=pl_module.device)
                model = repr(cast("ImageClassifier", pl_module).config.get("model"))
                tensorboard.add_graph(writer, cast(nn.Module, pl_module.network), example, key=model)


def most_likely(labels: torch.Tensor) -> torch.Tensor:
    """Class indices [N] of labels: indices [N], or soft targets [N, K]."""
    return labels.argmax(1) if labels.ndim == 2 else labels
