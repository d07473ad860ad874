"""Images per second of each classic recipe, through the framework and as a plain script, in turns in one process.

The framework trains with its default precision, callbacks and logger; every few seconds it pauses between two steps
while the plain script (benchmarks/plain.py) trains for as long. The first turn of both is a warm-up. The framework's
settings of the process (denormals to zero, freed memory kept) hold for both. torch's profiler then shows
where the framework's time goes.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout

import lightning as L
from lightning.pytorch.callbacks import Callback

from benchmarks import plain, record
from benchmarks.bounds import StepProfile
from cifar_lightning import api
from cifar_lightning.config.compose import conf_dir

GOALS = {"lenet3_augmented": 5.0, "lenet3": 3.0, "resnet": 2.2, "alexnet": 2.2}  # the others: 1.0
GOAL = "on 2 cores 2x as the geometric mean over the ten, none below 1.0x, " + ", ".join(
    f"{name} {goal}x" for name, goal in GOALS.items()
)
EXPECTED = (
    "most from bfloat16 with channels_last if convolutions are wide, and from the pipeline if the transforms cost more "
    "than the network; little if a step is tiny (tutorial_net, 4 images) or dominated by its weights (resnet18)"
)
# The plain script does not validate. classic/resnet sets float32, as in the tutorial.
FIXED = ["trainer.max_epochs=-1", "trainer.limit_val_batches=1", "test=false", "trainer.precision=auto"]
EXAMPLES = """\
  python -m benchmarks.recipes                           all ten: about 8 minutes
  python -m benchmarks.recipes lenet3 resnet
  python -m benchmarks.recipes cnn_relu --set trainer.precision=32-true
"""


class Turns(Callback):
    """Pause a training between two steps every `seconds` while `other` runs for as long."""

    may_miss_steps = True

    def __init__(self, other: Iterator[int], seconds: float, repetitions: int) -> None:
        self.other, self.seconds, self.repetitions = other, seconds, repetitions
        self.ours: list[float] = []  # images per second of each turn, including the first
        self.theirs: list[float] = []
        self._start: float | None = None
        self._images = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: tuple, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._start is not None and now - self._start >= self.seconds:
            images: int = pl_module.images_trained  # type: ignore[assignment]
            self.ours.append((images - self._images) / (now - self._start))
            self.theirs.append(self._others_turn())
            trainer.should_stop = len(self.ours) > self.repetitions
            self._start = None
        if self._start is None:
            self._start = time.perf_counter()
            self._images = pl_module.images_trained  # type: ignore[assignment]

    def _others_turn(self) -> float:
        start, images = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < self.seconds:
            images += next(self.other)
        return images / elapsed


def measure(arguments: argparse.Namespace) -> record.Record:
    data = record.data_overrides(arguments)
    rows, ratios = [], {}
    for name in arguments.recipes or names():
        turns = race(name, [*data, *arguments.set], arguments)
        ours, theirs = turns.ours[1:], turns.theirs[1:]
        ratios[name] = record.median_ratio(ours, theirs)
        rows.append(
            {
                "recipe": name,
                "images/s": f"{statistics.median(ours):,.0f}",
                "plain script": f"{statistics.median(theirs):,.0f}",
                "ratio": f"{ratios[name]:.2f}",
                "goal": f"{GOALS.get(name, 1.0):.1f}",
                "its time goes to": profiled(name, [*data, *arguments.set]),
            }
        )
        print("  ".join(rows[-1].values()), flush=True)
    missed = [name for name, ratio in ratios.items() if ratio < GOALS.get(name, 1.0)]
    seen = f"{statistics.geometric_mean(ratios.values()):.2f}x as the geometric mean over {len(ratios)}"
    seen += f", lowest {min(ratios, key=lambda name: ratios[name])} with {min(ratios.values()):.2f}x"
    return record.Record(GOAL, EXPECTED, f"{seen}; below its goal: {', '.join(missed) or 'none'}", rows)


def race(name: str, overrides: Sequence[str], arguments: argparse.Namespace) -> Turns:
    """Train `experiment=classic/<name>` and its plain script in turns."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, redirect_stdout(record.Terminal()):
        config = api.compose([f"experiment=classic/{name}", *FIXED, *overrides], output_dir=folder)
        turns = Turns(plain.train(config, api.load_data(config).train), arguments.seconds, arguments.repetitions)
        api.train(config, callbacks=[turns])
    return turns


def profiled(name: str, overrides: Sequence[str]) -> str:
    """Where the time of a few steps of `experiment=classic/<name>` goes."""
    steps = StepProfile()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, redirect_stdout(record.Terminal()):
        config = api.compose([f"experiment=classic/{name}", *FIXED, *overrides], output_dir=folder)
        api.train(config, callbacks=[steps])
    return steps.shares()


def names() -> list[str]:
    return sorted(path.stem for path in (conf_dir() / "experiment" / "classic").glob("*.yaml"))


def main(argv: Sequence[str] | None = None) -> int:
    options = record.parser("recipes", __doc__ or "", EXAMPLES, repetitions=5)
    options.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"{', '.join(names())} (default: all)")
    options.add_argument("--seconds", type=float, default=3.0, help="seconds per turn (default: 3)")
    options.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the framework's run")
    return record.main(options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
