"""Train, the command without a name: check the arguments, then let Hydra run the job or the sweep.

Nothing here imports torch, so help, configs and errors take tenths of a second.
"""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cifar_lightning import __version__
from cifar_lightning.commands.sweep import Sweep, checked_sweep, end_of_sweep, searchpath
from cifar_lightning.commands.usage import check_completion, complete_sub_folders, usage
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import conf_dir, quoted, quoted_paths
from cifar_lightning.console import say
from cifar_lightning.errors import Interrupted, UserError, causes
from cifar_lightning.runs.folders import check_owner, checkpoint_to_resume, folder_of
from cifar_lightning.runs.processes import (
    check_processes,
    die_with_command,
    leave_group,
    leave_slurm,
    report,
    started_from_outside,
)
from cifar_lightning.sweeps.job import job
from cifar_lightning.sweeps.parallel import shared_machine

EXPECTED = (UserError, HydraException, OSError, OmegaConfBaseException)


def main() -> None:
    """Train with the overrides in `sys.argv`; errors are printed as `error: …`, with exit code 1."""
    die_with_command()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # have Hydra raise errors instead of printing tracebacks
    os.environ["OC_CAUSE"] = "1"  # have OmegaConf name the causes of errors
    sweep: Sweep | None = None
    problems: list[str] = []

    def task(config: DictConfig) -> Any:
        return job(config, problems)

    try:
        leave_slurm()
        arguments = quoted_paths(sys.argv[1:])
        args = parsed(arguments)
        if args.multirun:
            sweep = checked_sweep(arguments, args)
        sys.argv[1:] = sweep.arguments if sweep else checked_arguments(arguments, args)
        with shared_machine(sweep.hydra.launcher, sweep.hydra.sweeper.max_batch_size) if sweep else nullcontext():
            hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(task)()
        problems += end_of_sweep(sweep) if sweep else []
    except Interrupted as ending:
        report(f"stopped by {ending.signal.name}; {sweep.again()}" if sweep else str(ending), "")
        sys.exit(128 + ending.signal)
    except (KeyboardInterrupt, SystemExit) as ending:
        code = ending.code if isinstance(ending, SystemExit) else 128 + signal.SIGINT
        if sweep and code:
            report(f"interrupted; {sweep.again()}")
        elif isinstance(ending, KeyboardInterrupt):
            report("interrupted before the run began")
        sys.exit(code)
    except Exception as error:
        if sweep is None and not isinstance(error, EXPECTED):
            raise
        problems += end_of_sweep(sweep, error, one_line(error)) if sweep else [one_line(error)]
    if problems:
        report("\n       ".join(problems))
        sys.exit(1)
    leave_group()


def one_line(error: BaseException) -> str:
    """The error as one line; an OSError that caused a library's error says more, such as which folder."""
    system = next((cause for cause in causes(error) if isinstance(cause, OSError)), None)
    if system is not None and isinstance(error, OSError | OmegaConfBaseException):
        return f"{system.filename or 'input/output'}: {system.strerror or system}"
    return " ".join(str(error).split())


def parsed(arguments: Sequence[str]) -> Namespace:
    """Hydra's options and the overrides; prints help and version. Raises UserError."""
    if "--version" in arguments:  # Hydra would print its own
        say(f"cifar_lightning {__version__}")
        sys.exit()
    args = get_args_parser().parse_args(arguments)
    if args.shell_completion:
        check_completion(args.overrides)
        complete_sub_folders()
    if args.help:
        say(usage(args.config_dir).rstrip())
        sys.exit()
    return args


def checked_arguments(arguments: Sequence[str], args: Namespace) -> list[str]:
    """The arguments of a single run, checked, with the folder of the run. Raises UserError."""
    if args.hydra_help or args.shell_completion or args.info or args.experimental_rerun:
        return list(arguments)
    config = compose_checked([*args.overrides, *searchpath(args)])
    typed, checkpoint = list(arguments), None
    folder = Path(config.hydra.run.dir) if any(o.startswith("hydra.run.dir=") for o in args.overrides) else None
    if config.ckpt_path is not None:
        checkpoint = checkpoint_to_resume(config)
        typed.append(f"ckpt_path={quoted(checkpoint)}")
        if folder is None and config.train and (folder := folder_of(checkpoint)):
            typed.append(f"hydra.run.dir={quoted(folder)}")
    if folder is not None and not started_from_outside():
        check_owner(folder, checkpoint if config.train else None)
    check_processes(config.trainer, typed)
    if folder is None and not (args.cfg or started_from_outside()):
        typed.append(f"hydra.run.dir={quoted(Path(config.hydra.run.dir).absolute())}")  # resolving it makes the folder
    return typed
