"""Errors that end a command with one line instead of a traceback."""

import difflib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path


def printable(text: object) -> str:
    """The text with control characters escaped (`\\x1b`): names from files could contain terminal commands."""
    return "".join(c if c.isprintable() or c in "\n\xa0" else ascii(c)[1:-1] for c in str(text))


class UserError(Exception):
    """An error that the user can fix. The message says what is wrong, where, and what to do.

    The commands print it as `error: <message>` and exit with 1.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def regular(path: Path) -> Path:
    """The path of a file to read. Raises UserError for a pipe or device, which might never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is a pipe, socket or device: replace it by a regular file")
    return path


# Signals after which a run saves a checkpoint and ends: Ctrl-C, a scheduler or `kill`, a closed terminal.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # no SIGHUP on Windows
)


class Interrupted(BaseException):
    """A signal ended the run; the message says what was saved and how to resume.

    Not an Exception, so that it also ends a sweep or search, which continue after a failed run. The commands print the
    message and exit with 128 + `signal`, like a process killed by that signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, each once: a library's chain may contain a cycle."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def first_line(error: BaseException) -> str:
    """An error's message in one line, or its class if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def nearest(name: str, valid: Sequence[str]) -> str:
    """`; did you mean …?` with the nearest valid name, or a list of all."""
    lower = {choice.lower(): choice for choice in reversed(valid)}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else f". Choose from: {', '.join(sorted(valid))}"
