"""Training time per step through the framework against a hand-written loop, in short turns in one process.

Both use the same network, batches (the device pipeline's), precision and optimizer, and count loss and accuracy. The
framework has its default callbacks and logger, progress bar included; after some of its steps it pauses while the loop
does as many. The cost of an epoch's end (a checkpoint, a row of history.csv, the end of the bar) is timed separately
and spread over an epoch of 50,000 images. The first epoch is a warm-up. A loop's speed varies by some percent with the
place of its tensors in memory, for a whole training, so there are several trainings, with a ratio each.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import record
from cifar_lightning import api
from cifar_lightning.config.compose import instantiate, plain
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.device_loader import DeviceLoader
from cifar_lightning.optim.build import build_optimizer

GOALS = {"cnn_relu": 1.05, "resnet": 1.02}
GOAL = "at most 1.05x for cnn2 at batch 64 on a CPU (where a step takes milliseconds), 1.02x for resnet"
EXPECTED = (
    "Lightning dispatches twenty hooks per step to ten callbacks and the module: 0.4 to 0.8 ms on one core for any "
    "network. But it sees only one step in 0.25 s; the direct steps in between cost hardly more than a loop's"
)
EXAMPLES = """\
  python -m benchmarks.overhead                            both recipes: about 6 minutes
  python -m benchmarks.overhead cnn_relu --repetitions 20
  python -m benchmarks.overhead cnn_relu --set callbacks=none logger=none
"""
TURNS, EPOCHS = 4, 3  # turns per epoch, epochs per training; the first epoch doesn't count
STEPS = {"cnn_relu": 195, "resnet": 25}  # per turn: about a second, so that the progress bar is drawn as usual


@dataclass
class Seconds:
    """Seconds that a training took."""

    by_hand: float  # per step of the loop
    more: float  # per step of the framework, in addition
    end: float  # per end of an epoch
    steps: int  # number of steps in an epoch of 50,000 images

    @property
    def ratio(self) -> float:
        return 1 + (self.more + self.end / self.steps) / self.by_hand


class Turns(Callback):
    """Pause a training every `steps` steps, or a few more, while the hand-written loop does as many."""

    may_miss_steps = True

    def __init__(self, config: DictConfig, steps: int) -> None:
        self.config, self.steps = config, steps
        self.framework: list[float] = []  # seconds per step in each turn after the first epoch
        self.by_hand: list[float] = []
        self.ends: list[float] = []  # seconds from an epoch's last step to the next epoch's start
        self._first, self._start, self._end = 0, 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._loop = training(self.config, trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: tuple, batch_idx: int
    ) -> None:
        steps = batch_idx - self._first
        if 0 < steps < self.steps:
            return
        if steps > 0:
            framework = (time.perf_counter() - self._start) / steps
            by_hand = self._seconds_by_hand(steps)
            if trainer.current_epoch > 0:
                self.framework.append(framework)
                self.by_hand.append(by_hand)
        self._first, self._start = batch_idx, time.perf_counter()

    def _seconds_by_hand(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            next(self._loop)
        return (time.perf_counter() - start) / steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: tuple, batch_idx: int
    ) -> None:
        self._end = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._end:
            self.ends.append(time.perf_counter() - self._end)

    @property
    def seconds(self) -> Seconds:
        more = statistics.median(a - b for a, b in zip(self.framework, self.by_hand, strict=True))
        end = statistics.median(self.ends)
        return Seconds(statistics.median(self.by_hand), more, end, math.ceil(50_000 / self.config.data.batch_size))


def training(config: DictConfig, trainer: L.Trainer) -> Iterator[None]:
    """The hand-written loop: one training step per `next`, endlessly."""
    device, mixed = trainer.strategy.root_device, str(trainer.precision) == "bf16-mixed"
    format = torch.channels_last if config.channels_last else torch.contiguous_format
    network: nn.Module = instantiate(plain(config.model)).to(device, memory_format=format)
    optimizer = build_optimizer(network, plain(config.optimizer))
    data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
    loader = DeviceLoader(data.train, transforms=data.transforms, device=device, batch_size=config.data.batch_size)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (data.mean, data.std))
    while True:
        total, correct, n = (torch.zeros((), device=device) for _ in range(3))
        for images, labels in loader:
            images = ((images.float() / 255 - mean) / std).contiguous(memory_format=format)
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                logits = network(images).float()
            loss = cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            n += len(labels)
            yield


def measure(arguments: argparse.Namespace) -> record.Record:
    data = record.data_overrides(arguments)
    rows, seen = [], []
    for name in arguments.recipes or GOALS:
        steps = arguments.steps or STEPS.get(name, 50)
        trainings = [race(name, steps, data, arguments.set) for _ in range(arguments.repetitions)]
        ratios = [seconds.ratio for seconds in trainings]
        seen.append(f"{name} {statistics.median(ratios):.3f}x")
        rows.append(
            {
                "recipe": name,
                "by hand, ms/step": f"{1e3 * statistics.median(seconds.by_hand for seconds in trainings):.2f}",
                "more": f"{1e3 * statistics.median(seconds.more for seconds in trainings):.2f}",
                "epoch's end, ms": f"{1e3 * statistics.median(seconds.end for seconds in trainings):.0f}",
                "ratio": f"{statistics.median(ratios):.3f}",
                "lowest to highest": f"{min(ratios):.3f} to {max(ratios):.3f}",
                "goal": f"{GOALS[name]:.2f}" if name in GOALS else "-",
            }
        )
    return record.Record(GOAL, EXPECTED, ", ".join(seen), rows)


def race(name: str, steps: int, data: Sequence[str], overrides: Sequence[str]) -> Seconds:
    """Train `experiment=classic/<name>` in turns of `steps` steps with the loop."""
    fixed = ["data.val_size=0", "test=false"]
    # A turn ends when Lightning starts a step that it sees; it sees an epoch's last step.
    length = [f"trainer.limit_train_batches={TURNS * steps + 1}", f"trainer.max_epochs={EPOCHS}"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, redirect_stdout(record.Terminal()):
        config = api.compose([f"experiment=classic/{name}", *data, *fixed, *length, *overrides], output_dir=folder)
        turns = Turns(config, steps)
        api.train(config, callbacks=[turns])
    return turns.seconds


def main(argv: Sequence[str] | None = None) -> int:
    options = record.parser("overhead", __doc__ or "", EXAMPLES, repetitions=5)
    options.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of classic/ (default: {' '.join(GOALS)})")
    options.add_argument("--steps", type=record.positive, help="steps per turn (default: about a second)")
    options.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the framework's run")
    return record.main(options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
