"""The objects of a run, each built from its group of the config."""

import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from pydoc import ErrorDuringImport, locate
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from cifar_lightning.callbacks.last_checkpoint import WholeFiles
from cifar_lightning.callbacks.refused import check_callbacks
from cifar_lightning.callbacks.time_limit import TimeLimit
from cifar_lightning.config.compose import conf_dir, instantiate, plain
from cifar_lightning.config.monitors import is_own, why_no_validation
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.own import adopted
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.training.precision import resolve_precision
from cifar_lightning.training.profiling import NoProfiler


def build_datamodule(config: DictConfig) -> Any:
    """The data: an ImageDataModule, or a LightningDataModule of the user's own with the same attributes."""
    if is_own(config):
        datamodule = instantiate(plain(config.data))
        if not isinstance(datamodule, L.LightningDataModule):
            raise UserError(
                f"data._target_={config.data._target_}: expected a LightningDataModule, got {type(datamodule).__name__}"
            )
        return adopted(datamodule)
    settings = {key: value for key, value in plain(config.data).items() if key != "_target_"}
    transforms = []
    for name, transform in config.augmentation.transforms.items():
        try:
            transforms.append(instantiate(plain(transform)))
        except UserError as error:
            raise UserError(f"augmentation.transforms.{name}: {error}") from error
    try:
        return ImageDataModule(
            **settings, pipeline=config.augmentation.pipeline, transforms=transforms, seed=config.seed
        )
    except TypeError as error:
        raise UserError(f"data: {first_line(error)}") from error


def fitted(model: Mapping[str, Any], datamodule: Any) -> dict[str, Any]:
    """The model's config with what its network takes from the data: classes, channels and size of the images."""
    channels, height, _ = datamodule.image_shape
    given = {"num_classes": len(datamodule.class_names), "in_channels": channels, "input_size": height}
    return {**{key: value for key, value in given.items() if key in parameters_of(model["_target_"])}, **model}


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(locate(str(target))).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError, ErrorDuringImport):  # not there: said when it is to be built
        return {}


def build_network(model: Mapping[str, Any]) -> nn.Module:
    network = instantiate(model)
    if not isinstance(network, nn.Module):
        raise UserError(f"model._target_={model['_target_']}: expected a torch.nn.Module, got {type(network).__name__}")
    return network


def build_loss(config: DictConfig) -> nn.Module:
    loss = instantiate(plain(config.loss))
    if not callable(loss):
        raise UserError(f"loss._target_={config.loss._target_}: expected a loss to call, got {type(loss).__name__}")
    return loss


def build_module(config: DictConfig, datamodule: ImageDataModule) -> L.LightningModule:
    """The LightningModule around the network; one of the user's own gets what its `__init__` takes by name."""
    model = fitted(plain(config.model), datamodule)
    arguments = {
        "network": build_network(model),
        "loss": build_loss(config),
        "optimizer": plain(config.optimizer),
        "scheduler": plain(config.scheduler),
        "test_tta": config.test_tta,
        "mean": datamodule.mean,
        "std": datamodule.std,
        "class_names": datamodule.class_names,
        "image_shape": datamodule.image_shape,
        "config": {**plain(config), "model": model},
        "compile": config.compile,
        "channels_last": config.channels_last,
    }
    make = instantiate({**plain(config.module), "_partial_": True})
    taken = inspect.signature(make.func).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        arguments = {parameter.name: arguments[parameter.name] for parameter in taken if parameter.name in arguments}
    try:
        module = make(**arguments)
    except TypeError as error:
        raise UserError(f"module._target_={config.module._target_}: {first_line(error)}") from error
    if not isinstance(module, L.LightningModule):
        raise UserError(
            f"module._target_={config.module._target_}: expected a LightningModule, got {type(module).__name__}"
        )
    return module


def build_loggers(config: DictConfig, step: int | None = None) -> list[Logger]:
    return [build_logger(plain(logger), step) for logger in config.logger.values() if logger is not None]


