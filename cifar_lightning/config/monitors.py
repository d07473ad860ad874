"""Check before a run that the metrics monitored by callbacks and schedules will be logged in time."""

import math
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from cifar_lightning.data.sets import SETS, VAL_SHARE
from cifar_lightning.errors import UserError

METRICS = ("train/loss", "train/acc", "val/loss", "val/acc")  # logged by ImageClassifier during training
NOISE_METRICS = ("train/acc_clean", "train/acc_flipped", "train/memorized")  # and by WrongLabels, where some are


def check_monitors(config: DictConfig) -> None:
    """Raise UserError for a monitored metric that does not exist, or is first logged after it is needed."""
    trainer, batches = config.trainer, batches_per_epoch(config)
    interval, by_epochs = trainer.val_check_interval, trainer.check_val_every_n_epoch is not None
    longer_than_an_epoch = type(interval) is int and batches is not None and interval > batches
    if longer_than_an_epoch and by_epochs:
        raise UserError(
            f"trainer.val_check_interval={interval}: an epoch has only {batches} batches; give a share of an epoch, or "
            "count batches across epochs with trainer.check_val_every_n_epoch=null"
        )
    if not by_epochs and type(interval) is not int:
        raise UserError(
            "trainer.check_val_every_n_epoch=null validates every trainer.val_check_interval batches: give an integer"
        )
    never = why_no_validation(config)
    for key, monitor in [("optimized_metric", str(config.get("optimized_metric"))), *monitors(config)]:
        if monitor.startswith("test"):
            raise UserError(
                f"{key}={monitor}: nothing is chosen by test data, which would bias its result; try val/acc"
            )
    for key, monitor in monitors(config):
        if monitor not in METRICS and only_our_metrics(config):
            raise UserError(f"{key}={monitor}: there is no such metric; choose from {', '.join(METRICS)}")
        if monitor.startswith("val/") and never:
            raise UserError(f"{key}={monitor} needs validation, but {never}")
        if monitor.startswith("val/") and key == "scheduler.monitor" and longer_than_an_epoch:
            raise UserError(
                f"{key}={monitor} is needed after each epoch of {batches} batches, but "
                f"trainer.val_check_interval={interval} validates less often: monitor train/loss, or validate earlier"
            )


def why_no_validation(config: DictConfig) -> str | None:
    """Why there will be no validation during training; None if there will be one."""
    trainer, every, epochs = config.trainer, config.trainer.check_val_every_n_epoch, config.trainer.max_epochs
    if config.data.get("val_size") == 0 and not config.data.get("folds") and not is_own(config):
        return "there is no validation split: set data.val_size above 0"
    if trainer.limit_val_batches == 0:
        return "trainer.limit_val_batches=0 turns it off"
    if every and epochs is not None and 0 < epochs < every:
        return f"trainer.check_val_every_n_epoch={every} comes after trainer.max_epochs={epochs}"
    batches = batches_per_epoch(config)
    interval, in_all = trainer.val_check_interval, (epochs or 0) * (batches or 0)
    if every is None and 0 < in_all < interval:
        return f"trainer.val_check_interval={interval} comes after the last of {in_all} batches"
    return None


def monitors(config: DictConfig) -> Iterator[tuple[str, str]]:
    """The keys that name a monitored metric; without validation a ModelCheckpoint saves without one."""
    for name, keys in config.callbacks.items():
        checkpoint = OmegaConf.is_dict(keys) and str(keys.get("_target_")).endswith(".ModelCheckpoint")
        if OmegaConf.is_dict(keys) and keys.get("monitor") and not (checkpoint and why_no_validation(config)):
            yield f"callbacks.{name}.monitor", str(keys.monitor)
    if monitor := OmegaConf.select(config, "scheduler.monitor"):
        yield "scheduler.monitor", str(monitor)


def only_our_metrics(config: DictConfig) -> bool:
    """Whether all callbacks are Lightning's or ours, so that no other metrics are logged."""
    targets = [str(keys.get("_target_")) for keys in config.callbacks.values() if OmegaConf.is_dict(keys)]
    return all(target.startswith(("lightning.", "cifar_lightning.")) for target in targets)


def training_images(config: DictConfig) -> int | None:
    """Number of images before the validation split; None for the user's own data."""
    data_set = None if is_own(config) else SETS.get(config.data.get("name"))
    return data_set.train_images if data_set else None


def is_own(config: DictConfig) -> bool:
    """Whether the data come from the user's own LightningDataModule."""
    return not str(config.data.get("_target_")).startswith("cifar_lightning.")


def validation_images(config: DictConfig, total: int) -> int:
    if folds := config.data.get("folds"):
        return total // folds
    size = VAL_SHARE if config.data.val_size is None else config.data.val_size
    return size if isinstance(size, int) else round(size * total)


def training_split_size(config: DictConfig) -> int | None:
    """Images of the training split after the validation split and `train_size`; None where unknown."""
    total = training_images(config)
    if total is None or config.data.get("imbalance") is not None:
        return None
    rest, size = total - validation_images(config, total), config.data.get("train_size")
    return rest if size is None else size if isinstance(size, int) else round(size * rest)


def batches_per_epoch(config: DictConfig) -> int | None:
    """Training batches per epoch in one process; None if unknown before the data is read."""
    images, trainer = training_split_size(config), config.trainer
    if images is None or trainer.devices != 1 or trainer.num_nodes != 1:
        return None
    share = images / config.data.batch_size
    batches = math.floor(share) if config.data.drop_last else math.ceil(share)
    limit = trainer.overfit_batches or trainer.limit_train_batches
    if limit is None:
        return batches
    return min(batches, limit) if type(limit) is int else int(batches * limit)
