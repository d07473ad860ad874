"""Growth of memory, open files, threads and folders over a long run and a long sweep.

Each is one process, started like a user's, with a tiny network and the default callbacks, logger and figures.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from benchmarks import record
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_csv

GOAL = "memory flat within 2 %, open files and threads flat, checkpoints of constant size, logs a line per epoch"
EXPECTED = "flat after the first epochs, and after the first few jobs of a sweep"
EXAMPLES = """\
  python -m benchmarks.soak                            200 epochs and 100 jobs: about 5 minutes
  python -m benchmarks.soak --epochs 2000 --jobs 1000
"""
TINY = [
    "data=digits",
    "model=cnn2",
    "model.channels=[4,4]",
    "model.hidden=[8]",
    "trainer.accelerator=cpu",
    "trainer.limit_train_batches=4",
    "+callbacks.soak._target_=benchmarks.soak.Gauge",
]
FLAT = ("MB", "files", "threads")
Row = Mapping[str, float]


class Gauge(Callback):
    """Append a line to the file `path` after each epoch, or with `every=run` after each run."""

    def __init__(self, path: str, every: str = "epoch") -> None:
        self.path, self.every = Path(path), every

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every == "epoch" and trainer.current_epoch:  # the previous epoch is over, with its checkpoints
            self._read(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every == "epoch":
            self._read(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every == "run":
            self._read(trainer)

    def _read(self, trainer: L.Trainer) -> None:
        folder = Path(trainer.default_root_dir)
        measured = gauge() | {
            "checkpoints": size(folder / "checkpoints"),
            "logs": size(folder) - size(folder / "checkpoints") - size(folder / "figures"),
        }
        new = not self.path.exists()
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines([",".join(measured) + "\n"] * new + [",".join(map(str, measured.values())) + "\n"])


def gauge() -> dict[str, float]:
    """Resident memory in MB (10^6 bytes), open files and threads of this process. Linux only."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "MB": round(int(status["VmRSS"].split()[0]) * 1024 / 1e6, 3),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
    }


def size(folder: Path) -> int:
    """Bytes of all files in the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(arguments: argparse.Namespace) -> record.Record:
    if not sys.platform.startswith("linux"):
        raise UserError("benchmarks.soak needs /proc/self, which only Linux has")
    seeds = ",".join(map(str, range(arguments.jobs)))
    curves = {
        "epoch": curve([f"trainer.max_epochs={arguments.epochs}"], "epoch"),
        "job": curve(["-m", f"seed={seeds}", "trainer.max_epochs=1"], "run"),
    }
    rows, seen = [], []
    for unit, points in curves.items():
        grown = ", ".join(f"{name} {growth(points, name):+.1%}" for name in FLAT)
        seen.append(f"{len(points)} {unit}s: {grown}")
        rows += [row(unit, at, points[at - 1]) for at in marks(len(points))]
    return record.Record(GOAL, EXPECTED, "; ".join(seen) + " since a fifth of the way", rows)


def curve(arguments: Sequence[str], every: str) -> Sequence[Row]:
    """Run the command with these arguments in a new process; a row per epoch or run."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        points = Path(folder) / "points.csv"
        gauge = [f"+callbacks.soak.path={points}", f"+callbacks.soak.every={every}", f"paths.log_dir={folder}"]
        record.run_python(["-m", "cifar_lightning", *arguments, *TINY, *gauge], folder)
        return read_csv(points)


def marks(n: int) -> list[int]:
    """The points of `n` that the table shows: the first and every fifth of the way."""
    return sorted({1, *(max(1, n * fifth // 5) for fifth in range(1, 6))})


def growth(points: Sequence[Row], name: str) -> float:
    """Relative growth from a fifth of the way to the end, each the median over a tenth of the points."""
    few = max(1, len(points) // 10)
    begin = max(0, len(points) // 5 - 1)
    early, late = points[begin : begin + few], points[-few:]
    return statistics.median(p[name] for p in late) / statistics.median(p[name] for p in early) - 1


def row(unit: str, at: int, point: Row) -> dict[str, str]:
    return {
        "after": f"{unit} {at}",
        "resident, MB": f"{point['MB']:.1f}",
        "open files": f"{point['files']:.0f}",
        "threads": f"{point['threads']:.0f}",
        "checkpoints, kB": f"{point['checkpoints'] / 1e3:.1f}",
        "logs, kB": f"{point['logs'] / 1e3:.1f}",
    }


def main(argv: Sequence[str] | None = None) -> int:
    options = record.parser("soak", __doc__ or "", EXAMPLES, repetitions=1)
    options.set_defaults(digits=True)
    options.add_argument("--epochs", type=record.positive, default=200, help="epochs of the run (default: 200)")
    options.add_argument("--jobs", type=record.positive, default=100, help="jobs of the sweep (default: 100)")
    return record.main(options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
