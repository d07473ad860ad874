"""`python -m cifar_lightning`: checks what was typed, then hands it to Hydra, which runs the job or the sweep.

Nothing here imports torch, so that help, configs and mistakes cost tenths of a second.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cifar_lightning.config import conf_dir, forget_folders, parse_overrides, quoted, register_resolvers
from cifar_lightning.console import log_traceback
from cifar_lightning.errors import UserError
from cifar_lightning.processes import check_folder, end_with_the_command, processes_to_start, report, run_processes
from cifar_lightning.runs import checkpoint_to_resume, folder_of
from cifar_lightning.validation import choices, compose_checked

PATHS = r"ckpt_path|data\.root|paths\.\w+|hydra\.run\.dir|hydra\.sweep\.dir"

failures: list[str] = []  # why jobs of this process failed, a line each


def main() -> None:
    """The console command; where something is wrong it ends with `error: …` on standard error and exit code 1."""
    end_with_the_command()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing a traceback of its own
    register_resolvers()
    forget_folders()
    failures.clear()
    try:
        sys.argv[1:] = checked_arguments(quoted_paths(sys.argv[1:]))
        hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(job)()
    except (UserError, HydraException, OSError, OmegaConfBaseException) as error:
        fail(one_line(error))
    if failures:
        fail("\n       ".join(failures))


def one_line(error: BaseException) -> str:
    if isinstance(error, OmegaConfBaseException) and error.__cause__:  # a folder that can't be made, for one
        return one_line(error.__cause__)
    if isinstance(error, OSError):
        return f"{error.filename or 'input/output'}: {error.strerror or error}"
    return " ".join(str(error).split())


def fail(message: str) -> None:
    report(message)
    sys.exit(1)


def quoted_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments with paths in quotes: our own folders have `=` and `,` in their names, which Hydra would read."""
    return [re.sub(rf"^({PATHS})=([^'\"\[].*)$", lambda m: f"{m[1]}={quoted(m[2])}", a) for a in arguments]


def checked_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments, checked; to resume a run, its folder is added, so that the run goes on where it was.

    Raises UserError.
    """
    args = get_args_parser().parse_args(arguments)
    if args.help or args.hydra_help or args.shell_completion or args.info or args.experimental_rerun:
        return list(arguments)
    added = [f"hydra.searchpath=[{quoted(f'file://{Path(args.config_dir).resolve()}')}]"] if args.config_dir else []
    if args.multirun:
        for overrides in one_job_for_each_choice(args):
            check_folder(compose_checked([*overrides, *added]).trainer, arguments)
        return list(arguments)
    config = compose_checked([*args.overrides, *added])
    typed = list(arguments)
    if config.ckpt_path is not None:
        checkpoint = checkpoint_to_resume(config)
        typed.append(f"ckpt_path={quoted(checkpoint)}")
        folder = folder_of(checkpoint)
        if folder and config.train and not any(o.startswith("hydra.run.dir=") for o in args.overrides):
            typed.append(f"hydra.run.dir={quoted(folder)}")
    check_folder(config.trainer, typed)
    return typed


def one_job_for_each_choice(args: Namespace) -> Iterator[list[str]]:
    """Overrides of as many jobs as the longest list in a sweep has values: each value is checked at least once."""
    columns = []
    for override in parse_overrides(args.overrides):
        if override.is_discrete_sweep() and not override.is_hydra_override():
            values = list(sweep_values(override))
            columns.append([f"{override.get_key_element()}={value}" for value in values])
        else:
            columns.append([override.input_line])
    for i in range(max((len(column) for column in columns), default=1)):
        yield [column[i % len(column)] for column in columns]


def sweep_values(override: Override) -> Iterator[str]:
    """What a sweep over this override goes through.

    Raises UserError where a glob finds nothing: Hydra would run nothing, and call it done.
    """
    glob = override.value()
    if not isinstance(glob, Glob):
        yield from override.sweep_string_iterator()
        return
    group = override.key_or_group
    found = glob.filter([name for name in choices(group) if "/" not in name])  # Hydra's globs don't enter sub-groups
    if not found:
        raise UserError(f"{override.input_line} finds nothing. {group} has: {', '.join(choices(group))}")
    yield from found


def job(config: DictConfig) -> Any:
    """One run, called by Hydra with the composed config, in this run's folder.

    Returns `optimized_metric`. A failure is kept for the end of the command: Hydra would print it in its own way, and
    the other jobs of a sweep go on.
    """
    try:
        overrides = list(HydraConfig.get().overrides.task)
        processes = processes_to_start(trainer_settings(config, overrides))
        if processes > 0:
            return run_processes(processes).get(config.optimized_metric)
        from cifar_lightning.train import run  # imports torch: 2 seconds that help and mistakes need not wait for

        return run(config, overrides).get(config.optimized_metric)
    except Exception as error:
        log_file = log_traceback(error)
        reason = (str(error).strip() or "no message").splitlines()[0]
        known = isinstance(error, UserError)
        failures.append(str(error) if known else f"{type(error).__name__}: {reason} (traceback: {log_file})")


def trainer_settings(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The run's own: a resumed one has those of its checkpoint where none were typed."""
    if config.ckpt_path is None:
        return config.trainer
    from cifar_lightning.train import prepared

    return prepared(config, overrides).trainer


if __name__ == "__main__":
    main()
