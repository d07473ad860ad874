"""Build each object of a run from its group of the config."""

import copy
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn

from cifar_lightning.callbacks.averages import OptimizersAverage, StochasticAverage, exponential_average
from cifar_lightning.callbacks.description import Description
from cifar_lightning.callbacks.history import History
from cifar_lightning.callbacks.last_checkpoint import WholeFiles
from cifar_lightning.callbacks.refused import check_callbacks
from cifar_lightning.callbacks.time_limit import TimeLimit
from cifar_lightning.callbacks.wrong_labels import WrongLabels
from cifar_lightning.checkpoints.load import load_classifier
from cifar_lightning.config.compose import compose, instantiate, plain
from cifar_lightning.config.monitors import is_own, why_no_validation
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.own import adopted
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.runs.folders import checkpoint_file, withdraw_result
from cifar_lightning.training.distillation import Teacher
from cifar_lightning.training.precision import resolve_precision
from cifar_lightning.training.profiling import NoProfiler


def build_datamodule(config: DictConfig) -> Any:
    """An ImageDataModule, or the user's own LightningDataModule with the same attributes."""
    if is_own(config):
        message = f"data._target_={config.data._target_}: expected a LightningDataModule"
        own = {key: value for key, value in plain(config.data).items() if key != "sealed"}
        return adopted(expect(instantiate(own), L.LightningDataModule, message))
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


def expect(built: Any, kind: Any, message: str) -> Any:
    if not isinstance(built, kind):
        raise UserError(f"{message}, got {type(built).__name__}")
    return built


def fitted(settings: Mapping[str, Any], datamodule: Any) -> dict[str, Any]:
    """The config of a model or loss with what its class takes from the data: classes and their sizes, image shape."""
    channels, height, _ = datamodule.image_shape
    classes = len(datamodule.class_names)
    given: dict[str, Any] = {"num_classes": classes, "in_channels": channels, "input_size": height}
    taken = parameters_of(settings["_target_"])
    if "class_counts" in taken:
        given["class_counts"] = torch.bincount(datamodule.train.labels, minlength=classes).tolist()
        if 0 in given["class_counts"]:
            empty = datamodule.class_names[given["class_counts"].index(0)]
            raise UserError(f"loss._target_={settings['_target_']}: class {empty} has no training images")
    return {**{key: value for key, value in given.items() if key in taken}, **settings}


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(locate(str(target))).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError, ErrorDuringImport):  # a missing class is reported when it is built
        return {}


