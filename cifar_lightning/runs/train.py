"""One experiment: config -> data, network, trainer -> fit -> test -> results."""

import inspect
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from cifar_lightning.callbacks.history import History
from cifar_lightning.callbacks.interruption import Interruption, StopSignals
from cifar_lightning.callbacks.last_checkpoint import WholeFiles
from cifar_lightning.callbacks.refused import check_callbacks
from cifar_lightning.callbacks.time_limit import TimeLimit
from cifar_lightning.checkpoints.load import saved_config
from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.checkpoints.trust import check_resumable
from cifar_lightning.config.compose import conf_dir, group_choices, instantiate, plain
from cifar_lightning.config.monitors import why_no_validation
from cifar_lightning.console import adopt_lightning_loggers, silence
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.reporting.files import write_text
from cifar_lightning.runs import record as results
from cifar_lightning.runs.folders import errors_explained, how_to_go_on, resumed_config
from cifar_lightning.runs.memory import keep_freed_memory
from cifar_lightning.runs.profiling import NoProfiler
from cifar_lightning.training.classifier import ImageClassifier
from cifar_lightning.training.precision import resolve_precision

log = logging.getLogger(__name__)


def run(
    config: DictConfig, overrides: list[str], *, show: bool = True, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Fit, then test the best checkpoint; returns what metrics.json holds.

    `overrides` are the command-line overrides, for the record and for what a resumed run may change; `show`: print the
    result's tables and the paths of its figures; `callbacks`: objects that a config can't hold, beside its own.
    Raises UserError for whatever the person can mend, Interrupted where SIGINT or SIGTERM ends it.
    """
    folder = Path(config.paths.output_dir)
    with StopSignals(lambda: how_to_go_on(folder, overrides)) as signals, errors_explained(folder):
        return fit_and_test(config, overrides, show, [*callbacks, Interruption(signals)])


def fit_and_test(config: DictConfig, overrides: list[str], show: bool, callbacks: Sequence[Callback]) -> dict[str, Any]:
    adopt_lightning_loggers()
    if rank_zero_only.rank > 0:  # type: ignore[attr-defined]
        silence()
    torch.set_flush_denormal(True)  # tiny numbers would stall CPU arithmetic many times over
    keep_freed_memory()
    config = prepared(config, overrides)
    folder = Path(config.paths.output_dir)
    rank_zero_only(write_text)(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))

    L.seed_everything(config.seed, workers=True, verbose=False)
    datamodule = build_datamodule(config)
    datamodule.prepare_data()
    datamodule.setup()
    classifier = build_classifier(config, datamodule)
    if config.train and config.ckpt_path is None:  # else the checkpoint has these weights
        classifier.initialize_from(datamodule.train.images)
    bar = sys.stdout.isatty() and config.callbacks.get("progress_bar") is not None
    inside = 0 if bar else config.trainer.print_every
    history = History(folder / "history.csv", announce=bool(config.callbacks), print_every=inside)
    trainer = build_trainer(config, history, datamodule, callbacks)
    if trainer.strategy.root_device.type == "cpu":
        # Lightning has torch ask NVIDIA's library for GPUs; each step of an optimizer would look for its file again.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"

    tested = config.trainer.limit_test_batches
    if config.test and isinstance(tested, float) and 0 < tested * len(datamodule.test_dataloader()) < 1:
        raise UserError(f"trainer.limit_test_batches={tested} is less than one batch: give a larger share, or a count")
    checkpoint = config.ckpt_path
    if config.train:
        try:
            trainer.fit(classifier, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        except MisconfigurationException as error:
            raise UserError(f"Lightning refuses this training: {first_line(error)}") from error
        checkpoint = best_checkpoint(trainer)
        # Lightning's average would, as it does to go on training, put the latest weights into its own place again.
        trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]  # type: ignore
        validation = recorded_validation(classifier, checkpoint)
    else:
        validation = validate(trainer, classifier, datamodule, checkpoint)
    if config.test:
        trainer.test(classifier, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)
    metrics = results.collect(config, overrides, trainer, classifier, datamodule, history, validation, checkpoint)
    if trainer.is_global_zero and not config.trainer.fast_dev_run:
        drawn = results.draw(metrics, history, classifier, datamodule)
        results.write(folder, metrics, drawn, classifier, trainer)
        if show:
            results.show(metrics, folder)
    return metrics


def prepared(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The config of this run: the checkpoint's own where it goes on from one, and the choices that were made."""
    if config.ckpt_path is not None:
        saved = saved_config(config.ckpt_path, config)
        resumed = resumed_config(saved, config, overrides)
        say_if_schedule_changes(saved, resumed)
        check_resumable(resumed)
        if (
            resumed.train
            and not {"optimizer_states", "lr_schedulers", "loops"} <= read_checkpoint(config.ckpt_path).keys()
        ):
            raise UserError(
                f"ckpt_path={config.ckpt_path} has weights only, so training can't go on from it: name a last.ckpt, or "
                "test it with train=false"
            )
        return resumed
    if "choices" not in config:  # from Python, where no job of Hydra's runs, `api.compose` has put them there
        with open_dict(config):
            config.choices = group_choices()
    leave_out_untaken(config)
    return config


def leave_out_untaken(config: DictConfig) -> None:
    """Of a network of the user's own, drop those keys of the chosen file that its class doesn't take.

    `model=cnn2 model._target_=my_package.Net` has the keys of cnn2, whatever Net's are; what the user adds stays.
    """
    target = str(config.model.get("_target_"))
    if target.startswith(("cifar_lightning.", "torch.", "torchvision.")):
        return
    try:
        taken = inspect.signature(locate(target)).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError, ErrorDuringImport):  # not there: said when it is to be built
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return
    chosen = OmegaConf.load(conf_dir() / "model" / f"{config.choices.model}.yaml")
    names = {parameter.name for parameter in taken}
    with open_dict(config):
        for key in [key for key in chosen if key in config.model and key not in (*names, "_target_")]:
            del config.model[key]


