"""A run as somebody at a terminal has it, progress bar and all, without its output."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Terminal(io.StringIO):
    """Takes what is written to it for a terminal's, and forgets it."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def as_on_a_terminal() -> Iterator[None]:
    before, sys.stdout = sys.stdout, Terminal()
    try:
        yield
    finally:
        sys.stdout = before
