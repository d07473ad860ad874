"""One epoch by Trainer.fit through the framework against a loop written by hand, in turns in one process.

The same network, batches (the device pipeline's), precision and optimizer. The framework has its default callbacks
and logger, progress bar included; its epoch ends with a checkpoint. Both count the epoch's loss and accuracy. The
first epoch of both is for warming up. The difference is that of whole epochs, divided by their steps.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import record
from benchmarks.terminal import as_on_a_terminal
from cifar_lightning import api
from cifar_lightning.config import instantiate, plain
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.device_loader import DeviceLoader
from cifar_lightning.training.optimizers import build_optimizer

GOALS = {"cnn_relu": 1.05, "resnet": 1.02}
GOAL = "at most 1.05x for cnn2 at batch 64 on a CPU (where a step takes milliseconds), 1.02x for resnet"
EXPECTED = (
    "Lightning dispatches twenty hooks a step to nine callbacks and the module: 0.4 to 0.6 ms on one core, whatever "
    "the network, so about 1.1x where a step takes 4 ms and 1.02x where it takes 25"
)
EXAMPLES = """\
  python -m benchmarks.overhead                            both networks: about 6 minutes
  python -m benchmarks.overhead cnn_relu --repetitions 11
  python -m benchmarks.overhead cnn_relu --set callbacks=none logger=none
"""
STEPS = {"cnn_relu": 782, "resnet": 200}  # of an epoch: all of cnn_relu's; a resnet's are longer, so fewer tell as much


class Epochs(Callback):
    """Times each epoch of a training, and before each of them an epoch of the loop written by hand."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.framework: list[float] = []  # seconds of each epoch, the first included
        self.by_hand: list[float] = []
        self._start: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.loop = HandWritten(self.config, trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_train_end(trainer, pl_module)  # only now is the last epoch over, with its checkpoint
        start = time.perf_counter()
        self.loop.epoch()
        self._start = time.perf_counter()
        self.by_hand.append(self._start - start)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._start is not None:
            self.framework.append(time.perf_counter() - self._start)


class HandWritten:
    """What one writes who needs no framework."""

    def __init__(self, config: DictConfig, trainer: L.Trainer) -> None:
        self.device = trainer.strategy.root_device
        self.mixed = str(trainer.precision) == "bf16-mixed"
        self.format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.network: nn.Module = instantiate(plain(config.model)).to(self.device, memory_format=self.format)
        self.optimizer = build_optimizer(self.network, plain(config.optimizer))
        data: CIFAR10DataModule = trainer.datamodule  # type: ignore[attr-defined]
        self.loader = DeviceLoader(
            data.train, transforms=data.transforms, device=self.device, batch_size=config.data.batch_size
        )
        self.steps = int(trainer.num_training_batches)
        self.mean, self.std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (data.mean, data.std))

    def epoch(self) -> tuple[float, float]:
        """Train once on every image; mean loss and accuracy."""
        total, correct, n = (torch.zeros((), device=self.device) for _ in range(3))
        for images, labels in islice(self.loader, self.steps):
            images = ((images.float() / 255 - self.mean) / self.std).contiguous(memory_format=self.format)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                logits = self.network(images).float()
            loss = cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            n += len(labels)
        return (total / n).item(), (correct / n).item()


def measure(arguments: argparse.Namespace) -> record.Record:
    data = record.data_overrides(arguments)
    rows, seen = [], []
    for name in arguments.recipes or GOALS:
        steps = arguments.steps or STEPS.get(name, 200)
        epochs = race(name, data, arguments.set, steps, arguments.repetitions)
        framework, by_hand = epochs.framework[1:], epochs.by_hand[1:]
        ratio = record.median_ratio(framework, by_hand)
        difference = statistics.median(a - b for a, b in zip(framework, by_hand, strict=True))
        seen.append(f"{name} {ratio:.3f}x")
        rows.append(
            {
                "recipe": name,
                "steps": str(steps),
                "ms/step": f"{1e3 * statistics.median(framework) / steps:.2f}",
                "by hand": f"{1e3 * statistics.median(by_hand) / steps:.2f}",
                "difference": f"{1e3 * difference / steps:.2f}",
                "ratio": f"{ratio:.3f}",
                "goal": f"{GOALS[name]:.2f}" if name in GOALS else "-",
            }
        )
    return record.Record(GOAL, EXPECTED, ", ".join(seen), rows)


def race(name: str, data: Sequence[str], overrides: Sequence[str], steps: int, repetitions: int) -> Epochs:
    """Train `experiment=classic/<name>` for so many epochs after the first."""
    fixed = ["data.val_size=0", "test=false"]
    length = [f"trainer.limit_train_batches={steps}", f"trainer.max_epochs={repetitions + 1}"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, as_on_a_terminal():
        config = api.compose([f"experiment=classic/{name}", *data, *fixed, *length, *overrides], output_dir=folder)
        epochs = Epochs(config)
        api.train(config, callbacks=[epochs])
    return epochs


def main(argv: Sequence[str] | None = None) -> int:
    options = record.parser("overhead", __doc__ or "", EXAMPLES, repetitions=5)
    options.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of classic/ (default: {' and '.join(GOALS)})")
    options.add_argument("--steps", type=record.positive, help="of an epoch (default: 782 for cnn_relu, else 200)")
    options.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the framework's run")
    return record.main(options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