def say_if_schedule_changes(saved: Mapping[str, Any], resumed: DictConfig) -> None:
    """A schedule is as long as the training: where that gets another length, it takes another course from here on."""
    lengths = [
        {key: trainer[key] for key in ("max_epochs", "max_steps")} for trainer in (saved["trainer"], resumed.trainer)
    ]
    name = str(resumed.scheduler.get("_target_")).rpartition(".")[2]
    if lengths[0] != lengths[1] and resumed.train and name not in ("constant", "plateau"):
        log.warning(
            "scheduler=%s now lasts %s (before: %s), so this run ends elsewhere than one that was never stopped",
            name,
            *(", ".join(f"{key}={value}" for key, value in length.items()) for length in reversed(lengths)),
        )


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
    trainer: L.Trainer, classifier: ImageClassifier, datamodule: CIFAR10DataModule, checkpoint: str
) -> dict[str, float | None]:
    if not datamodule.has_validation:
        return {"val/acc": None, "val/loss": None}
    figures = trainer.validate(classifier, datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)
    return dict(figures[0])


def build_datamodule(config: DictConfig) -> CIFAR10DataModule:
    transforms = []
    for name, transform in config.augmentation.transforms.items():
        try:
            transforms.append(instantiate(plain(transform)))
        except UserError as error:
            raise UserError(f"augmentation.transforms.{name}: {error}") from error
    try:
        return CIFAR10DataModule(
            **plain(config.data), pipeline=config.augmentation.pipeline, transforms=transforms, seed=config.seed
        )
    except TypeError as error:
        raise UserError(f"data: {first_line(error)}") from error


def build_classifier(config: DictConfig, datamodule: CIFAR10DataModule) -> ImageClassifier:
    network = instantiate(plain(config.model))
    if not isinstance(network, nn.Module):
        raise UserError(
            f"model._target_={config.model._target_}: expected a torch.nn.Module, got {type(network).__name__}"
        )
    return ImageClassifier(
        network,
        optimizer=plain(config.optimizer),
        scheduler=plain(config.scheduler),
        label_smoothing=config.label_smoothing,
        loss_reduction=config.loss_reduction,
        test_tta=config.test_tta,
        mean=datamodule.mean,
        std=datamodule.std,
        class_names=datamodule.class_names,
        config=plain(config),
        compile=config.compile,
        channels_last=config.channels_last,
    )


def build_trainer(
    config: DictConfig, history: History, datamodule: CIFAR10DataModule, more_callbacks: Sequence[Callback] = ()
) -> L.Trainer:
    """Lightning's Trainer with the config's callbacks and loggers. Raises UserError for what it refuses."""
    callbacks = [history, *build_callbacks(config, datamodule), *more_callbacks]
    check_callbacks(callbacks, config)
    loggers = [build_logger(config, plain(logger)) for logger in config.logger.values() if logger is not None]
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
            logger=loggers or False,
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
    return trainer


def build_logger(config: DictConfig, settings: dict[str, Any]) -> Logger:
    """Where a run goes on, its curves do so, too: without what the stopped one logged after its checkpoint."""
    if config.train and config.ckpt_path is not None:
        step = read_checkpoint(config.ckpt_path)["global_step"]
        if settings["_target_"].endswith(".TensorBoardLogger"):
            settings["purge_step"] = step
        elif settings["_target_"].endswith(".CSVLogger"):  # it would write over the rows so far
            settings["version"] = f"from_step_{step}"
    logger = instantiate(settings)
    if not isinstance(logger, Logger):
        raise UserError(f"{settings.get('_target_')}: expected a Lightning Logger, got {type(logger).__name__}")
    return logger


def build_callbacks(config: DictConfig, datamodule: CIFAR10DataModule) -> list[Callback]:
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


def best_checkpoint(trainer: L.Trainer) -> str | None:
    """The checkpoint to test: the best by its monitor, else the last one, else none (the weights in memory)."""
    made = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.best_model_path]
    saved = [c for c in made if Path(c.best_model_path).is_file()]
    if lost := [c.best_model_path for c in made if c not in saved]:  # a checkpoint that went on alone, elsewhere
        log.warning("%s is not there any more: the latest weights are tested", lost[0])
    monitored = [c for c in saved if c.monitor]
    return (monitored or saved)[0].best_model_path if saved else None
