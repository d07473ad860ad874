"""Choose the checkpoint that a run tests, and find its validation metrics."""

import logging
import math
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError
from cifar_lightning.reporting import ledger
from cifar_lightning.training.classifier import ImageClassifier

log = logging.getLogger(__name__)


def check_test_batches(config: DictConfig, datamodule: ImageDataModule) -> None:
    """Raise UserError before training for a share of the test set at which Lightning would fail after it."""
    share = config.trainer.limit_test_batches
    if config.test and isinstance(share, float) and 0 < share * len(datamodule.test_dataloader()) < 1:
        raise UserError(f"trainer.limit_test_batches={share} is less than one batch: give a larger share, or a count")


def images_to_test(config: DictConfig, datamodule: ImageDataModule) -> int | None:
    """How many test images a run will look at; None for all of data of the user's own kind.

    A trial of one batch (fast_dev_run) leaves no result and does not count.
    """
    if not config.test or config.trainer.fast_dev_run:
        return 0
    if not isinstance(datamodule.test, Split):
        return None
    images, limit = len(datamodule.test), config.trainer.limit_test_batches
    if limit is None:
        return images
    batches = limit if isinstance(limit, int) else int(limit * math.ceil(images / datamodule.eval_batch_size))
    return min(images, batches * datamodule.eval_batch_size)


def ledger_to_note(config: DictConfig, trainer: L.Trainer, datamodule: ImageDataModule) -> Path | None:
    """The file where this process notes the run's look at test labels; None if it takes none.

    Raises UserError, before training, if the file can't be written.
    """
    if not trainer.is_global_zero or images_to_test(config, datamodule) == 0:
        return None
    file = Path(config.paths.log_dir) / ledger.NAME
    ledger.check_writable(file)
    return file


def best_checkpoint(trainer: L.Trainer) -> str | None:
    """The path of the best checkpoint by its monitor, else of the last one; None to test the weights in memory."""
    made = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.best_model_path]
    saved = [c for c in made if Path(c.best_model_path).is_file()]
    if lost := [c.best_model_path for c in made if c not in saved]:  # a checkpoint that was resumed elsewhere
        log.warning("%s no longer exists: the latest weights are tested", lost[0])
    monitored = [c for c in saved if c.monitor]
    return (monitored or saved)[0].best_model_path if saved else None


def validation_metrics(
    config: DictConfig,
    trainer: L.Trainer,
    module: L.LightningModule,
    datamodule: ImageDataModule,
    checkpoint: str | None,
) -> dict[str, float | None]:
    """val/acc and val/loss of the weights that are tested: as recorded during training, else measured now.

    Values are None where the weights were never validated. `checkpoint_epoch` is there only after training.
    """
    if config.train and isinstance(module, ImageClassifier):
        return _recorded(module, checkpoint)
    if not datamodule.has_validation:
        return {"val/acc": None, "val/loss": None}
    return dict(trainer.validate(module, datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)[0])


def _recorded(classifier: ImageClassifier, checkpoint: str | None) -> dict[str, float | None]:
    if checkpoint is None:
        step, validated, epoch = classifier.trainer.global_step, classifier.val_step, classifier.trainer.current_epoch
        means = {name: mean.item() for name, mean in classifier.val_means.items()}
    else:
        saved = read_checkpoint(checkpoint)
        resume = saved["cifar_lightning"]["resume"]
        step, validated, epoch = saved["global_step"], resume.get("val_step"), saved["epoch"] + 1
        means = resume["val_means"]
    metrics = {name: means.get(name) if validated == step else None for name in ("val/acc", "val/loss")}
    return {**metrics, "checkpoint_epoch": epoch}
