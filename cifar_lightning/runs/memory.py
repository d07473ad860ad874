"""How the C library hands out the memory of large tensors on a CPU, and when a run's is given back."""

import atexit
import ctypes
import gc
import sys
from typing import Any

# <malloc.h> of glibc
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let freed memory stay with the process, for the next tensors; does nothing but on Linux with glibc.

    By default glibc maps anew whatever is larger than 32 MB and returns it when freed, so the system clears each
    activation and gradient of a large batch page by page: a fifth of the time of a step of experiment=speed/cifar94.
    """
    if mallopt := _of_glibc("mallopt"):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def give_memory_back() -> None:
    """After a job of a sweep, for the next one in this process: what it used is in cycles, which Python finds late."""
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()  # half a million objects of the libraries, which each collection would go through: 0.3 s
        atexit.register(gc.unfreeze)  # lest libraries complain that they are not cleared away
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
