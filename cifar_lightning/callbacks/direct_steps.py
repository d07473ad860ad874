"""Most training steps taken directly, where Lightning's ceremony around each would cost a small network's time."""

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

# Lightning's callbacks that do nothing at a step but what `unseen_steps` lets them see, and change nothing in a step.
INDIFFERENT = {EarlyStopping, LearningRateMonitor, ModelCheckpoint, ModelSummary, RichModelSummary}


class DirectSteps(Callback):
    """Shows Lightning a step every `seconds` and takes those between by itself: the same steps, without the hooks.

    Lightning asks the loader for its next batch; the loader offers each one here first (`TrainingLoader.take`), and
    Lightning's counters are put forward as if it had seen it. It does see the first and the last step of an epoch, each
    that it logs at, validates after or ends at, and all of them where that may matter (`can_miss_steps`): with any
    callback that is not known to be indifferent. A class of callbacks that changes nothing in a training step and can
    do with the steps that Lightning sees says so by `may_miss_steps = True`, for itself and not for its subclasses.
    """

    may_miss_steps = True

    def __init__(self, seconds: float = 0.25) -> None:
        if seconds < 0:
            raise UserError(f"callbacks.direct_steps.seconds={seconds}: give 0 or more")
        self.seconds = seconds
        self._seen = 0.0  # when Lightning's latest step ended
        self._free = 0  # steps after that one that Lightning need not see
        self._taken = 0  # of these

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._free = self._taken = 0
        loader = trainer.train_dataloader
        # Not a class made from ours, whose step may be another.
        if isinstance(loader, TrainingLoader) and type(pl_module) is ImageClassifier:
            loader.take = lambda batch: self._take(trainer, pl_module, batch)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Asked after each step that is seen, an epoch's first among them: callbacks and settings may have changed.
        self._seen, self._free = time.perf_counter(), unseen_steps(trainer) if can_miss_steps(trainer) else 0

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._count(trainer)

    def _take(self, trainer: L.Trainer, module: ImageClassifier, batch: Batch) -> bool:
        """Train on the loader's next batch; False where Lightning has to."""
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
    """A step as Lightning's automatic optimization does it, the learning rate's included."""

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
        if self.clip_val:
            self.module.clip_gradients(self.optimizer, self.clip_val, self.clip_algorithm)
        return loss


def can_miss_steps(trainer: L.Trainer) -> bool:
    """Whether nothing that takes part in this training has to see every step.

    Several processes talk to each other at certain steps, gradients that are added up or scaled (float16) take more
    than `DirectStep` does, and a profiler measures Lightning's steps.
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
    """How many steps from here Lightning need not see: it does nothing with them that `count_steps` doesn't do."""
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
    """Those that change the learning rate after each step."""
    configs = trainer.lr_scheduler_configs
    return [config.scheduler for config in configs if config.interval == "step" and not config.reduce_on_plateau]
