"""Train a finished run again from its own record: the config, precision and number of threads that it names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from cifar_lightning.checkpoints.load import find_root
from cifar_lightning.checkpoints.trust import admitted
from cifar_lightning.config.checks import check_values
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.reporting.run_files import Run
from cifar_lightning.runs.resume import own_config
from cifar_lightning.runs.train import run as train
from cifar_lightning.training.lightning_internals import accumulates

CALLBACKS = ("lightning.pytorch.callbacks.", "cifar_lightning.callbacks.")


def replay(
    run: Run,
    folder: Path,
    log_dir: Path,
    words: Sequence[str],
    steps: int | None,
    root: str | None,
    trust: Sequence[str],
) -> dict[str, Any]:
    """Train `run` again in `folder` and return what its metrics.json holds now.

    log_dir: where a look at test labels is noted; words: what was typed, to be noted with it. steps: after how many to
    stop, without a test; None for all. root: the folder with the data, if it was moved. trust: modules whose classes
    may be built. Raises UserError for a run that can't be repeated by one process, or whose config is unusable.
    """
    config = config_to_repeat(run, folder, log_dir, root, trust)
    if steps is not None:
        config.test = False
    with threads(run.metrics):
        stop = [] if steps is None else [StopAfter(steps)]
        return train(config, list(words), show=False, callbacks=stop, repeats=run.path.parent)


def config_to_repeat(run: Run, folder: Path, log_dir: Path, root: str | None, trust: Sequence[str]) -> DictConfig:
    file, metrics = run.path.with_name("config.yaml"), run.metrics
    if (metrics.get("processes") or 1) > 1:
        raise UserError(f"{run.path.parent} was trained by {metrics['processes']} processes, and verify repeats one")
    try:
        saved = own_config(file, {"paths": {"output_dir": str(folder)}})
        if saved.get("train") is False:
            raise UserError("this run only tested a checkpoint: verify the run that trained it")
        config = _config_to_repeat(saved, metrics, file, root, trust)
        config.paths = {**saved["paths"], "output_dir": str(folder), "log_dir": str(log_dir)}
        check_values(config, [])
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(str(file)) else f"{file}: {error}") from error
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; without it nothing can be repeated") from error
    except Exception as error:  # a missing key, or one of another type
        raise UserError(f"{file}: its config can't be used: {first_line(error)}") from error
    return config


def _config_to_repeat(
    saved: dict[str, Any], metrics: Mapping[str, Any], file: Path, root: str | None, trust: Sequence[str]
) -> DictConfig:
    """The saved config, without what only watches a run. It may come from anyone, so nothing else of it is built."""
    apart = ("callbacks", "logger", "paths", "trainer")
    config = {**saved, **admitted({key: value for key, value in saved.items() if key not in apart}, trust)}
    if "pretrained" in config["model"]:
        config["model"]["pretrained"] = saved["model"]["pretrained"]
    for name, callback in saved["callbacks"].items():
        target = str((callback or {}).get("_target_", CALLBACKS[0]))
        if not target.startswith((*CALLBACKS, *(f"{module}." for module in trust))):
            raise UserError(f"callbacks.{name} is {target[:80]}; if you trust it, allow its module with trust=…")
    if "root" in saved["data"]:
        config["data"]["root"] = root or find_root(saved, file) or saved["data"]["root"]
    config["callbacks"] = {**saved["callbacks"], "model_summary": None, "dashboard": None}
    config |= {"logger": {}, "ckpt_path": None, "test": any(key.startswith("test/") for key in metrics)}
    config["trainer"] = {**saved["trainer"], "max_time": None, "precision": metrics.get("precision", "auto")}
    if first := next(iter(metrics.get("starts") or []), None):  # before it was resumed with another length
        config["trainer"] |= {"max_epochs": first[1], "max_steps": first[2]}
    return OmegaConf.create(config)


class StopAfter(Callback):
    """Ends training at the first step that Lightning sees after `steps`; the schedule is that of the whole training."""

    may_miss_steps = True

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step >= self.steps and not accumulates(trainer):
            trainer.fit_loop.epoch_loop.max_steps = trainer.global_step


@contextmanager
def threads(metrics: Mapping[str, Any]) -> Iterator[None]:
    """As many threads as the run had: sums in another order round differently."""
    before, found = torch.get_num_threads(), re.match(r"(\d{1,3}) threads? of ", str(metrics.get("hardware")))
    try:
        if found:
            torch.set_num_threads(max(1, int(found[1])))
        yield
    finally:
        torch.set_num_threads(before)
