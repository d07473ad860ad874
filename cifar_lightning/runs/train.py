"""One experiment, from its config to its record: build each object once, then fit, test and record."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lightning.callbacks.description import Description
from cifar_lightning.callbacks.history import History
from cifar_lightning.callbacks.interruption import Interruption, StopSignals
from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.config.compose import group_choices, plain
from cifar_lightning.console import adopt_lightning_loggers, silence
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.reporting.files import write_text
from cifar_lightning.runs import record
from cifar_lightning.runs.build import (
    build_callbacks,
    build_datamodule,
    build_loggers,
    build_module,
    build_trainer,
    leave_out_untaken,
)
from cifar_lightning.runs.folders import errors_explained, how_to_go_on, withdraw_result
from cifar_lightning.runs.memory import keep_freed_memory
from cifar_lightning.runs.resume import config_to_go_on_with
from cifar_lightning.runs.tested import best_checkpoint, recorded_validation, validate
from cifar_lightning.training.classifier import ImageClassifier

NEEDED_TO_GO_ON = {"optimizer_states", "lr_schedulers", "loops"}


def run(
    config: DictConfig, overrides: list[str], *, show: bool = True, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Fit, then test the best checkpoint; returns what metrics.json holds.

    `overrides` are the command-line overrides, for the record and for what a resumed run may change; `show`: print the
    result's tables and the paths of its figures; `callbacks`: objects that a config can't hold, beside its own.
    Raises UserError for whatever the user can mend, Interrupted where SIGINT or SIGTERM ends it.
    """
    folder = Path(config.paths.output_dir)
    with StopSignals(lambda: how_to_go_on(folder, overrides)) as signals, errors_explained(folder):
        prepare_process()
        config = prepare_config(config, overrides)
        rank_zero_only(write_text)(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        return fit_and_test(config, overrides, show, [*callbacks, Interruption(signals)])


def fit_and_test(config: DictConfig, overrides: list[str], show: bool, more: Sequence[Callback]) -> dict[str, Any]:
    folder, checkpoint = Path(config.paths.output_dir), config.ckpt_path
    step = step_to_go_on_from(checkpoint) if config.train and checkpoint else None

    L.seed_everything(config.seed, workers=True, verbose=False)
    datamodule = build_datamodule(config)
    datamodule.prepare_data()
    datamodule.setup("fit")
    module = build_module(config, datamodule)
    if isinstance(module, ImageClassifier) and config.train and checkpoint is None:
        module.initialize_from(datamodule.train.images)
    bar = sys.stdout.isatty() and config.callbacks.get("progress_bar") is not None
    inside = 0 if bar else config.trainer.print_every
    history = History(
        folder / "history.csv",
        announce=bool(config.callbacks),
        print_every=inside,
        started=lambda: withdraw_result(folder),
    )
    callbacks = [history, *build_callbacks(config, datamodule), *more]
    if not isinstance(module, ImageClassifier):
        callbacks.append(
            Description(plain(config), datamodule.class_names, datamodule.mean, datamodule.std, datamodule.image_shape)
        )
    trainer = build_trainer(config, callbacks, build_loggers(config, step))

    tested = config.trainer.limit_test_batches
    if config.test and isinstance(tested, float) and 0 < tested * len(datamodule.test_dataloader()) < 1:
        raise UserError(f"trainer.limit_test_batches={tested} is less than one batch: give a larger share, or a count")
    validation: dict[str, float | None] | None = None
    if config.train:
        try:
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        except MisconfigurationException as error:
            raise UserError(f"Lightning refuses this training: {first_line(error)}") from error
        checkpoint = best_checkpoint(trainer)
        # Lightning's average would, as it does to go on training, put the latest weights into its own place again.
        trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]  # type: ignore
        validation = recorded_validation(module, checkpoint) if isinstance(module, ImageClassifier) else None
    validation = validation or validate(trainer, module, datamodule, checkpoint)
    if config.test:
        trainer.test(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)

    metrics = record.collect(config, overrides, trainer, module, datamodule, history, validation, checkpoint)
    if trainer.is_global_zero and not config.trainer.fast_dev_run:
        drawn = record.draw(metrics, history, module, datamodule)
        record.write(folder, metrics, drawn, config, module, trainer)
        if show:
            record.show(metrics, folder)
    return metrics


def prepare_process() -> None:
    """What a process needs before it computes or logs anything."""
    adopt_lightning_loggers()
    if rank_zero_only.rank > 0:  # type: ignore[attr-defined]
        silence()
    torch.set_flush_denormal(True)  # tiny numbers would stall CPU arithmetic many times over
    keep_freed_memory()


def prepare_config(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The run's own config where it goes on, else the composed one with the choices of its groups."""
    if config.ckpt_path is not None:
        config = config_to_go_on_with(config, overrides)
    elif "choices" not in config:  # `api.compose` has put them there, where no job of Hydra's runs
        with open_dict(config):
            config.choices = group_choices()
    leave_out_untaken(config)
    return config


def step_to_go_on_from(checkpoint: str) -> int:
    """The step at which the checkpoint was saved. Raises UserError for one that training can't go on from."""
    saved = read_checkpoint(checkpoint)
    if not saved.keys() >= NEEDED_TO_GO_ON:
        raise UserError(
            f"ckpt_path={checkpoint} has weights only, so training can't go on from it: name a last.ckpt, or test it "
            "with train=false"
        )
    return int(saved["global_step"])
