"""Measure after each epoch what was learnt from training images whose labels are known to be wrong."""

from typing import TYPE_CHECKING

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from cifar_lightning.config.monitors import NOISE_METRICS
from cifar_lightning.training.classifier import ImageClassifier

if TYPE_CHECKING:
    from cifar_lightning.data.datamodule import ImageDataModule

MOST_IMAGES = 5_000  # of each kind, so that it takes a few percent of an epoch


class WrongLabels(Callback):
    """Logs accuracies on training images without augmentation, in evaluation mode, with the weights as trained.

    train/acc_clean: of the images with right labels; train/acc_flipped: of those with wrong ones, by their true labels;
    train/memorized: the share of the latter for which the wrong label is predicted (Liu et al. 2020, arXiv 2007.00151).
    At most MOST_IMAGES of each, always the same.
    """

    may_miss_steps = True

    def __init__(self, data: "ImageDataModule") -> None:
        assert data.true_labels is not None
        self.data = data
        wrong = data.train.labels != data.true_labels
        self.clean, self.flipped = (some.nonzero()[:MOST_IMAGES, 0] for some in (~wrong, wrong))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, ImageClassifier):
            values = torch.stack(self._measured(pl_module))
            metrics = dict(zip(NOISE_METRICS, values, strict=True))
            pl_module.log_dict(metrics, logger=False, sync_dist=True)
            pl_module.write(metrics)

    def _measured(self, module: ImageClassifier) -> list[Tensor]:
        true, given = self.data.true_labels, self.data.train.labels
        assert true is not None
        clean, flipped = (self._predictions(module, rows) for rows in (self.clean, self.flipped))
        hits = [clean == true[self.clean], flipped == true[self.flipped], flipped == given[self.flipped]]
        return [hit.double().mean() for hit in hits]

    @torch.no_grad()
    def _predictions(self, module: ImageClassifier, rows: Tensor) -> Tensor:
        was_training = module.network.training
        module.network.eval()
        try:
            batches = self.data.train.images[rows].split(self.data.eval_batch_size)
            return torch.cat([module(batch.to(module.device)).argmax(1).cpu() for batch in batches])
        finally:
            module.network.train(was_training)
