"""End a run on Ctrl-C, SIGTERM or SIGHUP, at the next step from which it can be resumed exactly."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging

from cifar_lightning.callbacks.last_checkpoint import LastCheckpoint, agreed, can_resume_after
from cifar_lightning.errors import SIGNALS, Interrupted, UserError

# One Ctrl-C can arrive twice: from the terminal, and from the command that started this process.
SAME_PRESS = 0.5  # seconds


class StopSignals:
    """Handles SIGINT, SIGTERM and SIGHUP within its `with` block, if in the main thread.

    The first signal raises `Interrupted`, or is only recorded in `received` while `noted` is set; a second one ends the
    process at once. `advice()` tells the user how to resume.
    """

    def __init__(self, advice: Callable[[], str]) -> None:
        self.advice = advice
        self.received: int | None = None
        self.noted = False
        self._when = 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            # With nohup a closed terminal must not end the run.
            self._before = {n: h for n, h in handlers.items() if n.name != "SIGHUP" or h != signal.SIG_IGN}
        self.install()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.received is not None and isinstance(error, Exception) and not isinstance(error, UserError):
            raise self.interrupted() from error  # caused by the same signal, e.g. in a data worker

    def install(self) -> None:
        """Install the handlers, in the place of any installed since."""
        for number in self._before:
            signal.signal(number, self._handle)

    def interrupted(self) -> Interrupted:
        """The exception to raise after a signal."""
        number = self.received or signal.SIGINT
        return Interrupted(f"stopped by {signal.Signals(number).name}. {self.advice()}", number)

    def _handle(self, number: int, _: Any) -> None:
        if os.getpid() != self._process:  # a data worker, which ends with the run
            return
        now = time.monotonic()
        if self.received is not None:
            if now - self._when > SAME_PRESS:
                os._exit(128 + number)
            return
        self.received, self._when = number, now
        if not self.noted:
            raise self.interrupted()
        if "LOCAL_RANK" not in os.environ or os.environ["LOCAL_RANK"] == "0":
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstopping after this step (again: at once)\n")


class Interruption(Checkpoint):
    """Saves last.ckpt and raises `Interrupted` at Lightning's first step after a signal.

    A `Checkpoint`, because Lightning calls those last, when the step is finished.
    """

    may_miss_steps = True

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.install()  # Lightning's own SIGTERM handler would communicate with other processes
        self.signals.noted = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.noted = False
        if self.signals.received is not None:  # the last epoch's checkpoint was written
            raise self.signals.interrupted()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if agreed(trainer, self.signals.received is not None, batch_idx) and can_resume_after(trainer, batch_idx):
            self._stop(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if agreed(trainer, self.signals.received is not None, batch_idx):
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):  # swaps the trained weights back in
                    callback.on_validation_epoch_end(trainer, pl_module)
            self._stop(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if agreed(trainer, self.signals.received is not None):
            self._stop(trainer, pl_module)

    def _stop(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.save(trainer, pl_module)
        raise self.signals.interrupted()
