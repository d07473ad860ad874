"""A run on several processes of this machine: they are started, watched and, where one fails, ended from here.

Lightning would let the first process start the others by repeating the command. In a sweep that is the whole sweep,
and where one of them dies it kills the command without a word. Needs no torch.
"""

import atexit
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cifar_lightning.config.compose import quoted
from cifar_lightning.console import say
from cifar_lightning.errors import SIGNALS, Interrupted, UserError
from cifar_lightning.runs.folders import how_to_go_on

REASON = "CIFAR_LIGHTNING_REASON"  # environment variable: the file where the first process to fail says why
SLURM = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")  # what Lightning reads
PATIENCE = 5.0  # seconds for the others to end by themselves
TIME_TO_SAVE = 15.0  # seconds for all to end at their next step

Process = subprocess.Popen[Any]


def processes_to_start(trainer: DictConfig) -> int:
    """How many processes this command has to start for these settings; 0 where it is to do the work itself.

    A strategy for several gets a new process even for one device: what it leaves behind (environment variables, the
    group of processes) would mislead the next job of a sweep.
    Raises UserError for a strategy that would start processes in another way.
    """
    if any(way in str(trainer.strategy) for way in ("spawn", "fork", "notebook")):
        raise UserError(f"trainer.strategy={trainer.strategy}: a command starts its processes itself; use ddp")
    if started_from_outside():
        return 0
    devices = trainer.devices if isinstance(trainer.devices, int) else len(trainer.devices)
    if devices == -1:
        import torch

        devices = max(1, torch.cuda.device_count()) if trainer.accelerator != "cpu" else 1
    return devices if devices > 1 or trainer.strategy != "auto" else 0


def started_from_outside() -> bool:
    """Whether this process is one of several that torchrun, srun or `run_processes` has started.

    A SLURM batch script is one process, whatever the number of tasks that it asked for: srun starts those.
    """
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def leave_slurm() -> None:
    """Keep Lightning from taking a process that srun did not start for one of the batch script's tasks.

    Raises UserError for a variable that is no number.
    """
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", *SLURM):
        if not os.environ.get(name, "0").isdecimal():
            raise UserError(
                f"the environment variable {name}={os.environ[name]} must be a number: unset it, or mend it"
            )
    if not started_from_outside():
        for name in ("SLURM_NTASKS", "SLURM_NPROCS"):
            os.environ.pop(name, None)


def check_number(trainer: DictConfig) -> None:
    """Raise UserError where another number of processes was started from outside than the config asks for."""
    there = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("WORLD_SIZE"))
    if there is None or not started_from_outside() or REASON in os.environ or trainer.devices == -1:
        return
    devices = trainer.devices if isinstance(trainer.devices, int) else len(trainer.devices)
    if int(there) != devices * trainer.num_nodes:
        raise UserError(
            f"{there} processes were started, and trainer.devices={trainer.devices} on "
            f"trainer.num_nodes={trainer.num_nodes} machines makes {devices * trainer.num_nodes}: let both agree"
        )
    missing = [name for name in SLURM if "SLURM_STEP_NUM_TASKS" in os.environ and name not in os.environ]
    if missing:
        raise UserError(
            f"srun's variable {missing[0]} is not set: start the command with srun, or clear SLURM_STEP_NUM_TASKS"
        )


def check_folder(trainer: DictConfig, arguments: Sequence[str]) -> None:
    """Raise UserError where processes that know nothing of each other would make a folder each."""
    check_number(trainer)
    several = trainer.num_nodes > 1 or (started_from_outside() and trainer.devices != 1)
    if several and not any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for argument in arguments):
        raise UserError(
            "several machines, and processes that torchrun or SLURM starts, need one folder for all: hydra.run.dir=…"
        )


