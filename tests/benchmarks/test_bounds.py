"""What a step's time goes to."""

import time

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.bounds import KINDS, StepProfile, by_kind


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("convolution", lambda: F.conv2d(torch.ones(8, 16, 32, 32), torch.ones(16, 16, 3, 3))),
        ("matrix product", lambda: F.linear(torch.ones(500, 500), torch.ones(500, 500))),
        ("pooling", lambda: F.max_pool2d(torch.ones(16, 16, 32, 32), 2)),
        ("norm", lambda: F.batch_norm(torch.ones(16, 16, 32, 32), None, None, training=True)),
        ("activation", lambda: torch.ones(1_000_000).tanh()),
        ("other operators", lambda: torch.randperm(1_000_000)),
        ("Python", lambda: time.sleep(0.05)),
    ],
)
def test_each_kind_of_work_is_told_apart(kind, work):
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        start = time.perf_counter()
        for _ in range(5):
            work()
        elapsed = time.perf_counter() - start
    seconds = by_kind(profiled, elapsed)
    assert set(seconds) == {*KINDS, "other operators", "Python"}
    assert sum(seconds.values()) == pytest.approx(elapsed)
    if kind != "Python":  # a busy machine may interrupt the work for longer than it takes
        del seconds["Python"]
    assert max(seconds, key=seconds.__getitem__) == kind


def test_the_largest_parts_are_named_with_their_shares():
    step = StepProfile()
    step.seconds = {"norm": 1.0, "convolution": 5.0, "Python": 2.0, "pooling": 0.0}
    assert step.shares(2) == "convolution 62 %, Python 25 %"
