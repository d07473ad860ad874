"""Start the command as a shell would, and read what its processes leave."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "logger=none", "trainer.precision=32-true"]
SHORT = [*QUICK, "trainer.max_epochs=1", "trainer.limit_train_batches=3"]
MODULE, SCRIPT = [sys.executable, "-m", "cifar_lightning"], [str(Path(sys.executable).parent / "cifar-lightning")]


def start(folder: Path, *arguments: str, program: list[str] = MODULE) -> subprocess.Popen[str]:
    """The command as a shell would start it: heeding Ctrl-C, in a process group of its own."""
    return subprocess.Popen(
        [*program, *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(folder: Path, *arguments: str, program: list[str] = MODULE) -> tuple[int, str, str]:
    process = start(folder, *arguments, program=program)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def rows(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def relatives(folder: Path) -> list[str]:
    """The processes that work in this folder."""
    return [link.parent.name for link in Path("/proc").glob("[0-9]*/cwd") if points_to(link, folder)]


def points_to(link: Path, folder: Path) -> bool:
    try:
        return link.resolve() == folder.resolve()
    except OSError:  # it has ended, or is somebody else's
        return False