def build_trainer(config: DictConfig, callbacks: Sequence[Callback], loggers: Sequence[Logger]) -> L.Trainer:
    """Lightning's Trainer. Raises UserError for what it refuses."""
    callbacks = list(callbacks)
    check_callbacks(callbacks, config)
    settings = plain(config.trainer)
    settings.pop("print_every", None)
    settings["plugins"] = [*settings.get("plugins", []), WholeFiles()]
    settings["precision"] = resolve_precision(settings["precision"], settings["accelerator"])
    settings["profiler"] = settings["profiler"] or NoProfiler()
    if settings["strategy"] == "fsdp":
        from cifar_lightning.runs.sharding import FullySharded, check_shardable

        check_shardable(config)
        settings["strategy"] = FullySharded()
    try:
        if settings.get("max_time") is not None:
            callbacks.append(TimeLimit(settings.pop("max_time")))
        trainer = L.Trainer(
            **settings,
            callbacks=callbacks,
            logger=list(loggers) or False,
            default_root_dir=config.paths.output_dir,
            enable_checkpointing=True,  # the history counts as one: Lightning calls it when an epoch's figures are in
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
            enable_model_summary=False,  # config's callbacks say whether there is one
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {first_line(error)}") from error
    on_cpus = isinstance(trainer.strategy, ParallelStrategy) and trainer.strategy.root_device.type == "cpu"
    if config.trainer.sync_batchnorm and on_cpus:
        raise UserError(
            "trainer.sync_batchnorm=true: PyTorch synchronises batch norm on GPUs only; leave it out on a CPU"
        )
    if trainer.strategy.root_device.type == "cpu":
        # Lightning has torch ask NVIDIA's library for GPUs; each step of an optimizer would look for its file again.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    return trainer


def build_logger(settings: dict[str, Any], step: int | None = None) -> Logger:
    """A logger; `step`: where the run goes on, without what was logged after that step."""
    if step is not None:
        if settings["_target_"].endswith(".TensorBoardLogger"):
            settings["purge_step"] = step
        elif settings["_target_"].endswith(".CSVLogger"):  # it would write over the rows so far
            settings["version"] = f"from_step_{step}"
    logger = instantiate(settings)
    if not isinstance(logger, Logger):
        raise UserError(f"{settings.get('_target_')}: expected a Lightning Logger, got {type(logger).__name__}")
    return logger


def build_callbacks(config: DictConfig, datamodule: ImageDataModule) -> list[Callback]:
    """The config's callbacks, without those that would have nothing to do in this run."""
    built = {name: instantiate(plain(keys)) for name, keys in config.callbacks.items() if keys is not None}
    for name, callback in built.items():
        if not isinstance(callback, Callback):
            raise UserError(f"callbacks.{name}: expected a Lightning Callback, got {type(callback).__name__}")
    callbacks = list(built.values())
    if not datamodule.has_validation or why_no_validation(config):  # nothing to choose a best checkpoint by
        callbacks = [c for c in callbacks if not (isinstance(c, ModelCheckpoint) and c.monitor)]
    if not config.logger:  # Lightning refuses the monitor without one
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    if not sys.stdout.isatty():
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    if config.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=config.ema_decay))
    return callbacks


def leave_out_untaken(config: DictConfig) -> None:
    """Of data, a network or a loss of the user's own, drop those keys of the chosen file that its class doesn't take.

    `model=cnn2 model._target_=my_package.Net` has the keys of cnn2, whatever Net's are; what the user adds stays.
    """
    for group in ("data", "model", "loss"):
        target = str(config[group].get("_target_"))
        taken = parameters_of(target)
        if "_target_" not in config[group] or locate(target) is None or target.startswith("cifar_lightning."):
            continue
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            continue
        chosen = OmegaConf.load(conf_dir() / group / f"{config.choices[group]}.yaml")
        names = set(taken)
        with open_dict(config):
            for key in [key for key in chosen if key in config[group] and key not in (*names, "_target_")]:
                del config[group][key]
