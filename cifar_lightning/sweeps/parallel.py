"""Several jobs of a sweep at once on this machine: how many, on which GPU, with how many threads, and who says what."""

import importlib.util
import itertools
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from cifar_lightning.errors import UserError

GPUS = "CIFAR_LIGHTNING_GPUS"  # environment variable: the GPUs among which a sweep's jobs choose

_gpu: FileLock | None = None  # held as long as this process lives: CUDA can't change its GPU once it has started


def visible_gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES knows this machine's GPUs. Without torch, which would take seconds."""
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
    """One job a GPU; without GPUs one a core: two jobs of one thread train more images a second than one of two."""
    return len(visible_gpus()) or cores()


def launcher_name(launcher: Mapping[str, Any]) -> str:
    """`joblib`, `submitit_local`, `submitit_slurm`, `ray`, or `basic`: one job after the other, in this process."""
    module, _, name = str(launcher["_target_"]).rpartition(".")
    kinds = {"LocalLauncher": "submitit_local", "SlurmLauncher": "submitit_slurm"}
    return kinds.get(name) or module.rpartition(".")[2].removesuffix("_launcher")


def check_installed(launcher: Mapping[str, Any]) -> None:
    """Raise UserError, saying how to install it, where the launcher's package is missing."""
    plugin = re.match(r"hydra_plugins\.hydra_([a-z]+)_launcher", str(launcher["_target_"]))
    if plugin is None:
        return
    try:
        found = importlib.util.find_spec(plugin[0]) is not None
    except ModuleNotFoundError:  # no plugin at all
        found = False
    if not found:
        raise UserError(
            f"hydra/launcher={launcher_name(launcher)} needs the package hydra-{plugin[1]}-launcher: "
            f"pip install 'cifar-lightning[{plugin[1]}]' (in a clone: pip install -e '.[{plugin[1]}]')"
        )


@contextmanager
def shared_machine(launcher: Mapping[str, Any], batch: int | None) -> Iterator[None]:
    """Tell the processes that a launcher starts on this machine which GPUs there are, and how many threads each has.

    batch: how many jobs start at once, where the launcher itself does not say.
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
    """Choose the GPU with the fewest jobs for this process, before torch sees any; returns its name.

    Only for a job that wants one device, in a process of a launcher that leaves the choice to us. Locks, which end
    with their process, keep count, so that other sweeps on this machine are counted too.
    """
    global _gpu
    gpus = [name for name in os.environ.get(GPUS, "").split(",") if name]
    if _gpu is not None or not gpus or trainer.accelerator == "cpu":
        return None
    if trainer.devices != 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)  # submitit would hide them all
        return None
    folder = Path(tempfile.gettempdir()) / f"cifar_lightning_{os.getuid() if hasattr(os, 'getuid') else 'gpus'}"
    folder.mkdir(exist_ok=True)
    for jobs, gpu in itertools.product(range(1000), gpus):
        lock = FileLock(folder / f"gpu_{gpu.replace('/', '-')}_{jobs}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        _gpu = lock
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        return gpu
    raise UserError("a thousand jobs have each GPU already")


class Prefixed:
    """A text stream for one of several processes: whole lines only, each with a prefix; and no terminal."""

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self.stream, self.prefix, self.rest = stream, prefix, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        if lines:  # in one piece, so that no other process can write between them
            self.stream.write("".join(f"{self.prefix} {line}\n" if line.strip() else "" for line in lines))
            self.stream.flush()
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def prefixed_output(prefix: str) -> Iterator[None]:
    """Whatever this process says starts with the prefix, line by line, and there is no progress bar.

    Logging, which Hydra has set up already, is led there, too.
    """
    streams = sys.stdout, sys.stderr
    root = logging.getLogger()
    handlers = root.handlers[:]
    sys.stdout, sys.stderr = Prefixed(sys.stdout, prefix), Prefixed(sys.stderr, prefix)
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    root.handlers[:] = [console, *(h for h in handlers if isinstance(h, logging.FileHandler))]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        root.handlers[:] = handlers
