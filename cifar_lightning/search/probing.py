"""Prepare a run's config for a few training steps that are measured and thrown away."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lightning import api
from cifar_lightning.callbacks.interruption import StopSignals
from cifar_lightning.config.compose import overridden, run_folder
from cifar_lightning.errors import Interrupted
from cifar_lightning.runs.build import build_datamodule, build_module, leave_out_untaken
from cifar_lightning.training.classifier import ImageClassifier

ENDLESS = 10**6  # epochs, more than any probe takes


def probe_config(words: Sequence[str], scratch: str) -> DictConfig:
    """The config of this training without schedule, validation and end; its temporary files are in `scratch`."""
    config = copy.deepcopy(api.compose(words))
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        del config["overrides"]
        config.scheduler = {"_target_": "cifar_lightning.optim.schedules.constant"}
        config.paths.output_dir = scratch
        config.trainer.update({"max_epochs": ENDLESS, "min_epochs": None, "max_steps": -1, "max_time": None})
        config.trainer.update({"check_val_every_n_epoch": ENDLESS, "val_check_interval": None})
        config.trainer.update({"num_sanity_val_steps": 0, "profiler": None})
    leave_out_untaken(config)
    return config


def build_start(config: DictConfig) -> tuple[Any, L.LightningModule]:
    """Data and module as they are when a run of this config begins."""
    L.seed_everything(config.seed, workers=True, verbose=False)
    datamodule = build_datamodule(config)
    datamodule.prepare_data()
    datamodule.setup("fit")
    module = build_module(config, datamodule)
    if isinstance(module, ImageClassifier):
        module.initialize_from(datamodule.train.images)
    return datamodule, module


def own_folder(name: str, words: Sequence[str], config: DictConfig) -> Path:
    """A new folder for the results of a command, of a task of its own unless `task_name` was typed."""
    task = config.task_name if any(word.startswith("task_name=") for word in words) else name
    return Path(run_folder(f"{config.paths.log_dir}/{task}/runs", overridden(words)))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the steps at once and without Lightning's messages."""
    try:
        with StopSignals(lambda: "nothing was kept"):
            yield
    except Interrupted as ending:
        raise KeyboardInterrupt from ending
