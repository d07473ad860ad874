"""Check a sweep (`-m`) before it starts, and summarise it at its end."""

import time
import traceback
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import overridden, parse_overrides, quoted, run_folder
from cifar_lightning.config.keys import decides
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.runs.folders import command, shown
from cifar_lightning.runs.processes import check_processes
from cifar_lightning.sweeps import parallel, state
from cifar_lightning.sweeps.job import fetch_data
from cifar_lightning.sweeps.overrides import expand, one_job_for_each_choice, swept
from cifar_lightning.sweeps.summary import summarize_sweep


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: its folder, the arguments for Hydra, and Hydra's part of the config."""

    folder: Path
    arguments: list[str]
    hydra: Any
    start: float = field(default_factory=time.time)

    def again(self) -> str:
        return f"the same command with hydra.sweep.dir={quoted(self.folder)} runs what is missing"


def checked_sweep(arguments: Sequence[str], args: Namespace) -> Sweep:
    """Check each value in a job's config, expand globs, make the sweep's folder, and add arguments for the launcher.

    The folder is absolute, whatever the working directory of the jobs' processes. Raises UserError.
    """
    expanded = {o.input_line: expand(o, args.config_dir) for o in parse_overrides(args.overrides)}
    arguments = [expanded.get(argument) or argument for argument in arguments]
    overrides = [expanded.get(override) or override for override in args.overrides]
    keys = swept(overrides)
    for key in keys:
        if not decides(key).compared:
            raise UserError(f"{key} does not affect the result, so a sweep over it would repeat the same job")
    for job in one_job_for_each_choice(overrides):
        config = compose_checked([*job, *searchpath(args)])
        check_processes(config.trainer, arguments)
        if parallel.launcher_name(config.hydra.launcher) not in ("submitit_slurm", "ray"):  # other machines' disks
            fetch_data(config)
    launcher = config.hydra.launcher
    parallel.check_installed(launcher)
    given = {override.partition("=")[0] for override in overrides}
    if keys and "hydra.sweep.subdir" not in given:
        arguments.append(f"hydra.sweep.subdir=${{job_folder:{','.join(keys)}}}")
    if parallel.launcher_name(launcher) == "submitit_local" and "hydra.sweeper.max_batch_size" not in given:
        arguments.append(f"hydra.sweeper.max_batch_size={parallel.jobs_at_once()}")  # else all jobs start at once
    if "hydra.sweep.dir" in given:
        folder = Path(config.hydra.sweep.dir).absolute()
    else:
        parent = f"{config.paths.log_dir}/{config.task_name}/multiruns"
        folder = Path(run_folder(parent, overridden(overrides))).absolute()
    arguments = [a for a in arguments if not a.startswith("hydra.sweep.dir=")]
    return Sweep(folder, [*arguments, f"hydra.sweep.dir={quoted(folder)}"], config.hydra)


def searchpath(args: Namespace) -> list[str]:
    """The folder of `--config-dir` as an override. Raises UserError if there is no such folder."""
    if args.config_dir and not Path(args.config_dir).is_dir():
        raise UserError(f"--config-dir={args.config_dir}: no such folder")
    return [f"hydra.searchpath=[{quoted(f'file://{Path(args.config_dir).resolve()}')}]"] if args.config_dir else []


def end_of_sweep(sweep: Sweep, error: Exception | None = None, message: str = "") -> list[str]:
    """Summarise the sweep; returns what went wrong, a line each.

    error, message: what ended the command early, if anything, such as a launcher that lost its processes.
    """
    problems = [message] if message else []
    folder = sweep.folder
    if not folder.is_dir():
        return problems
    if error is not None:
        (folder / "launcher_error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    summarize_sweep(folder)
    say(f"next:\n  {command('report', str(shown(folder)))}")
    unfinished = state.unfinished(folder)
    if running := sum(job.reason == state.RUNNING for job in unfinished):
        problems.insert(0, f"{running} of the jobs are run by another process; when it has ended,")
    # Those that failed in this command, not in an earlier one into the same folder; file systems round times.
    failed = [j for j in unfinished if j.failed and (j.folder / state.FAILURE).stat().st_mtime >= sweep.start - 1]
    problems = [f"{job.folder.name}: {job.reason}" for job in failed] + problems
    return [*problems, sweep.again()] if problems else []
