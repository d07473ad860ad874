"""`python -m cifar_lightning -m …`: what is checked before a sweep starts, and what it ends in."""

import logging
import math
import shlex
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import conf_dir, parse_overrides, quoted
from cifar_lightning.config.hints import choices
from cifar_lightning.config.keys import decides
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.tables import duration
from cifar_lightning.runs.folders import shown
from cifar_lightning.runs.memory import give_memory_back
from cifar_lightning.runs.processes import check_folder
from cifar_lightning.sweeps import parallel, state

log = logging.getLogger(__name__)


class Sweep(Callback):
    """Hydra's callback at a sweep's start, when its folder is known, and at each job's end.

    Its jobs get the folder as an absolute path, whatever the working directory of their process.
    """

    folder: Path | None = None
    start = 0.0
    jobs = 0  # in all
    hydra: Any = None  # Hydra's own part of the config

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Sweep.folder, Sweep.start = Path(config.hydra.sweep.dir).absolute(), time.time()
        Sweep.jobs = math.prod(
            len(list(o.sweep_string_iterator()))
            for o in parse_overrides(config.hydra.overrides.task)
            if o.is_discrete_sweep()
        )
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(Sweep.folder)}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        job_return.cfg = job_return.hydra_cfg = None  # Hydra would keep them until the sweep's end
        if config.hydra.mode == RunMode.MULTIRUN:
            give_memory_back()
            done = config.hydra.job.num + 1
            if 0 < done < Sweep.jobs:  # in a launcher's other process nothing is known of the whole
                left = (time.time() - Sweep.start) / done * (Sweep.jobs - done)
                log.info("%d/%d jobs done, about %s left", done, Sweep.jobs, duration(left))


def checked(arguments: Sequence[str], args: Namespace) -> list[str]:
    """The arguments with globs expanded and what the launcher needs added; each value is checked in a job's config.

    Raises UserError.
    """
    expanded = {o.input_line: expand(o, args.config_dir) for o in parse_overrides(args.overrides)}
    arguments = [expanded.get(argument) or argument for argument in arguments]
    overrides = [expanded.get(override) or override for override in args.overrides]
    for key in swept(overrides):
        if not decides(key).compared:
            raise UserError(f"{key} does not decide what is trained, so a sweep over it would be the same job again")
    for job in one_job_for_each_choice(overrides):
        config = compose_checked([*job, *searchpath(args)])
        Sweep.hydra = config.hydra
        check_folder(config.trainer, arguments)
    launcher = Sweep.hydra.launcher
    parallel.check_installed(launcher)
    if swept(overrides) and not any(o.startswith("hydra.sweep.subdir=") for o in overrides):
        arguments.append(f"hydra.sweep.subdir=${{job_folder:{','.join(swept(overrides))}}}")
    batch = "hydra.sweeper.max_batch_size="
    if parallel.launcher_name(launcher) == "submitit_local" and not any(o.startswith(batch) for o in overrides):
        arguments.append(f"{batch}{parallel.jobs_at_once()}")  # it would start all jobs at once
    return arguments


def forget() -> None:
    """A new command in this process is no sweep yet."""
    Sweep.folder = Sweep.hydra = None


def searchpath(args: Namespace) -> list[str]:
    """The folder of `--config-dir`, as an override."""
    return [f"hydra.searchpath=[{quoted(f'file://{Path(args.config_dir).resolve()}')}]"] if args.config_dir else []


def swept(overrides: Sequence[str]) -> list[str]:
    return [o.key_or_group for o in parse_overrides(overrides) if o.is_sweep_override()]


def one_job_for_each_choice(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Overrides of as many jobs as the longest list in a sweep has values: each value is checked at least once."""
    columns = []
    for override in parse_overrides(overrides):
        if override.is_discrete_sweep() and not override.is_hydra_override():
            columns.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            columns.append([override.input_line])
    for i in range(max((len(column) for column in columns), default=1)):
        yield [column[i % len(column)] for column in columns]


def expand(override: Override, config_dir: str | None) -> str | None:
    """`experiment=glob(classic/*)` as the list of what it finds, None for any other override.

    Hydra's own globs don't enter sub-groups. Here a `*` goes as far as the next `/`.
    Raises UserError where nothing is found: Hydra would run nothing, and call it done.
    """
    glob = override.value()
    if not isinstance(glob, Glob):
        return None
    group = override.key_or_group
    names = sorted({name for root in (conf_dir(), config_dir) if root for name in choices(group, Path(root))})
    found = [n for n in names if matches(n, glob.include) and not matches(n, glob.exclude)]
    if not found:
        raise UserError(f"{override.input_line} finds nothing. {group} has: {', '.join(names)}")
    return f"{override.get_key_element()}={','.join(found)}"


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name.count("/") == pattern.count("/") and fnmatch(name, pattern) for pattern in patterns)


def processes() -> AbstractContextManager[None]:
    """What the processes of the sweep's launcher must know of this machine, for as long as Hydra runs."""
    if Sweep.hydra is None:
        return nullcontext()
    return parallel.shared_machine(Sweep.hydra.launcher, Sweep.hydra.sweeper.max_batch_size)


def end(error: Exception | None = None, words: str = "") -> list[str]:
    """Summarise the sweep, if one was started; returns what went wrong, a line each.

    error: what ended the command before its time, if anything did (a launcher that lost its processes, say), and the
    same in `words`.
    """
    folder = Sweep.folder
    if folder is None or not folder.is_dir():
        return [words] if words else []
    from cifar_lightning.commands.summarize import summarize_sweep

    if error is not None:
        (folder / "launcher_error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    summarize_sweep(folder)
    say(f"next:\n  {shlex.join(['python', '-m', 'cifar_lightning', 'report', str(shown(folder))])}")
    unfinished = state.unfinished(folder)
    problems = [f"{job.folder.name}: {job.reason}" for job in unfinished if job.failed and since(job.folder)]
    if running := sum(job.reason == state.RUNNING for job in unfinished):
        problems.append(f"{running} of the jobs are still run by another process; when it has ended,")
    problems += [words] if words else []
    return [*problems, again()] if problems else []


def since(job: Path) -> bool:
    """Whether it failed in this command, not in an earlier one into the same folder."""
    return (job / state.FAILURE).stat().st_mtime >= Sweep.start - 1  # of a coarse file system


def again() -> str:
    """How to go on with what is there."""
    return f"the same command with hydra.sweep.dir={quoted(Sweep.folder)} runs what is missing"
