"""What ends a command with a sentence to a person instead of a traceback."""

import difflib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path


def printable(text: object) -> str:
    """The text with control characters as escapes (`\\x1b`): names out of files could hold commands to a terminal."""
    return "".join(c if c.isprintable() or c in "\n\xa0" else ascii(c)[1:-1] for c in str(text))


class UserError(Exception):
    """A mistake that the person at the keyboard can mend.

    Its text says what is wrong, where, and what to do; the commands print it as `error: <text>` and exit with 1.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def regular(path: Path) -> Path:
    """The path, for a file that is to be read. Raises UserError for a pipe or device, which might never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is a pipe, socket or device: give a regular file in its place")
    return path


# What asks a run to end, and lets it save itself before: Ctrl-C, a scheduler or `kill`, a terminal that is closed.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # no SIGHUP on Windows
)


class Interrupted(BaseException):
    """A signal has ended the run; the text says what is saved and how to go on.

    No Exception, because whoever goes on after a failed run (a sweep, a search) is to end as well. The commands print
    the text and exit with 128 + `signal`, as a process does that the signal has killed.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what caused it, each one once: a library's chain may lead back to where it began."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its class where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def nearest(name: str, valid: Sequence[str]) -> str:
    """`; did you mean …?` where one is near, else the list of valid ones."""
    lower = {choice.lower(): choice for choice in reversed(valid)}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else f". Choose from: {', '.join(sorted(valid))}"
