"""Run one experiment: build each of its objects once, then fit, test and record."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lightning.callbacks.interruption import Interruption, StopSignals
from cifar_lightning.callbacks.trace import Trace
from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.config.compose import group_choices, plain
from cifar_lightning.console import adopt_lightning_loggers, silence
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.evaluation.looks import note_look
from cifar_lightning.reporting.files import write_text
from cifar_lightning.reporting.ledger import looks
from cifar_lightning.runs import record
from cifar_lightning.runs.build import (
    build_callbacks,
    build_datamodule,
    build_description,
    build_history,
    build_loggers,
    build_module,
    build_trainer,
    leave_out_untaken,
)
from cifar_lightning.runs.folders import command, errors_explained, how_to_go_on
from cifar_lightning.runs.memory import keep_freed_memory
from cifar_lightning.runs.resume import config_to_go_on_with
from cifar_lightning.runs.tested import (
    best_checkpoint,
    check_test_batches,
    images_to_test,
    ledger_to_note,
    validation_metrics,
)
from cifar_lightning.training.classifier import ImageClassifier

log = logging.getLogger(__name__)

NEEDED_TO_RESUME = {"optimizer_states", "lr_schedulers", "loops"}


def run(
    config: DictConfig,
    overrides: list[str],
    *,
    show: bool = True,
    callbacks: Sequence[Callback] = (),
    repeats: Path | None = None,
) -> dict[str, Any]:
    """Fit, test the best checkpoint and return what metrics.json holds.

    overrides: the command-line overrides, for the record and to see what a resumed run changes.
    show: print the results. callbacks: objects beside those that the config names.
    repeats: the folder of the run that this one only repeats: without figures, and in the test ledger under its name.
    Raises UserError for what the user can fix, and Interrupted if SIGINT, SIGTERM or SIGHUP ends the run.
    """
    folder = Path(config.paths.output_dir)
    with StopSignals(lambda: how_to_go_on(folder, overrides)) as signals, errors_explained(folder):
        prepare_process()
        config = prepare_config(config, overrides)
        rank_zero_only(write_text)(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
        return fit_and_test(config, overrides, show, [*callbacks, Interruption(signals)], repeats)


def fit_and_test(
    config: DictConfig, overrides: list[str], show: bool, more: Sequence[Callback], repeats: Path | None = None
) -> dict[str, Any]:
    folder, checkpoint = Path(config.paths.output_dir), config.ckpt_path
    step = step_to_resume_from(checkpoint) if config.train and checkpoint else None

    L.seed_everything(config.seed, workers=True, verbose=False)
    datamodule = build_datamodule(config)
    datamodule.prepare_data()
    datamodule.setup("fit")
    module = build_module(config, datamodule)
    if isinstance(module, ImageClassifier) and config.train and checkpoint is None:
        module.initialize_from(datamodule.train.images)
    history = build_history(config)
    description = build_description(config, datamodule)
    trace = Trace(folder / "losses.csv")
    callbacks = [history, trace, description, *build_callbacks(config, datamodule), *more]
    trainer = build_trainer(config, callbacks, build_loggers(config, step))
    check_test_batches(config, datamodule)
    test_ledger = ledger_to_note(config, trainer, datamodule)

    if config.train:
        try:
            trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        except MisconfigurationException as error:
            raise UserError(f"Lightning can't run this training: {first_line(error)}") from error
        checkpoint = best_checkpoint(trainer)
        # On loading a checkpoint, this callback would put back the weights that are trained, not their average.
        trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]  # type: ignore
    validation = validation_metrics(config, trainer, module, datamodule, checkpoint)
    look: dict[str, Any] = {}
    if test_ledger:
        images, typed = images_to_test(config, datamodule), command(*overrides)
        look = note_look(test_ledger, plain(config), datamodule, command=typed, run=repeats or folder, images=images)
    if config.test:
        trainer.test(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True, verbose=False)

    metrics = record.collect(config, overrides, trainer, module, datamodule, history, validation, checkpoint)
    metrics |= look | trace.record(trainer, module)
    if trainer.is_global_zero and not config.trainer.fast_dev_run:
        drawn = {} if repeats else record.draw(metrics, history, module, datamodule)
        record.write(folder, metrics, drawn, config, module, trainer)
        if show:
            record.show(metrics, folder, looks([(folder, metrics)], test_ledger))
    return metrics


def prepare_process() -> None:
    adopt_lightning_loggers()
    if rank_zero_only.rank > 0:  # type: ignore[attr-defined]
        silence()
    torch.set_flush_denormal(True)  # denormal numbers slow down CPU arithmetic many times over
    keep_freed_memory()


def prepare_config(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The saved config of a run that resumes, else the composed one with the choice of each group."""
    if config.ckpt_path is not None:
        config = config_to_go_on_with(config, overrides)
    elif "choices" not in config:  # `api.compose`, which runs no Hydra job, has added them
        with open_dict(config):
            config.choices = group_choices()
    leave_out_untaken(config)
    if config.data.get("sealed") and config.test:
        if not config.train:
            raise UserError(f"data.sealed=true: test it with evaluate ckpt_path={config.ckpt_path} unseal=REASON")
        log.info("data.sealed=true: the test set stays closed; evaluate … unseal=REASON opens it")
        config.test = False
    return config


def step_to_resume_from(checkpoint: str) -> int:
    """The checkpoint's global step. Raises UserError if it holds weights only."""
    saved = read_checkpoint(checkpoint)
    if not saved.keys() >= NEEDED_TO_RESUME:
        raise UserError(
            f"ckpt_path={checkpoint} has weights only, so training can't resume from it: name a last.ckpt, or test it "
            "with train=false"
        )
    return int(saved["global_step"])
