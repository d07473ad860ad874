"""Share this machine among the jobs of a sweep that run at once: GPUs, threads and the terminal."""

import itertools
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import distributions as find_distributions
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from cifar_lightning.errors import UserError

GPUS = "CIFAR_LIGHTNING_GPUS"  # environment variable: the GPUs for the jobs of a sweep

_gpu: FileLock | None = None  # held until the process ends: a process can't change its GPU once CUDA has started


def visible_gpus() -> list[str]:
    """This machine's GPUs as CUDA_VISIBLE_DEVICES names them, found without importing torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(len(re.findall(r"^GPU \d+:", listed, flags=re.MULTILINE)))]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_at_once() -> int:
    """One job per GPU, else one per core: two jobs with one thread each train faster than one with two threads."""
    return len(visible_gpus()) or cores()


def launcher_name(launcher: Mapping[str, Any]) -> str:
    """`joblib`, `submitit_local`, `submitit_slurm`, `ray`, or `basic` (one job after another in this process)."""
    module, _, name = str(launcher["_target_"]).rpartition(".")
    kinds = {"LocalLauncher": "submitit_local", "SlurmLauncher": "submitit_slurm"}
    return kinds.get(name) or module.rpartition(".")[2].removesuffix("_launcher")


def check_installed(launcher: Mapping[str, Any]) -> None:
    """Raise UserError, saying how to install it, if the launcher's package is missing."""
    plugin = re.match(r"hydra_plugins\.hydra_([a-z]+)_launcher", str(launcher["_target_"]))
    if plugin and not any(find_distributions(name=f"hydra-{plugin[1]}-launcher")):
        raise UserError(
            f"hydra/launcher={launcher_name(launcher)} needs the package hydra-{plugin[1]}-launcher: "
            f"pip install 'cifar-lightning[{plugin[1]}]' (in a clone: pip install -e '.[{plugin[1]}]')"
        )


@contextmanager
def shared_machine(launcher: Mapping[str, Any], batch: int | None) -> Iterator[None]:
    """Set environment variables with the GPUs and threads for the processes that a launcher starts on this machine.

    batch: how many jobs run at once, if the launcher has no setting for it.
    """
    if launcher_name(launcher) not in ("joblib", "submitit_local"):
        yield
        return
    at_once = launcher.get("n_jobs") or batch or jobs_at_once()
    before = dict(os.environ)
    os.environ[GPUS] = ",".join(visible_gpus())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // at_once) if at_once > 0 else 1))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def claim_gpu(trainer: DictConfig) -> str | None:
    """Choose the GPU with the fewest jobs for this process, before torch is imported; returns its name.

    Only for a job on one device, in a process of a launcher that does not choose itself. Jobs are counted by locks,
    which end with their process and include other sweeps on this machine.
    """
    global _gpu
    gpus = [name for name in os.environ.get(GPUS, "").split(",") if name]
    if _gpu is not None or not gpus or trainer.accelerator == "cpu":
        return None
    if trainer.devices != 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)  # submitit hides them all
        return None
    folder = Path(tempfile.gettempdir()) / f"cifar_lightning_{os.getuid() if hasattr(os, 'getuid') else 'gpus'}"
    folder.mkdir(exist_ok=True)
    for jobs, gpu in ((jobs, gpu) for jobs in itertools.count() for gpu in gpus):
        lock = FileLock(folder / f"gpu_{gpu.replace('/', '-')}_{jobs}.lock", timeout=0)
        with suppress(Timeout):
            lock.acquire()
            _gpu = lock
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return gpu
    return None


def number_log_lines(number: int) -> None:
    """Print log messages with the job's number in front, as several processes share the terminal."""
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter(f"[#{number}] %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [console, *(h for h in root.handlers if isinstance(h, logging.FileHandler))]
