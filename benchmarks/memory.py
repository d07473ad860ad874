"""Peak resident memory of a run and of the plain script, each in its own process, in turns.

The framework's process does everything a run does, only shorter: training, testing and figures.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import record
from cifar_lightning.errors import UserError

GOAL = "none set"
EXPECTED = (
    "a few hundred MB more than the plain script: Lightning, Hydra, TensorBoard and Matplotlib, and the training "
    "images as bytes (154 MB) twice: as read and as a tensor"
)
EXAMPLES = """\
  python -m benchmarks.memory                     lenet3 and resnet: about a minute
  python -m benchmarks.memory alexnet --steps 20
"""


def measure(arguments: argparse.Namespace) -> record.Record:
    data = record.data_overrides(arguments)
    rows, seen = [], []
    for name in arguments.recipes:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            ours = ["-m", "cifar_lightning", f"experiment=classic/{name}", *data, f"paths.log_dir={folder}"]
            ours += [f"trainer.max_steps={arguments.steps}", "trainer.limit_val_batches=1"]
            theirs = ["-m", "benchmarks.plain", f"classic/{name}", *data]
            theirs.append(f"--steps={arguments.steps}")
            commands = {"run": ours, "plain": theirs}
            peaks = record.in_turns({key: partial(peak, c) for key, c in commands.items()}, arguments.repetitions)
        run, plain = (statistics.median(peaks[key]) for key in commands)
        rows.append(
            {"recipe": name, "MB": f"{run:,.0f}", "plain script": f"{plain:,.0f}", "more": f"{run - plain:,.0f}"}
        )
        seen.append(f"{name} {run - plain:+,.0f} MB")
    return record.Record(GOAL, EXPECTED, ", ".join(seen), rows)


def peak(arguments: Sequence[str]) -> float:
    """Peak resident memory of a Python process with these arguments, in MB (10^6 bytes)."""
    here = str(Path(__file__).parents[1])
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": here},
        )
        _, status, usage = os.wait4(process.pid, 0)  # of this process only
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise UserError(f"{' '.join(arguments)} failed: {(errors.read().strip() or 'no message').splitlines()[-1]}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    options = record.parser("memory", __doc__ or "", EXAMPLES, repetitions=2)
    options.add_argument("recipes", nargs="*", metavar="RECIPE", default=["lenet3", "resnet"], help="of classic/")
    options.add_argument("--steps", type=record.positive, default=20, help="training steps (default: 20)")
    return record.main(options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