def build_module(config: DictConfig, datamodule: ImageDataModule) -> L.LightningModule:
    """The LightningModule around the network; the user's own gets those arguments that its `__init__` names."""
    model = fitted(plain(config.model), datamodule)
    message = f"model._target_={model['_target_']}: expected a torch.nn.Module"
    loss = expect(
        instantiate(fitted(plain(config.loss), datamodule)),
        Callable,
        f"loss._target_={config.loss._target_}: expected a loss",
    )
    weight, classes = getattr(loss, "weight", None), len(datamodule.class_names)
    if isinstance(weight, Tensor) and weight.shape != (classes,):
        raise UserError(f"loss.weight: give a number for each of the {classes} classes, got {len(weight)}")
    # A checkpoint has all weights: those for ImageNet may have been moved, or can't be downloaded here.
    loaded = {"pretrained": False} if config.ckpt_path is not None and model.get("pretrained") else {}
    network = expect(instantiate({**model, **loaded}), nn.Module, message)
    check_sizes(network, datamodule)
    arguments = {
        "network": network,
        "loss": loss,
        "teacher": build_teacher(config, datamodule),
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
    target = config.module._target_
    make = instantiate({**plain(config.module), "_partial_": True})
    taken = inspect.signature(make.func).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        arguments = {parameter.name: arguments[parameter.name] for parameter in taken if parameter.name in arguments}
    try:
        return expect(make(**arguments), L.LightningModule, f"module._target_={target}: expected a LightningModule")
    except TypeError as error:
        raise UserError(f"module._target_={target}: {first_line(error)}") from error


def build_teacher(config: DictConfig, datamodule: ImageDataModule) -> Teacher | None:
    """The trained classifiers that this run learns from. Raises UserError for those of other images or classes."""
    keys = plain(config.get("teacher") or {})
    if not config.train or not keys.get("ckpt_path"):
        return None
    classifiers, given = [], keys["ckpt_path"]
    for path in given if isinstance(given, list) else [given]:
        classifier = load_classifier(checkpoint_file(str(path), key="teacher"), plain(config.trust))
        for what, taught, here in (
            ("classes", classifier.class_names, tuple(datamodule.class_names)),
            ("image shape", classifier.image_shape, tuple(datamodule.image_shape)),
        ):
            if taught != here:
                raise UserError(f"teacher={path} has another {what} than data={datamodule.name}: {taught} and {here}")
        classifiers.append(classifier)
    return Teacher(classifiers, keys["temperature"], keys["alpha"])


def check_sizes(network: nn.Module, datamodule: ImageDataModule) -> None:
    """Raise UserError if the network can't take the image sizes of `data.size_schedule`."""
    for _, size in getattr(datamodule, "size_schedule", ()):
        images = torch.zeros(2, datamodule.image_shape[0], size, size)
        try:
            with torch.no_grad():
                copy.deepcopy(network).eval()(images)
        except Exception as error:
            height = datamodule.image_shape[1]
            raise UserError(
                f"data.size_schedule: {type(network).__name__} can't take images of {size} pixels instead of {height} "
                f"({first_line(error)})"
            ) from error


def build_loggers(config: DictConfig, step: int | None = None) -> list[Logger]:
    """The loggers. step: where a run resumes; what was logged after it is dropped."""
    loggers = []
    for name, logger in config.logger.items():
        if logger is None:
            continue
        settings = plain(logger)
        if step is not None and settings["_target_"].endswith(".TensorBoardLogger"):
            settings["purge_step"] = step
        elif step is not None and settings["_target_"].endswith(".CSVLogger"):  # it would overwrite the earlier rows
            settings["version"] = f"from_step_{step}"
        message = f"logger.{name}._target_={settings['_target_']}: expected a Lightning Logger"
        loggers.append(expect(instantiate(settings), Logger, message))
    return loggers


def build_history(config: DictConfig) -> History:
    """The callback that writes history.csv and, where there is no progress bar, prints lines within an epoch."""
    folder = Path(config.paths.output_dir)
    bar = sys.stdout.isatty() and config.callbacks.get("progress_bar") is not None
    return History(
        folder / "history.csv",
        announce=bool(config.callbacks),
        print_every=0 if bar else config.trainer.print_every,
        started=lambda: withdraw_result(folder),
    )


def build_callbacks(config: DictConfig, datamodule: ImageDataModule) -> list[Callback]:
    """The config's callbacks, without those that would have nothing to do in this run."""
    callbacks: list[Callback] = []
    for name, keys in config.callbacks.items():
        if keys is not None:
            message = f"callbacks.{name}: expected a Lightning Callback"
            callbacks.append(expect(instantiate(plain(keys)), Callback, message))
    if not datamodule.has_validation or why_no_validation(config):
        callbacks = [c for c in callbacks if not (isinstance(c, ModelCheckpoint) and c.monitor)]
    if not config.logger:  # Lightning refuses the monitor without one
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    if not sys.stdout.isatty():
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    if getattr(datamodule, "true_labels", None) is not None:
        callbacks.append(WrongLabels(datamodule))
    if config.ema_decay is not None:
        callbacks.append(exponential_average(config.ema_decay))
    if config.get("swa_start") is not None:
        callbacks.append(StochasticAverage(config.swa_start))
    if _averages(str(config.optimizer._target_)):
        callbacks.append(OptimizersAverage())
    return callbacks


def _averages(optimizer: str) -> bool:
    """Whether this class averages the weights itself, and has `eval` to put the average in their place."""
    try:
        return hasattr(locate(optimizer), "eval")
    except ErrorDuringImport:  # reported when it is built
        return False


def build_description(config: DictConfig, datamodule: ImageDataModule) -> Description:
    """The callback that makes checkpoints of any LightningModule usable; ImageClassifier replaces what it adds."""
    return Description(plain(config), datamodule.class_names, datamodule.mean, datamodule.std, datamodule.image_shape)


def build_trainer(config: DictConfig, callbacks: Sequence[Callback], loggers: Sequence[Logger]) -> L.Trainer:
    """Lightning's Trainer. Raises UserError for settings that it refuses."""
    callbacks = list(callbacks)
    check_callbacks(callbacks, config)
    settings = plain(config.trainer)
    settings.pop("print_every", None)
    settings["plugins"] = [*settings.get("plugins", []), WholeFiles()]
    settings["precision"] = resolve_precision(settings["precision"], settings["accelerator"])
    settings["profiler"] = settings["profiler"] or NoProfiler()
    if settings["strategy"] == "fsdp":
        from cifar_lightning.runs.sharding import FullySharded

        settings["strategy"] = FullySharded()
    try:
        if settings.get("max_time") is not None:
            callbacks.append(TimeLimit(settings.pop("max_time")))
        trainer = L.Trainer(
            **settings,
            callbacks=callbacks,
            logger=list(loggers) or False,
            default_root_dir=config.paths.output_dir,
            enable_checkpointing=True,  # History is a Checkpoint, which Lightning calls after an epoch's metrics are in
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
            enable_model_summary=False,  # it is one of the config's callbacks
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {first_line(error)}") from error
    if trainer.strategy.root_device.type == "cpu":
        if config.trainer.sync_batchnorm and isinstance(trainer.strategy, ParallelStrategy):
            raise UserError("trainer.sync_batchnorm=true: PyTorch synchronises batch norm on GPUs only; leave it out")
        # Lightning has torch query NVML for GPUs; each optimizer step would look for its library again.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    return trainer


def leave_out_untaken(config: DictConfig) -> None:
    """For data, a model or a loss of the user's own, drop the keys of the chosen file that its class doesn't take.

    `model=cnn2 model._target_=my_package.Net` has the keys of cnn2, whatever Net takes. Keys that the user adds stay.
    """
    for group in ("data", "model", "loss"):
        target = str(config[group].get("_target_"))
        taken = parameters_of(target)
        if "_target_" not in config[group] or locate(target) is None or target.startswith("cifar_lightning."):
            continue
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            continue
        chosen = compose([f"{group}={config.choices[group]}"])[group]
        with open_dict(config):
            for key in chosen:
                if key in config[group] and key not in (*taken, "_target_", "sealed"):
                    del config[group][key]
