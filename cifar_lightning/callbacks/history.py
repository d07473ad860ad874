"""Record the metrics of each epoch in history.csv, log them, and measure the time of a run."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from cifar_lightning.config.monitors import METRICS, NOISE_METRICS
from cifar_lightning.reporting.files import write_csv

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30


class History(Checkpoint):
    """Collects a row per epoch: epoch, step, METRICS (None without validation), lr, seconds since the first step.

    A `Checkpoint`, because Lightning calls those after the module has logged the epoch's metrics. Its state is saved in
    checkpoints, so that a resumed run continues its rows and its clock.
    """

    may_miss_steps = True

    def __init__(
        self,
        path: Path,
        *,
        announce: bool = False,
        print_every: int | float | None = None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """announce: log a line per epoch, and within an epoch every `print_every` steps (or share of the epoch).

        None: after 30 seconds without a line; 0: no lines within an epoch. started: called when training begins.
        """
        self.path, self.announce, self.print_every, self._started = path, announce, print_every, started
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0  # training and validation
        self.training_seconds = 0.0  # without validation
        self.images = 0  # trained on, over all processes
        self._counted = 0  # of the module's images_trained
        self._printed = (0.0, 0)  # time and step of the last line
        self._clock = 0.0  # start of the current stretch of training or validation
        self._training = False

    @property
    def images_per_second(self) -> float | None:
        return self.images / self.training_seconds if self.training_seconds else None

    def state_dict(self) -> dict[str, Any]:
        # An interrupted validation is repeated, so it does not count.
        elapsed = time.perf_counter() - self._clock if self._training else 0.0
        return {
            "rows": [dict(row) for row in self.rows],
            "seconds": self.seconds + elapsed,
            "training_seconds": self.training_seconds + elapsed,
            "images": self.images,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.rows:  # testing the best checkpoint must not drop the epochs after it
            return
        self.rows = [dict(row) for row in state_dict["rows"]]
        self.seconds = state_dict["seconds"]
        self.training_seconds = state_dict["training_seconds"]
        self.images = state_dict["images"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clock, self._training = time.perf_counter(), True
        self._printed = (self._clock, trainer.global_step)
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()  # marks the run's folder as started
            self._started()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._count_images(trainer, pl_module)
        if self.announce and trainer.is_global_zero and not trainer.is_last_batch and self._line_is_due(trainer):
            self._printed = (time.perf_counter(), trainer.global_step)
            where = f"step {batch_idx + 1:,} of {trainer.num_training_batches:,}"
            log.info("epoch %s  %s  %s", self._epoch(trainer), where, running(pl_module))

    def _line_is_due(self, trainer: L.Trainer) -> bool:
        now, (printed, step) = time.perf_counter(), self._printed
        if self.print_every is None:
            return now - printed >= SECONDS_BETWEEN_LINES
        every = (
            self.print_every if isinstance(self.print_every, int) else self.print_every * trainer.num_training_batches
        )
        return 0 < every <= trainer.global_step - step

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._count_images(trainer, pl_module)  # of direct steps, before a checkpoint is saved

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._advance(training=True)
            self._training = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._advance(training=False)
            self._training = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._advance(training=True)
        metrics = trainer.callback_metrics
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row |= {name: float(metrics[name]) if name in metrics else None for name in METRICS}
        row |= {name: float(metrics[name]) for name in NOISE_METRICS if name in metrics}
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(self.seconds, 3)
        self.rows.append(row)
        if trainer.is_global_zero:
            write_csv(self.path, self.rows)
            if self.announce:
                log.info(self._line(trainer))
                self._printed = (time.perf_counter(), trainer.global_step)

    def _count_images(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        images: int = getattr(pl_module, "images_trained", 0)  # the user's own module may not count them
        self.images += (images - self._counted) * trainer.world_size
        self._counted = images

    @staticmethod
    def _epoch(trainer: L.Trainer) -> str:
        """`3/30`, or `3` without a limit; counted from 1."""
        total = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        return f"{trainer.current_epoch + 1}{total}"

    def _line(self, trainer: L.Trainer) -> str:
        row, parts = self.rows[-1], [f"epoch {self._epoch(trainer)}"]
        for stage in ("train", "val"):
            loss, accuracy = row[f"{stage}/loss"], row[f"{stage}/acc"]
            known = [] if loss is None else [f"{loss:.4f}"]
            known += [] if accuracy is None else [f"{accuracy:.2%}"]
            parts += [" ".join([stage, *known])] if known else []
        noise = [f"of wrong labels {row['train/memorized']:.2%} learnt"] if "train/memorized" in row else []
        speed = [f"{self.images_per_second:,.0f} images/s"] if self.images_per_second else []
        return "  ".join([*parts, *noise, f"lr {row['lr']:.3g}", *speed])

    def _advance(self, *, training: bool) -> None:
        now = time.perf_counter()
        self.seconds += now - self._clock
        self.training_seconds += (now - self._clock) * training
        self._clock = now


def running(module: L.LightningModule) -> str:
    """Loss and accuracy of the epoch so far, in this process. Waits for the device: not for every step."""
    sums: Any = getattr(module, "train_sums", None)
    if sums is None:  # the user's own module
        return ""
    return f"train {sums.loss.item() / sums.images:.4f} {sums.correct.item() / sums.images:.2%}"
