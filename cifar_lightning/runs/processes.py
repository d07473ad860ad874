"""Start the processes of a run on this machine, watch them, and stop all if one fails. Does not import torch.

Lightning would have the first process start the others by repeating the command: in a sweep, that is the whole sweep,
and if one of them dies it kills the command without a message.
"""

import ctypes
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
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
SLURM = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")  # read by Lightning
PATIENCE = 5.0  # seconds for the other processes to end after one failed
TIME_TO_SAVE = 15.0  # seconds for all to end after a signal


def processes_to_start(trainer: DictConfig) -> int:
    """How many processes this command has to start; 0 if it does the work itself.

    A strategy for several processes gets a new one even for a single device: the environment variables and the process
    group that it leaves behind would mislead the next job of a sweep.
    Raises UserError for a strategy that starts processes in another way.
    """
    if any(way in str(trainer.strategy) for way in ("spawn", "fork", "notebook")):
        raise UserError(f"trainer.strategy={trainer.strategy}: the command starts the processes; use ddp")
    if started_from_outside():
        return 0
    devices = device_count(trainer)
    if devices == -1:
        import torch

        devices = max(1, torch.cuda.device_count()) if trainer.accelerator != "cpu" else 1
    return devices if devices > 1 or trainer.strategy != "auto" else 0


def device_count(trainer: DictConfig) -> int:
    return trainer.devices if isinstance(trainer.devices, int) else len(trainer.devices)


def started_from_outside() -> bool:
    """Whether torchrun, srun or `run_processes` started this process as one of several.

    A SLURM batch script itself is one process, however many tasks it requests: srun starts those.
    """
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1


def leave_slurm() -> None:
    """Keep Lightning from taking a process that srun did not start for a task of the batch script.

    Raises UserError for variables of torchrun or srun that are not numbers.
    """
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", *SLURM):
        if not os.environ.get(name, "0").isdecimal():
            raise UserError(f"the environment variable {name}={os.environ[name]} must be a number: unset or correct it")
    if not started_from_outside():
        for name in ("SLURM_NTASKS", "SLURM_NPROCS"):
            os.environ.pop(name, None)


def check_processes(trainer: DictConfig, arguments: Sequence[str]) -> None:
    """Raise UserError if processes started from outside are not as configured, or have no common folder."""
    outside, devices = started_from_outside(), device_count(trainer)
    started = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("WORLD_SIZE"))
    configured = None if devices == -1 or REASON in os.environ else devices * trainer.num_nodes
    if outside and started and configured and int(started) != configured:
        raise UserError(
            f"{started} processes were started, but trainer.devices={trainer.devices} and "
            f"trainer.num_nodes={trainer.num_nodes} make {configured}: let both agree"
        )
    missing = [name for name in SLURM if name not in os.environ]
    if outside and "SLURM_STEP_NUM_TASKS" in os.environ and missing:
        raise UserError(f"srun's variable {missing[0]} is not set: use srun, or unset SLURM_STEP_NUM_TASKS")
    several = trainer.num_nodes > 1 or (outside and trainer.devices != 1)
    if several and not any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for argument in arguments):
        raise UserError("processes started by torchrun or SLURM, or on several machines: set hydra.run.dir=…")


def run_processes(count: int) -> dict[str, Any]:
    """Run Hydra's current job in `count` new processes and return the content of metrics.json.

    Rank 0 has the terminal; standard error of the others goes to the run's log.
    Raises UserError with the reason of the first failure, after all have ended.
    """
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    log = folder / f"{job.job.name}.log"
    processes: list[subprocess.Popen[bytes]] = []
    received: list[int] = []  # signals

    def pass_on(number: int, _: Any) -> None:
        for process in processes:
            process.kill() if received else process.send_signal(number)
        received.append(number)

    signals = [n for n in SIGNALS if n.name != "SIGHUP" or signal.getsignal(n) != signal.SIG_IGN]
    with tempfile.TemporaryDirectory() as scratch, log.open("ab") as errors:
        reason = Path(scratch) / "reason"
        # Variables that are set are for several machines, where the first machine's address must be given.
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()} | os.environ | {REASON: str(reason)}
        handlers = {number: signal.signal(number, pass_on) for number in signals}
        try:
            for rank in range(count):
                streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": errors} if rank else {}
                rank_environment = environment | {"LOCAL_RANK": str(rank)}
                processes.append(subprocess.Popen(job_command(job), env=rank_environment, **streams))
            failed = first_failure(processes, received)
        finally:
            end(processes)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        said = reason.read_text(encoding="utf-8") if reason.exists() else ""
    if received and any(process.returncode for process in processes):
        raise Interrupted(said or "The processes had to be killed", received[0])
    if failed is not None:
        code = processes[failed].returncode
        if code > 0 and said:
            raise UserError(said)
        how = f"with exit code {code}" if code > 0 else f"by {signal.Signals(-code).name}"
        advice = how_to_go_on(folder, job.overrides.task)
        raise UserError(f"process {failed} of {count} was ended {how}; {log} may say more. {advice}")
    metrics = folder / "metrics.json"
    return json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else {}


def job_command(job: HydraConf) -> list[str]:
    """The command that repeats this Hydra job alone, in its folder."""
    options = [f"--config-dir={s.path}" for s in job.runtime.config_sources if s.provider == "command-line"]
    ours = ("hydra.mode", "hydra.run.", "hydra.sweep", "hydra/sweeper", "hydra.launcher", "hydra/launcher")
    typed = [override for override in job.overrides.hydra if not override.startswith(ours)]
    here = [f"hydra.run.dir={quoted(job.runtime.output_dir)}", "hydra.output_subdir=null"]  # .hydra exists already
    return [sys.executable, "-m", "cifar_lightning", *options, *job.overrides.task, *typed, *here]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def first_failure(processes: Sequence[subprocess.Popen[bytes]], received: Sequence[int]) -> int | None:
    """Wait until all processes succeed or one fails, whose rank is returned; after a signal only TIME_TO_SAVE."""
    deadline = math.inf
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        failed = [(code, rank) for rank, code in enumerate(codes) if code]
        if failed:
            return min(failed)[1]  # one killed by a signal (negative code) before one that failed because of it
        if None not in codes:
            return None
        if received:
            deadline = min(deadline, time.monotonic() + TIME_TO_SAVE)
        time.sleep(0.1)
    return None


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait up to PATIENCE for the processes, then kill those that still run."""
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def report(message: str, prefix: str = "error: ") -> None:
    """Print why this process ends, or tell the command that started it with others."""
    if REASON not in os.environ:
        say(prefix + message, sys.stderr)
        return
    with suppress(FileExistsError), open(os.environ[REASON], "x", encoding="utf-8") as file:
        file.write(message)


def die_with_command() -> None:
    """Have Linux kill this process if the command that started it by `run_processes` is killed."""
    if REASON in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def leave_group() -> None:
    """Close the connection to the other processes after a successful run.

    Lightning does it for NCCL only, and gloo's threads would outlive the interpreter. After a failure this would wait
    for processes that may never answer.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()
