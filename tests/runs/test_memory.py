"""What is freed is used again, measured in a process of its own: the heap of a test run has its own history."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from cifar_lightning.runs.memory import keep_freed_memory

keep_freed_memory()

def fill():
    torch.empty(100 * 2**20, dtype=torch.uint8).fill_(1)

for _ in range(30):  # glibc finds an aligned place only where there is some room to spare beside it
    fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    fill()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / (100 * 2**20))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the others hand out memory in another way")
def test_large_tensors_use_the_same_memory_again():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5  # else 5: each of the tensors asks for all of its pages
