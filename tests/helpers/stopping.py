"""A signal, an accident or the end of its time, at an exact moment of a run."""

import os
import signal
from abc import abstractmethod

import lightning as L
from lightning.pytorch.callbacks import Callback, Timer


class At(Callback):
    """Does something when a hook is called for the n-th time."""

    def __init__(self, hook: str, n: int) -> None:
        self.calls, self.n = 0, n
        setattr(self, hook, self._count)

    def _count(self, trainer: L.Trainer, *_: object) -> None:
        self.calls += 1
        if self.calls == self.n:
            self.happen(trainer)

    @abstractmethod
    def happen(self, trainer: L.Trainer) -> None: ...


class SignalAt(At):
    """Sends this process a signal."""

    def __init__(self, hook: str, n: int, number: signal.Signals = signal.SIGTERM) -> None:
        super().__init__(hook, n)
        self.number = number

    def happen(self, trainer: L.Trainer) -> None:
        os.kill(os.getpid(), self.number)


class AccidentAt(At):
    def happen(self, trainer: L.Trainer) -> None:
        raise RuntimeError("the dog ate the gradient")


class TimeOverAt(At):
    """Lets the time limit believe that hours have passed."""

    def happen(self, trainer: L.Trainer) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer):
                callback._offset = 1_000_000
