"""What the time of a training step goes to, by torch's profiler: the answer to why a recipe is no faster."""

import os
import time
from collections import Counter

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.profiler import ProfilerActivity, profile

# Parts of the names of torch's operators, the first that fits counts.
KINDS = {
    "convolution": ("convolution",),
    "matrix product": ("mm", "linear"),
    "pooling": ("pool",),
    "norm": ("batch_norm",),
    "optimizer": ("_fused_", "_foreach_"),
    "activation": ("relu", "clamp_min", "threshold", "tanh"),
    "copies and fills": ("copy_", "fill_", "zero_"),
}
WARM_UP = 5  # steps


class StepProfile(Callback):
    """Profiles `steps` steps of a training after the first few, then stops it."""

    def __init__(self, steps: int = 20) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # lest it complain of a GPU that is not there
        self.steps = steps
        self.seconds: dict[str, float] = {}  # of all profiled steps, by what they went to
        self._profile = profile(activities=[ProfilerActivity.CPU])
        self._start = 0.0
        self._step = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: tuple, batch_idx: int
    ) -> None:
        if self._step == WARM_UP:
            self._profile.start()
            self._start = time.perf_counter()
        elif self._step == WARM_UP + self.steps:
            elapsed = time.perf_counter() - self._start
            self._profile.stop()
            self.seconds = by_kind(self._profile, elapsed)
            trainer.should_stop = True
        self._step += 1

    def shares(self, most: int = 3) -> str:
        """The largest parts: `convolution 43 %, pooling 25 %, Python 12 %`."""
        total, largest = sum(self.seconds.values()), Counter(self.seconds).most_common(most)
        return ", ".join(f"{kind} {100 * seconds / total:.0f} %" for kind, seconds in largest)


def by_kind(profiled: torch.profiler.profile, elapsed: float) -> dict[str, float]:
    """Seconds in torch's operators by KINDS and `other operators`; the rest of `elapsed` is Python's.

    An operator's own time is counted, without that of those it calls.
    """
    seconds = dict.fromkeys([*KINDS, "other operators"], 0.0)
    for event in profiled.key_averages():
        if event.key.startswith("aten::"):
            kinds = (kind for kind, parts in KINDS.items() if any(part in event.key for part in parts))
            seconds[next(kinds, "other operators")] += event.self_cpu_time_total / 1e6
    return seconds | {"Python": max(0.0, elapsed - sum(seconds.values()))}
