"""One job, run by Hydra: alone, or one of a sweep in whatever process its launcher starts."""

import logging
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from cifar_lightning.config.compose import quoted
from cifar_lightning.config.monitors import is_own
from cifar_lightning.console import log_traceback
from cifar_lightning.data.sets import fetch
from cifar_lightning.errors import Interrupted, UserError, first_line
from cifar_lightning.reporting.tables import duration, percent
from cifar_lightning.runs.folders import claim, owned, remove_unstarted
from cifar_lightning.runs.processes import processes_to_start, run_processes, started_from_outside
from cifar_lightning.runs.resume import config_to_go_on_with
from cifar_lightning.sweeps import folders, parallel, state
from cifar_lightning.sweeps.resolvers import register

log = logging.getLogger(__name__)

register()  # a launcher's worker imports this module before it resolves a config


def job(config: DictConfig, failures: list[str]) -> Any:
    """One run, called by Hydra with the composed config, in this run's folder.

    Returns `optimized_metric`. Why a single run failed is added to `failures` (of a sweep's job it is in its folder):
    Hydra would print it in its own way, and the other jobs of a sweep go on.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        folder = Path(hydra.runtime.output_dir)
        try:
            with nullcontext() if started_from_outside() else owned(folder):
                return train(config).get(config.optimized_metric)
        except UserError as error:
            failures.append(in_words(error))
            if not started_from_outside():  # else the command that has started this process removes it
                remove_unstarted(folder)
        except Exception as error:  # its traceback is in the folder's log
            failures.append(in_words(error))
        except Interrupted:
            remove_unstarted(folder)
            raise
        return None
    alone = parallel.launcher_name(hydra.launcher) == "basic"
    with nullcontext() if alone else parallel.prefixed_output(f"[#{hydra.job.num}]"):
        try:
            return sweep_job(config).get(config.optimized_metric)
        except Exception as error:
            reason = in_words(error)
            log.error("failed: %s", reason)
            state.note_failure(Path(hydra.runtime.output_dir), reason)
            return None


def in_words(error: Exception) -> str:
    log_file = log_traceback(error)
    if isinstance(error, UserError):
        return str(error)
    reason = first_line(error)
    return f"{type(error).__name__}: {reason} (traceback: {log_file})"


def train(config: DictConfig, *, show: bool = True) -> dict[str, Any]:
    """Train here, or in several processes; what metrics.json holds."""
    if config.trainer.accelerator not in ("auto", "cpu"):
        from cifar_lightning.training.precision import resolve_accelerator

        resolve_accelerator(config.trainer.accelerator)
    if config.ckpt_path is None and not is_own(config):
        # Before torch is imported, so that who has no data need not wait for it; and once for all processes.
        fetch(config.data.name, config.data.get("root", "data"), config.data.get("verify", True))
    overrides = list(HydraConfig.get().overrides.task)
    processes = processes_to_start(trainer_settings(config, overrides))
    if processes > 0:
        return run_processes(processes)
    from cifar_lightning.runs.train import run  # imports torch: 2 seconds that help and mistakes need not wait for

    return run(config, overrides, show=show)


def trainer_settings(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The run's own: a resumed one has those of its checkpoint where none were typed."""
    if config.ckpt_path is None:
        return config.trainer
    return config_to_go_on_with(config, overrides).trainer


def sweep_job(config: DictConfig) -> dict[str, Any]:
    if one_of_several():  # that SLURM or torchrun has started for one job: the first speaks for all
        return train(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    return run_once(folder, config, lambda last: attempt(config, folder, last)) or {}


def run_once(folder: Path, config: DictConfig, train: Callable[[Path | None], dict[str, Any]]) -> dict[str, Any] | None:
    """The metrics of a sweep's job: those of its finished run, else of `train`; None where another process runs it.

    train: gets the checkpoint from which a job that was cut off goes on.
    """
    with claim(folder) as free:
        if not free:
            log.info("%s: another process is running it", folder.name)
            return None
        folders.identify(folder, config)
        state.forget_failure(folder)
        metrics = state.result(folder)
        if metrics is not None:
            log.info("%s: finished already", folder.name)
            return metrics
        last = folder / "checkpoints" / "last.ckpt"
        goes_on = last.is_file() and config.train and config.ckpt_path is None
        if goes_on:
            log.info("%s: goes on from its last checkpoint", folder.name)
        return train(last if goes_on else None)


def one_of_several() -> bool:
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return int(next(filter(None, ranks), 0)) > 0


def attempt(config: DictConfig, folder: Path, last: Path | None) -> dict[str, Any]:
    parallel.claim_gpu(config.trainer)
    say_where_another_lies(config, folder)
    if last:
        go_on_from(last, config)
    if config.callbacks.get("model_summary"):
        config.callbacks.model_summary = None  # a sweep has a line for each epoch, no table for each job
    metrics = train(config, show=False)
    figures = {"validation": metrics.get("val/acc"), "test": metrics.get("test/acc")}
    shown = ", ".join(f"{name} {percent(value)}" for name, value in figures.items() if value is not None)
    log.info("%s: %s, %s", folder.name, shown or "done", duration(metrics.get("train_seconds")))
    return metrics


def go_on_from(checkpoint: Path, config: DictConfig) -> None:
    """As if `ckpt_path` had been typed: processes that this one starts repeat what was typed."""
    config.ckpt_path = str(checkpoint)
    hydra: Any = HydraConfig.get()
    with read_write(hydra), open_dict(hydra):
        hydra.overrides.task = [*hydra.overrides.task, f"ckpt_path={quoted(checkpoint)}"]


def say_where_another_lies(config: DictConfig, folder: Path) -> None:
    """Where this job had to take another folder than its name's."""
    numbered = re.fullmatch(r"(.+)-\d+", folder.name)
    older = folder.with_name(numbered[1]) if numbered else folder
    if older != folder and older.is_dir():
        changed = ", ".join(folders.differences(older, config)) or "another config"
        log.warning("%s has %s. It stays as it is; this job's folder is %s", older.name, changed, folder.name)
