"""Run one Hydra job: a single run, or a job of a sweep in whatever process its launcher starts."""

import logging
import os
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cifar_lightning.config.compose import quoted, register_resolvers
from cifar_lightning.config.monitors import is_own
from cifar_lightning.console import log_traceback
from cifar_lightning.data.sets import fetch
from cifar_lightning.errors import Interrupted, UserError, first_line
from cifar_lightning.reporting.tables import duration, percent
from cifar_lightning.runs.folders import claim, owned, remove_unstarted
from cifar_lightning.runs.processes import processes_to_start, run_processes, started_from_outside
from cifar_lightning.runs.resume import config_to_go_on_with
from cifar_lightning.sweeps import folders, parallel, state

log = logging.getLogger(__name__)

# At import, which a launcher's process does before it resolves a config.
register_resolvers()
OmegaConf.register_new_resolver("job_folder", folders.job_folder, replace=True)
OmegaConf.register_new_resolver("jobs_at_once", parallel.jobs_at_once, replace=True)
OmegaConf.register_new_resolver("gpus_a_job", lambda: min(1, len(parallel.visible_gpus())), replace=True)
# conf/hydra/launcher/*.yaml share the names of the launchers' own configs on purpose.
warnings.filterwarnings("ignore", message="(?s).*is validated against ConfigStore schema", category=UserWarning)
# If a sweep's folder can't be made, the command reports it.
warnings.filterwarnings("ignore", message="Callback Progress.on_multirun_start raised", category=UserWarning)


def job(config: DictConfig, failures: list[str]) -> Any:
    """Run one job with its composed config, called by Hydra; returns the value of `optimized_metric`.

    Errors don't reach Hydra, which would print them its own way and end a sweep: that of a single run is appended to
    `failures`, that of a sweep's job is written into its folder.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if hydra.mode == RunMode.MULTIRUN:
        if parallel.launcher_name(hydra.launcher) != "basic":
            parallel.number_log_lines(hydra.job.num)
            if config.callbacks.get("progress_bar"):
                config.callbacks.progress_bar = None
        try:
            return sweep_job(config, folder).get(config.optimized_metric)
        except Exception as error:
            reason = in_words(error)
            log.error("failed: %s", reason)
            state.note_failure(folder, reason)
            return None
    try:
        with nullcontext() if started_from_outside() else owned(folder):
            return train(config).get(config.optimized_metric)
    except Interrupted:
        remove_unstarted(folder)
        raise
    except Exception as error:
        failures.append(in_words(error))
        if isinstance(error, UserError) and not started_from_outside():
            remove_unstarted(folder)
    return None


def in_words(error: Exception) -> str:
    """The error as a message; its traceback goes to the log in the folder."""
    log_file = log_traceback(error)
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)} (traceback: {log_file})"


def fetch_data(config: DictConfig) -> None:
    """Find or download the data before torch is imported: missing data is reported at once, for all processes."""
    if config.ckpt_path is None and not is_own(config):
        fetch(config.data.name, config.data.get("root", "data"), config.data.get("verify", True))


def train(config: DictConfig, *, show: bool = True) -> dict[str, Any]:
    """Train in this process, or in several; returns the content of metrics.json."""
    if config.trainer.accelerator not in ("auto", "cpu"):
        from cifar_lightning.training.precision import resolve_accelerator

        resolve_accelerator(config.trainer.accelerator)
    fetch_data(config)
    overrides = list(HydraConfig.get().overrides.task)
    resumed = config if config.ckpt_path is None else config_to_go_on_with(config, overrides)
    processes = processes_to_start(resumed.trainer)
    if processes > 0:
        return run_processes(processes)
    from cifar_lightning.runs.train import run  # imports torch, which takes 2 s

    return run(config, overrides, show=show)


def sweep_job(config: DictConfig, folder: Path) -> dict[str, Any]:
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    if int(next(filter(None, ranks), 0)) > 0:  # the first of several processes locks the folder for all
        return train(config)
    return run_once(folder, config, lambda last: attempt(config, folder, last)) or {}


def run_once(folder: Path, config: DictConfig, train: Callable[[Path | None], dict[str, Any]]) -> dict[str, Any] | None:
    """The metrics of a sweep's job: of its finished run, else of `train`; None if another process is running it.

    train: takes the checkpoint from which an interrupted job resumes, if there is one.
    """
    with claim(folder) as free:
        if not free:
            log.info("%s: another process is running it", folder.name)
            return None
        folders.identify(folder, config)
        state.forget_failure(folder)
        metrics = state.result(folder)
        if metrics is not None:
            log.info("%s: already finished", folder.name)
            return metrics
        last = folder / "checkpoints" / "last.ckpt"
        resumes = last.is_file() and config.train and config.ckpt_path is None
        if resumes:
            log.info("%s: resuming from its last checkpoint", folder.name)
        return train(last if resumes else None)


def attempt(config: DictConfig, folder: Path, last: Path | None) -> dict[str, Any]:
    parallel.claim_gpu(config.trainer)
    numbered = re.fullmatch(r"(.+)-\d+", folder.name)
    if numbered and folder.with_name(numbered[1]).is_dir():
        log.warning("%s holds a run with another config; this job's folder is %s", numbered[1], folder.name)
    if last:  # as if `ckpt_path` had been typed, because processes started from here repeat what was typed
        config.ckpt_path = str(last)
        hydra: Any = HydraConfig.get()
        with read_write(hydra), open_dict(hydra):
            hydra.overrides.task = [*hydra.overrides.task, f"ckpt_path={quoted(last)}"]
    if config.callbacks.get("model_summary"):
        config.callbacks.model_summary = None  # a sweep prints a line an epoch, but no table for each job
    metrics = train(config, show=False)
    accuracies = {"validation": metrics.get("val/acc"), "test": metrics.get("test/acc")}
    known = ", ".join(f"{name} {percent(value)}" for name, value in accuracies.items() if value is not None)
    log.info("%s: %s, %s", folder.name, known or "done", duration(metrics.get("train_seconds")))
    return metrics
