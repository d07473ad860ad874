"""Keep and return the memory of large CPU tensors, by glibc's allocator settings."""

import atexit
import ctypes
import gc
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # <malloc.h> of glibc


def keep_freed_memory() -> None:
    """Keep freed memory in the process for the next tensors; does nothing without glibc.

    By default glibc maps blocks above 32 MB anew and unmaps them when freed, so the kernel zeroes each large activation
    and gradient page by page: a fifth of the step time of experiment=speed/cifar94.
    """
    if mallopt := _of_glibc("mallopt"):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def give_memory_back() -> None:
    """Return a sweep job's memory before the next job; most of it is in reference cycles."""
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()  # spares later collections the half a million objects of the libraries: 0.3 s each
        atexit.register(gc.unfreeze)  # else some libraries warn at exit of objects that were not freed
    if malloc_trim := _of_glibc("malloc_trim"):
        malloc_trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
