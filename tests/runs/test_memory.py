import resource
import sys

import pytest
import torch

from cifar_lightning.runs.memory import keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the others hand out memory in another way")
def test_large_tensors_use_the_same_memory_again():
    keep_freed_memory()

    def fill():
        torch.empty(100 * 2**20, dtype=torch.uint8).fill_(1)

    for _ in range(30):  # glibc finds an aligned place only where there is some room to spare beside it
        fill()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        fill()
    pages = 100 * 2**20 // resource.getpagesize()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages / 2  # else 5 times all of them
