"""A signal at an exact moment of a run."""

import os
import signal

from lightning.pytorch.callbacks import Callback


class SignalAt(Callback):
    """Sends this process a signal when a hook is called for the n-th time."""

    def __init__(self, hook: str, n: int, number: signal.Signals = signal.SIGTERM) -> None:
        self.calls, self.n, self.number = 0, n, number
        setattr(self, hook, self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1
        if self.calls == self.n:
            os.kill(os.getpid(), self.number)
