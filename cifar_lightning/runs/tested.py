"""Which weights a run tests, and what validation said of those."""

import logging
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.training.classifier import ImageClassifier

log = logging.getLogger(__name__)


def best_checkpoint(trainer: L.Trainer) -> str | None:
    """The checkpoint to test: the best by its monitor, else the last one, else none (the weights in memory)."""
    made = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.best_model_path]
    saved = [c for c in made if Path(c.best_model_path).is_file()]
    if lost := [c.best_model_path for c in made if c not in saved]:  # a checkpoint that went on alone, elsewhere
        log.warning("%s is not there any more: the latest weights are tested", lost[0])
    monitored = [c for c in saved if c.monitor]
    return (monitored or saved)[0].best_model_path if saved else None


def recorded_validation(classifier: ImageClassifier, checkpoint: str | None) -> dict[str, float | None]:
    """val/acc and val/loss of the very weights that are tested, and their epoch; None where no validation saw them."""
    if checkpoint is None:  # those in memory
        step, validated, epoch = classifier.trainer.global_step, classifier.val_step, classifier.trainer.current_epoch
        means = {name: mean.item() for name, mean in classifier.val_means.items()}
    else:
        saved = read_checkpoint(checkpoint)
        resume = saved["cifar_lightning"]["resume"]
        step, validated, epoch = saved["global_step"], resume.get("val_step"), saved["epoch"] + 1
        means = resume["val_means"]
    figures = {name: means.get(name) if validated == step else None for name in ("val/acc", "val/loss")}
    return {**figures, "checkpoint_epoch": epoch}


def validate(
    trainer: L.Trainer, module: L.LightningModule, datamodule: ImageDataModule, checkpoint: str | None
) -> dict[str, float | None]:
    """The validation metrics of a checkpoint, measured now; None where there is no validation split."""
    if not datamodule.has_validation:
        return {"val/acc": None, "val/loss": None}
    metrics = trainer.validate(module, datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)
    return dict(metrics[0])
