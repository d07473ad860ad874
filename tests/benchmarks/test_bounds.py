"""Profiles by kind of work, and counts of operations."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.bounds import KINDS, StepProfile, by_kind, flops_per_image, matmul_flops

IMAGES, MATRIX = torch.ones(32, 16, 32, 32), torch.ones(1000, 1000)


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("convolution", lambda: F.conv2d(IMAGES, torch.ones(16, 16, 3, 3))),
        ("matrix product", lambda: F.linear(MATRIX, MATRIX)),
        ("pooling", lambda: F.max_pool2d(IMAGES, 2)),
        ("norm", lambda: F.batch_norm(IMAGES, None, None, training=True)),
        ("activation", lambda: MATRIX.tanh()),
        ("other operators", lambda: torch.randperm(1_000_000)),
        ("Python", lambda: time.sleep(0.05)),
    ],
)
def test_each_kind_of_work_is_recognized(kind, work):
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        start = time.perf_counter()
        for _ in range(5):
            work()
        elapsed = time.perf_counter() - start
    seconds = by_kind(profiled, elapsed)
    assert set(seconds) == {*KINDS, "other operators", "Python"}
    assert sum(seconds.values()) == pytest.approx(elapsed)
    if kind != "Python":  # on a busy machine the process may wait for longer than it works
        del seconds["Python"]
    assert max(seconds, key=seconds.__getitem__) == kind


def test_the_largest_parts_are_named_with_their_shares():
    step = StepProfile()
    step.seconds = {"norm": 1.0, "convolution": 5.0, "Python": 2.0, "pooling": 0.0}
    assert step.shares(2) == "convolution 62 %, Python 25 %"


def test_flops_per_image_match_the_textbook():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16 * 16, 10))
    convolution, linear = 2 * 3 * 8 * 9 * 16 * 16, 2 * 8 * 16 * 16 * 10
    # Backward: gradients of the weights and of the input, except the first layer's input.
    assert flops_per_image(network, torch.ones(4, 3, 16, 16)) == 2 * convolution + 3 * linear


def test_a_matrix_product_is_measured_in_the_given_precision(monkeypatch):
    dtypes = []
    monkeypatch.setattr(torch, "randn", lambda *size, dtype, **_: dtypes.append(dtype) or torch.ones(size, dtype=dtype))
    for precision in ("bf16-mixed", "16-true", "32-true"):
        assert matmul_flops(precision, torch.device("cpu"), size=8, repetitions=3) > 0
    assert dtypes == [torch.bfloat16, torch.float16, None]
