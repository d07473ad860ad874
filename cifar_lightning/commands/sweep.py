"""`-m`, a sweep: what is checked before it starts, and what it ends in."""

import shlex
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
from cifar_lightning.runs.folders import shown
from cifar_lightning.runs.processes import check_folder
from cifar_lightning.sweeps import parallel, state
from cifar_lightning.sweeps.overrides import expand, one_job_for_each_choice, swept
from cifar_lightning.sweeps.summary import summarize_sweep


@dataclass(frozen=True)
class Sweep:
    """A sweep that can start: its folder, the arguments for Hydra, and Hydra's own part of the config."""

    folder: Path
    arguments: list[str]
    hydra: Any
    start: float = field(default_factory=time.time)

    def again(self) -> str:
        """How to go on with what is there."""
        return f"the same command with hydra.sweep.dir={quoted(self.folder)} runs what is missing"


def checked_sweep(arguments: Sequence[str], args: Namespace) -> Sweep:
    """Check each value in a job's config; expand globs, make the folder and add what the launcher needs.

    Jobs get the folder as an absolute path, whatever the working directory of their process. Raises UserError.
    """
    expanded = {o.input_line: expand(o, args.config_dir) for o in parse_overrides(args.overrides)}
    arguments = [expanded.get(argument) or argument for argument in arguments]
    overrides = [expanded.get(override) or override for override in args.overrides]
    for key in swept(overrides):
        if not decides(key).compared:
            raise UserError(f"{key} does not decide what is trained, so a sweep over it would be the same job again")
    for job in one_job_for_each_choice(overrides):
        config = compose_checked([*job, *searchpath(args)])
        check_folder(config.trainer, arguments)
    launcher = config.hydra.launcher
    parallel.check_installed(launcher)
    if swept(overrides) and not _given("hydra.sweep.subdir=", overrides):
        arguments.append(f"hydra.sweep.subdir=${{job_folder:{','.join(swept(overrides))}}}")
    batch = "hydra.sweeper.max_batch_size="
    if parallel.launcher_name(launcher) == "submitit_local" and not _given(batch, overrides):
        arguments.append(f"{batch}{parallel.jobs_at_once()}")  # it would start all jobs at once
    if _given("hydra.sweep.dir=", overrides):
        folder = Path(config.hydra.sweep.dir).absolute()
    else:
        folder = Path(run_folder(f"{config.paths.log_dir}/{config.task_name}/multiruns", overridden(overrides)))
    folder = folder.absolute()
    arguments = [a for a in arguments if not a.startswith("hydra.sweep.dir=")]
    return Sweep(folder, [*arguments, f"hydra.sweep.dir={quoted(folder)}"], config.hydra)


def _given(start: str, overrides: Sequence[str]) -> bool:
    return any(override.startswith(start) for override in overrides)


def searchpath(args: Namespace) -> list[str]:
    """The folder of `--config-dir`, as an override."""
    return [f"hydra.searchpath=[{quoted(f'file://{Path(args.config_dir).resolve()}')}]"] if args.config_dir else []


def end_of_sweep(sweep: Sweep, error: Exception | None = None, words: str = "") -> list[str]:
    """Summarise the sweep; returns what went wrong, a line each.

    error: what ended the command before its time, if anything did (a launcher that lost its processes, say), and the
    same in `words`.
    """
    folder = sweep.folder
    if not folder.is_dir():
        return [words] if words else []
    if error is not None:
        (folder / "launcher_error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    summarize_sweep(folder)
    say(f"next:\n  {shlex.join(['python', '-m', 'cifar_lightning', 'report', str(shown(folder))])}")
    unfinished = state.unfinished(folder)
    problems = [
        f"{job.folder.name}: {job.reason}"
        for job in unfinished
        if job.failed and _failed_since(job.folder, sweep.start)
    ]
    if running := sum(job.reason == state.RUNNING for job in unfinished):
        problems.append(f"{running} of the jobs are still run by another process; when it has ended,")
    problems += [words] if words else []
    return [*problems, sweep.again()] if problems else []


def _failed_since(job: Path, start: float) -> bool:
    """Whether it failed in this command, not in an earlier one into the same folder."""
    return (job / state.FAILURE).stat().st_mtime >= start - 1  # of a coarse file system
