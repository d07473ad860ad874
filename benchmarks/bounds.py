"""Profile training steps by kind of work, and measure the machine's speed of matrix products as an upper bound."""

import os
import statistics
import time
from collections import Counter

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

# Substrings of torch's operator names; the first kind that matches counts.
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
BLOCK = 2**26  # float32 numbers: 268 MB, more than twice what 20 steps of a recipe were measured to allocate


class StepProfile(Callback):
    """Profile at least `steps` training steps after a warm-up, then stop the training."""

    may_miss_steps = True

    def __init__(self, steps: int = 20) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no warning about a missing GPU
        self.steps = steps
        self.seconds: dict[str, float] = {}  # of all profiled steps, by kind of work
        self._profile = profile(activities=[ProfilerActivity.CPU])
        self._first, self._start = 0, 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: tuple, batch_idx: int
    ) -> None:
        if not self._start and trainer.global_step >= WARM_UP:
            # The profiler's records take memory that tensors would have reused. Tensors then reuse this block: clearing
            # new pages would count as the operators' time.
            torch.ones(BLOCK)
            self._profile.start()
            self._first, self._start = trainer.global_step, time.perf_counter()
        elif self._start and trainer.global_step >= self._first + self.steps:
            elapsed = time.perf_counter() - self._start
            self._profile.stop()
            self.seconds = by_kind(self._profile, elapsed)
            trainer.should_stop = True

    def shares(self, most: int = 3) -> str:
        """The largest shares, such as `convolution 43 %, pooling 25 %, Python 12 %`."""
        total, largest = sum(self.seconds.values()), Counter(self.seconds).most_common(most)
        return ", ".join(f"{kind} {100 * seconds / total:.0f} %" for kind, seconds in largest)


def by_kind(profiled: torch.profiler.profile, elapsed: float) -> dict[str, float]:
    """Seconds in torch's operators, by KINDS and `other operators`; the rest of `elapsed` counts as Python.

    Each operator counts its own time, without the operators it calls.
    """
    seconds = dict.fromkeys([*KINDS, "other operators"], 0.0)
    for event in profiled.key_averages():
        if event.key.startswith("aten::"):
            kinds = (kind for kind, parts in KINDS.items() if any(part in event.key for part in parts))
            seconds[next(kinds, "other operators")] += event.self_cpu_time_total / 1e6
    return seconds | {"Python": max(0.0, elapsed - sum(seconds.values()))}


def flops_per_image(network: nn.Module, images: Tensor) -> float:
    """FLOPs of convolutions and matrix products per image, forward and backward, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return counter.get_total_flops() / len(images)


def matmul_flops(precision: str, device: torch.device, size: int = 2048, repetitions: int = 15) -> float:
    """FLOP/s of a product of square matrices, which convolutions can hardly exceed."""
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float16 if precision.startswith("16") else None
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # wait for the result
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)
