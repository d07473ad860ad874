"""Take most training steps without Lightning, whose overhead per step is as long as a small network's step."""

import math
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    RichModelSummary,
)
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from cifar_lightning.data.loader import Batch, TrainingLoader
from cifar_lightning.errors import UserError
from cifar_lightning.training.classifier import ImageClassifier
from cifar_lightning.training.lightning_internals import count_steps, saves_within_epochs
from cifar_lightning.training.profiling import NoProfiler

# Lightning's callbacks that act only at steps that `unseen_steps` leaves to Lightning, and change nothing within a
# step.
INDIFFERENT = {EarlyStopping, LearningRateMonitor, ModelCheckpoint, ModelSummary, RichModelSummary}


class DirectSteps(Callback):
    """Leaves one step every `seconds` to Lightning and takes those between itself: the same steps, without hooks.

    When Lightning asks the loader for its next batch, the loader first offers it here (`TrainingLoader.take`), and
    Lightning's counters are advanced as if it had seen it. Lightning does see the first and the last step of an epoch,
    every step at which it logs, validates or ends, and all steps where that might matter (`can_miss_steps`): with any
    callback that is not known to be indifferent. A callback class that changes nothing in a training step, and needs
    only the steps that Lightning sees, has `may_miss_steps = True`, which its subclasses do not inherit.
    """

    may_miss_steps = True

    def __init__(self, seconds: float = 0.25) -> None:
        if seconds < 0:
            raise UserError(f"callbacks.direct_steps.seconds={seconds}: give 0 or more")
        self.seconds = seconds
        self._seen = 0.0  # time of Lightning's latest step
        self._free = 0  # steps after it that Lightning need not see
        self._taken = 0  # of these, so far

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._free = self._taken = 0
        loader = trainer.train_dataloader
        # Not a subclass, whose training step may differ.
        if isinstance(loader, TrainingLoader) and type(pl_module) is ImageClassifier:
            loader.take = lambda batch: self._take(trainer, pl_module, batch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Decided after each step that Lightning sees, as callbacks and settings may have changed.
        self._seen, self._free = time.perf_counter(), unseen_steps(trainer) if can_miss_steps(trainer) else 0

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._count(trainer)

    def _take(self, trainer: L.Trainer, module: ImageClassifier, batch: Batch) -> bool:
        """Train on the loader's next batch, or return False to leave it to Lightning."""
        if self._taken >= self._free or time.perf_counter() - self._seen >= self.seconds:
            self._count(trainer)
            return False
        if not self._taken:
            self._step = DirectStep(trainer, module)
        self._step(batch)
        self._taken += 1
        return True

    def _count(self, trainer: L.Trainer) -> None:
        count_steps(trainer, self._taken, len(step_schedulers(trainer)))
        self._taken = self._free = 0


class DirectStep:
    """A training step as in Lightning's automatic optimization, including the schedulers' step."""

    def __init__(self, trainer: L.Trainer, module: ImageClassifier) -> None:
        self.module, self.optimizer = module, trainer.optimizers[0]
        self.precision = trainer.precision_plugin
        self.clip_val, self.clip_algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        self.schedulers = step_schedulers(trainer)

    def __call__(self, batch: Batch) -> None:
        batch = self.module.transfer_batch_to_device(batch, self.module.device, 0)
        self.optimizer.step(lambda: self._loss(batch))  # type: ignore[arg-type, return-value]
        for scheduler in self.schedulers:
            scheduler.step()

    def _loss(self, batch: Batch) -> Tensor:
        with self.precision.train_step_context():
            loss, _ = self.module.batch_loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.module.on_after_backward()
        if self.clip_val:
            self.module.clip_gradients(self.optimizer, self.clip_val, self.clip_algorithm)
        return loss


def can_miss_steps(trainer: L.Trainer) -> bool:
    """Whether nothing in this training has to see every step.

    Several processes communicate at certain steps, accumulated or scaled (float16) gradients need more than
    `DirectStep` does, and a profiler measures Lightning's steps.
    """
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and trainer.precision in ("32-true", "bf16-mixed")
        and trainer.accumulate_grad_batches == 1
        and isinstance(trainer.profiler, NoProfiler | PassThroughProfiler)  # type: ignore[attr-defined]
        and all(config.frequency == 1 for config in trainer.lr_scheduler_configs if config.interval == "step")
        and all(map(_may_miss_steps, trainer.callbacks))  # type: ignore[attr-defined]
    )


def _may_miss_steps(callback: Callback) -> bool:
    if type(callback) is ModelCheckpoint and saves_within_epochs(callback):
        return False
    return type(callback) in INDIFFERENT or vars(type(callback)).get("may_miss_steps", False)


def unseen_steps(trainer: L.Trainer) -> int:
    """The number of steps from here at which Lightning does nothing that `count_steps` does not do."""
    loop = trainer.fit_loop.epoch_loop
    in_epoch, in_all = loop.batch_progress.current.ready, loop.batch_progress.total.ready
    free = [trainer.num_training_batches - in_epoch - 1]
    if every := trainer.log_every_n_steps:  # type: ignore[attr-defined]
        free.append(every - trainer.global_step % every - 1)
    if trainer.max_steps != -1:
        free.append(trainer.max_steps - trainer.global_step - 1)
    if not math.isinf(between := trainer.val_check_batch or math.inf):
        free.append(int(between) - (in_all if trainer.check_val_every_n_epoch is None else in_epoch) % int(between) - 1)
    return int(min(free))


def step_schedulers(trainer: L.Trainer) -> list[Any]:
    """The schedulers that change the learning rate after each step."""
    configs = trainer.lr_scheduler_configs
    return [config.scheduler for config in configs if config.interval == "step" and not config.reduce_on_plateau]