def run_processes(count: int) -> dict[str, Any]:
    """Run Hydra's current job in `count` new processes; returns its metrics.json.

    The first process has the terminal; what the others write to standard error goes into the run's log.
    Raises UserError with the reason of the one that failed first, when all have ended.
    """
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    log = folder / f"{job.job.name}.log"
    with tempfile.TemporaryDirectory() as scratch, log.open("ab") as errors:
        reason = Path(scratch) / "reason"
        # What is set already is meant for several machines: there the first one's address has to be given.
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()} | os.environ | {REASON: str(reason)}
        processes: list[Process] = []
        stopped: list[int] = []  # the signals so far

        def pass_on(number: int, _: Any) -> None:
            for process in processes:
                process.kill() if stopped else process.send_signal(number)
            stopped.append(number)

        signals = [n for n in SIGNALS if n.name != "SIGHUP" or signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, pass_on) for number in signals}
        try:
            for rank in range(count):
                streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": errors} if rank else {}
                environment["LOCAL_RANK"] = str(rank)
                processes.append(subprocess.Popen(command(job), env=environment, **streams))
            failed = first_failure(processes, stopped)
        finally:
            end(processes)
            for number, handler in before.items():
                signal.signal(number, handler)
        if stopped and any(process.returncode for process in processes):
            advice = reason.read_text(encoding="utf-8") if reason.exists() else "The processes had to be killed"
            raise Interrupted(advice, stopped[0])
        if failed is not None:
            code = processes[failed].returncode
            if code > 0 and reason.exists():
                raise UserError(reason.read_text(encoding="utf-8"))
            how = f"with exit code {code}" if code > 0 else f"by {signal.Signals(-code).name}"
            go_on = how_to_go_on(folder, job.overrides.task)
            raise UserError(f"process {failed} of {count} was ended {how}; more may be in {log}. {go_on}")
    metrics = folder / "metrics.json"
    return json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else {}


def command(job: HydraConf) -> list[str]:
    """This job of Hydra's, alone and in the folder that it has already."""
    options = [f"--config-dir={s.path}" for s in job.runtime.config_sources if s.provider == "command-line"]
    ours = ("hydra.mode", "hydra.run.", "hydra.sweep", "hydra/sweeper", "hydra.launcher", "hydra/launcher")
    typed = [override for override in job.overrides.hydra if not override.startswith(ours)]
    here = [f"hydra.run.dir={quoted(job.runtime.output_dir)}", "hydra.output_subdir=null"]  # .hydra is there already
    return [sys.executable, "-m", "cifar_lightning", *options, *job.overrides.task, *typed, *here]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def first_failure(processes: Sequence[Process], stopped: Sequence[int]) -> int | None:
    """Wait until all have ended well, or until one has not: its rank; once `stopped`, only so long."""
    deadline = math.inf
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        failed = [(code, rank) for rank, code in enumerate(codes) if code]
        if failed:
            return min(failed)[1]  # one that a signal killed (a negative code) before one that failed for its loss
        if None not in codes:
            return None
        if stopped:
            deadline = min(deadline, time.monotonic() + TIME_TO_SAVE)
        time.sleep(0.1)
    return None


def end(processes: Sequence[Process]) -> None:
    """Wait a little for the processes, then kill those that still run."""
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def report(message: str, prefix: str = "error: ") -> None:
    """Say why this process ends: on standard error, or to the command that has started it with others."""
    if REASON not in os.environ:
        say(prefix + message, sys.stderr)
        return
    with suppress(FileExistsError), open(os.environ[REASON], "x", encoding="utf-8") as file:
        file.write(message)


def end_with_the_command() -> None:
    """Where `run_processes` has started this process: don't outlive the command, even one that was killed."""
    if REASON not in os.environ:
        return
    command, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            if os.getppid() != command:
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()

    @atexit.register  # Python kills a daemon thread that wakes while the interpreter ends; that can abort the process
    def stop_watching() -> None:
        over.set()
        watcher.join()


def leave_group() -> None:
    """End the connection to the other processes of a run that ended well.

    Lightning does so for NCCL only, and gloo's threads would outlive the interpreter. After a failure one would wait
    here for processes that may never answer.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()
