"""Store what is needed to use the weights in checkpoints of the user's own LightningModule."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class Description(Callback):
    """Adds the config, class names, normalization and image shape to each checkpoint, in plain types.

    ImageClassifier does so itself.
    """

    may_miss_steps = True

    def __init__(
        self,
        config: Mapping[str, Any],
        class_names: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        image_shape: Sequence[int],
    ) -> None:
        self._description = {
            "config": dict(config), "class_names": list(class_names), "mean": list(mean), "std": list(std),
            "image_shape": list(image_shape),
        }  # fmt: skip

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.setdefault("cifar_lightning", self._description)
