"""Time until the command answers, and until the first optimizer step with the data on disk.

Each in its own process, in turns. The first step is compared with a process that imports torch and lightning and reads
the same files with pickle and NumPy.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from benchmarks import record

GOAL = "--help, a config error and --cfg job under 0.7 s each, without importing torch; first step at most 1.3x"
EXPECTED = "half a second for the three; the first step takes twice as long as importing torch and lightning"
EXAMPLES = """\
  python -m benchmarks.startup                    about a minute
"""
ANSWERS = {"--help": ["--help"], "a config error": ["model=resnt"], "--cfg job": ["--cfg", "job"]}
READING = """
import sys, torch, lightning
import pickle, numpy as np
from pathlib import Path
folder = Path(sys.argv[1]) / "cifar-10-batches-py"
names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
batches = [pickle.loads((folder / name).read_bytes(), encoding="bytes") for name in names]
images = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
"""


class EndAfterFirstStep(Callback):
    """Exit the process right after the first optimizer step."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        os._exit(0)


def measure(arguments: argparse.Namespace) -> record.Record:
    command = ["-m", "cifar_lightning"]
    data = record.data_overrides(arguments)
    with tempfile.TemporaryDirectory() as folder:
        ending = "+callbacks.end._target_=benchmarks.startup.EndAfterFirstStep"
        first_step = [*command, *data, "model=cnn2", f"paths.log_dir={folder}", ending]
        programs: dict[str, Callable[[], float]] = {
            name: partial(seconds, [*command, *words], folder, check=name != "a config error")
            for name, words in ANSWERS.items()
        }
        programs["first step"] = partial(seconds, first_step, folder)
        programs["imports and files"] = partial(seconds, baseline(arguments), folder)
        times = record.in_turns(programs, arguments.repetitions)
        torch_in = [name for name, words in ANSWERS.items() if imports_torch([*command, *words], folder)]
    ratio = record.median_ratio(times["first step"], times["imports and files"])
    goals = dict.fromkeys(ANSWERS, "0.70") | {
        "first step": f"{1.3 * statistics.median(times['imports and files']):.2f}"
    }
    rows = [
        {"what": name, "seconds": f"{statistics.median(taken):.2f}", "goal": goals.get(name, "-")}
        for name, taken in times.items()
    ]
    seen = f"first step {ratio:.2f}x; torch imported by: {', '.join(torch_in) or 'none of the three'}"
    return record.Record(GOAL, EXPECTED, seen, rows)


def baseline(arguments: argparse.Namespace) -> list[str]:
    if arguments.digits:
        import cifar_lightning

        digits = Path(cifar_lightning.__file__).parent / "data" / "digits.npz"
        return ["-c", f"import torch, lightning, numpy\ndict(numpy.load({str(digits)!r}))"]
    return ["-c", READING, str(arguments.root.absolute())]


def seconds(arguments: Sequence[str], folder: str, check: bool = True) -> float:
    """Wall-clock time of Python with these arguments, run in `folder`."""
    start = time.perf_counter()
    record.run_python(arguments, folder, check=check)
    return time.perf_counter() - start


def imports_torch(arguments: Sequence[str], folder: str) -> bool:
    return "| torch\n" in record.run_python(["-X", "importtime", *arguments], folder, check=False).stderr


def main(argv: Sequence[str] | None = None) -> int:
    return record.main(record.parser("startup", __doc__ or "", EXAMPLES, repetitions=5), measure, argv)


if __name__ == "__main__":
    sys.exit(main())
