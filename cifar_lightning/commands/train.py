"""Training, the command without a name: check what was typed, then hand it to Hydra, which runs the job or the sweep.

Nothing here imports torch, so that help, configs and mistakes cost tenths of a second.
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
from cifar_lightning.commands.completion import check_request, complete_sub_folders
from cifar_lightning.commands.sweep import Sweep, checked_sweep, end_of_sweep, searchpath
from cifar_lightning.commands.usage import usage
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import conf_dir, quoted, quoted_paths
from cifar_lightning.console import say
from cifar_lightning.errors import Interrupted, UserError, causes
from cifar_lightning.runs.folders import check_owner, checkpoint_to_resume, folder_of
from cifar_lightning.runs.processes import (
    check_folder,
    end_with_the_command,
    leave_group,
    leave_slurm,
    report,
    started_from_outside,
)
from cifar_lightning.sweeps.job import job
from cifar_lightning.sweeps.parallel import shared_machine

EXPECTED = (UserError, HydraException, OSError, OmegaConfBaseException)


def main() -> None:
    """Train with the overrides of `sys.argv`; a mistake ends it with `error: …` on standard error and exit code 1."""
    end_with_the_command()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing a traceback of its own
    os.environ["OC_CAUSE"] = "1"  # OmegaConf tells the cause of an error
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
    """What ended the command; a library's error gives way to the system's beneath it, such as a folder's."""
    system = next((cause for cause in causes(error) if isinstance(cause, OSError)), None)
    if system is not None and isinstance(error, OSError | OmegaConfBaseException):
        return f"{system.filename or 'input/output'}: {system.strerror or system}"
    return " ".join(str(error).split())


def parsed(arguments: Sequence[str]) -> Namespace:
    """Hydra's options and the overrides; what only prints something is done here. Raises UserError."""
    if "--version" in arguments:  # Hydra would give its own
        say(f"cifar_lightning {__version__}")
        sys.exit()
    args = get_args_parser().parse_args(arguments)
    if args.shell_completion:
        check_request(args.overrides)
        complete_sub_folders()
    if args.help:
        say(usage(args.config_dir).rstrip())
        sys.exit()
    return args


def checked_arguments(arguments: Sequence[str], args: Namespace) -> list[str]:
    """The arguments of a single run, checked, with the folder of a run that goes on. Raises UserError."""
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
    check_folder(config.trainer, typed)
    if folder is None and not (args.cfg or started_from_outside()):
        typed.append(f"hydra.run.dir={quoted(Path(config.hydra.run.dir).absolute())}")  # made here, once
    return typed
