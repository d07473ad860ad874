"""Refuse Lightning callbacks that can't work here, and name the alternative."""

from collections.abc import Iterable

from lightning.pytorch import callbacks as lightning
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from cifar_lightning.errors import UserError

REFUSED: dict[type[Callback], str] = {
    lightning.StochasticWeightAveraging: "it sets the average after the last checkpoint, so other weights would be "
    "saved and tested; use swa_start=0.75, or lightning.pytorch.callbacks.WeightAveraging",
    lightning.BatchSizeFinder: "the batch size belongs to the experiment; find one with the command batch_size_find, "
    "then set data.batch_size",
    lightning.LearningRateFinder: "the learning rate belongs to the experiment; find one with the command lr_find, "
    "then set optimizer.lr",
    lightning.BackboneFinetuning: "the networks here have no attribute 'backbone'; use model.freeze, or "
    "optimizer.groups for learning rates of single layers",
    lightning.SpikeDetection: "it does not run with this version of Lightning; callbacks.finite_loss ends a run whose "
    "loss is NaN or infinite",
}
ABSTRACT = (lightning.BaseFinetuning,)


def check_callbacks(callbacks: Iterable[Callback], config: DictConfig) -> None:
    """Raise UserError for a callback that would fail during training, or whose result would be lost."""
    for callback in callbacks:
        name = type(callback).__name__
        for refused, why in REFUSED.items():
            if isinstance(callback, refused):
                raise UserError(f"{name}: {why}")
        if type(callback) in ABSTRACT:
            raise UserError(f"{name}: it is a base class; use a subclass")
        if isinstance(callback, lightning.ModelPruning) and config.channels_last:
            raise UserError(f"{name}: it flattens weights with view, which needs channels_last=false")
        if isinstance(callback, lightning.DeviceStatsMonitor) and not config.logger:
            raise UserError(f"{name}: it needs a logger, such as logger=csv")
