"""Measure training at one batch size after another: how fast it is, and how much memory it takes.

Not by Lightning's own search for the largest batch that fits: on a CPU, and with small networks on a GPU, a batch stops
being faster long before the memory is full, and Lightning does not measure that.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from omegaconf import DictConfig, OmegaConf

from cifar_lightning.callbacks.direct_steps import DirectSteps
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.figures import save_figure
from cifar_lightning.reporting.files import write_csv, write_json
from cifar_lightning.reporting.finder_figures import batch_size_curve
from cifar_lightning.runs.build import build_callbacks, build_trainer
from cifar_lightning.runs.record import provenance
from cifar_lightning.runs.train import prepare_process
from cifar_lightning.search.probing import build_start, interruptible, own_folder, probe_config

AS_FAST = 0.95  # of the fastest batch size's speed
NO_FASTER = 2  # sizes in a row without a gain, after which a CPU's search ends: nothing limits it but time
FIRST = 2  # steps that Lightning sees before the clock starts


@dataclass(frozen=True)
class Measured:
    """A batch size: training images a second, milliseconds a step, steps an epoch, and the GPU's peak memory."""

    batch_size: int
    images_per_second: float
    step_ms: float
    steps_per_epoch: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Sizes:
    """What was measured, in order; `chosen`: the smallest size that is as fast as the fastest, within 5 %.

    ended: why no larger size was measured. folder: of the results.
    """

    measured: list[Measured]
    chosen: int
    ended: str
    folder: Path

    @property
    def fastest(self) -> Measured:
        return max(self.measured, key=lambda one: one.images_per_second)


class Stopwatch(Checkpoint):
    """Ends a training after `seconds`, and counts its steps and images in that time, without the first few.

    A `Checkpoint`, because Lightning would otherwise add one of its own, which writes files.
    """

    may_miss_steps = True

    def __init__(self, seconds: float) -> None:
        self.limit, self.seconds, self.images, self.steps = seconds, 0.0, 0, 0
        self._seen, self._images = 0, 0  # by Lightning
        self._start: tuple[float, int, int] | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._seen, self._images = self._seen + 1, self._images + len(batch[1])
        images = getattr(pl_module, "images_trained", self._images)  # also of the steps that Lightning did not see
        if self._seen < FIRST:
            return
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        if self._start is None:
            self._start = time.perf_counter(), trainer.global_step, images
            return
        before, steps, count = self._start
        self.seconds, self.steps, self.images = (
            time.perf_counter() - before,
            trainer.global_step - steps,
            images - count,
        )
        trainer.should_stop = self.seconds >= self.limit


def find_batch_size(
    words: Sequence[str], smallest: int, largest: int, seconds: float, out: Path | None, command: str
) -> Sizes:
    """Measure powers of two from `smallest` to `largest` for the training that `words` describe.

    Writes batch_size_find.json, .csv and .png into `out`, if not into a new folder; prints a line for each size.
    Raises UserError if not even the smallest fits.
    """
    measured: list[Measured] = []
    with TemporaryDirectory() as scratch, interruptible():
        config = probe_config(words, scratch)
        config.trainer.limit_val_batches = 0
        if config.data.get("size_schedule") is not None:
            config.data.size_schedule = None  # full-sized images
        prepare_process()
        datamodule, module = build_start(config)
        if not hasattr(datamodule, "batch_size"):
            raise UserError(f"data._target_={config.data._target_} has no batch_size that could be varied")
        images = len(datamodule.train)
        if smallest > images:
            raise UserError(f"min_batch_size={smallest}: the training split has only {images:,} images")
        ended = f"max_batch_size={largest}"
        if largest > images:
            ended = f"the training split has {images:,} images"
        for size in powers(smallest, min(largest, images)):
            try:
                measured.append(measure(config, datamodule, module, size, seconds))
            except RuntimeError as error:
                if not is_oom_error(error):
                    raise
                garbage_collection_cuda()
                ended = f"{size:,} does not fit into the memory"
                break
            say(line(measured[-1]))
            if measured[-1].memory_bytes is None and no_faster(measured):
                ended = f"the last {NO_FASTER} were no faster"
                break
        trainer = build_trainer(config, [Stopwatch(0)], [])
    if not measured:
        raise UserError(f"{ended}: give a smaller min_batch_size, or a smaller network")
    best = max(one.images_per_second for one in measured)
    chosen = next(one.batch_size for one in measured if one.images_per_second >= AS_FAST * best)
    folder = out or own_folder("batch_size_find", words, config)
    rows = [asdict(one) for one in measured]
    write_csv(folder / "batch_size_find.csv", rows)
    accelerator = trainer.strategy.root_device.type
    title = f"{config.choices.model}, {trainer.precision} on {accelerator}"
    save_figure(batch_size_curve(rows, chosen, title), folder / "batch_size_find.png")
    record = {"chosen": chosen, "ended": ended, "measured": rows, "seconds": seconds, "command": command}
    write_json(folder / "batch_size_find.json", record | provenance(trainer, datamodule))
    return Sizes(measured, chosen, ended, folder)


def powers(smallest: int, largest: int) -> Iterator[int]:
    size = smallest
    while size <= largest:
        yield size
        size *= 2


def measure(config: DictConfig, datamodule: Any, module: L.LightningModule, size: int, seconds: float) -> Measured:
    """Train with this batch size for some seconds, in the way of a run: its pipeline, its precision, its averages."""
    datamodule.batch_size = size
    with suppress(AttributeError):
        OmegaConf.update(config, "data.batch_size", size)
    speed = [c for c in build_callbacks(config, datamodule) if isinstance(c, DirectSteps | WeightAveraging)]
    watch = Stopwatch(seconds)
    trainer = build_trainer(config, [*speed, watch], [])
    cuda = trainer.strategy.root_device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(module, datamodule=datamodule)
    return Measured(
        size,
        watch.images / watch.seconds,
        1000 * watch.seconds / watch.steps,
        trainer.num_training_batches,  # type: ignore[arg-type]
        torch.cuda.max_memory_allocated() if cuda else None,
    )


def no_faster(measured: Sequence[Measured]) -> bool:
    """Whether none of the last few sizes was faster by 5 % than the ones before."""
    speeds = [one.images_per_second for one in measured]
    earlier, latest = speeds[:-NO_FASTER], speeds[-NO_FASTER:]
    return bool(earlier) and max(latest) < max(earlier) / AS_FAST


def line(one: Measured) -> str:
    memory = "" if one.memory_bytes is None else f"{one.memory_bytes / 2**30:9.2f} GiB"
    return (
        f"{one.batch_size:6,} {one.images_per_second:11,.0f} images/s {one.step_ms:10,.1f} ms a step "
        f"{one.steps_per_epoch:7,} steps an epoch{memory}"
    )
