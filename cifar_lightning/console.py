"""Print messages and errors, on a terminal beside Rich's progress bar, else as plain lines."""

import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TextIO

from cifar_lightning.errors import UserError, printable

log = logging.getLogger(__name__)

# Warnings of Lightning about what is intended, or what no user can change.
CHATTER = (
    ".*(LeafSpec|functional.all_gather is deprecated)",  # with newer versions of torch
    "Precision .* is not supported by the model summary",
    "Total length of `list` across ranks is zero",  # data.val_size=0
    "Be aware that when using `ckpt_path`, callbacks",  # the weight average, which a test does not need
    "(?s).*could not find the monitored key in the returned metrics",  # an epoch ended by max_steps has no validation
    "The dirpath has changed from",  # a test in another folder, or a run whose folder was moved
    "Checkpoint directory .* exists and is not empty",  # a resumed run
    "You have overridden `transfer_batch_to_device`",  # on purpose
    "The number of training batches .* is smaller than the logging interval",  # every epoch is logged anyway
)


class LastingOutput(io.FileIO):
    """A standard stream that discards what can't be written, because nobody reads it or the disk is full.

    `fault` is the first error of a stream.
    """

    fault: ClassVar[OSError | None] = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError as error:
            LastingOutput.fault = LastingOutput.fault or error
            return len(data)


@contextmanager
def progress(title: str, total: int | None, whole: str, *columns: Any, start: int = 0) -> Iterator[Callable[..., None]]:
    """Show a bar with these columns of Rich on a terminal, else log every tenth of the `whole`.

    Yields a function to call with how much is done and, optionally, a new title.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        every = (TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
        with Progress(*every, console=console, transient=True) as bar:
            task = bar.add_task(title, total=total, completed=start)
            yield lambda done, title=None: bar.update(task, completed=done, description=title)
        return
    tenth = 10 * start // total if total else 0

    def update(done: int, title: str | None = None) -> None:
        nonlocal tenth
        if total and 10 * done // total > tenth:
            tenth = 10 * done // total
            log.info("%d %% of %s", 10 * tenth, whole)

    yield update


def open_streams() -> None:
    """Keep standard streams from ending a command: closed ones, pipes that nobody reads, and ASCII."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed: the next file opened would get its descriptor, and what is printed
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        elif mode == "w" and stream is getattr(sys, f"__{name}__") and stream.buffer is not None:
            stream.flush()
            lasting = io.BufferedWriter(LastingOutput(stream.fileno(), "w", closefd=False))
            lines = stream.line_buffering or stream.write_through
            setattr(sys, name, io.TextIOWrapper(lasting, stream.encoding, "backslashreplace", line_buffering=lines))


def say(text: object = "", file: TextIO | None = None) -> None:
    """Print a line without control characters, which file names and contents may have."""
    print(printable(text), file=file, flush=True)


def answer(command: Callable[[], int]) -> int:
    """Run a command; its exit code. UserErrors are shown as `error: …` on standard error."""
    open_streams()
    try:
        code = command()
        sys.stdout.flush()
        lost = LastingOutput.fault
        if lost is None or lost.errno == errno.EPIPE:  # as in `… | head`
            return code
        message = f"standard output: {lost.strerror}"
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or 'input/output'}: {error.strerror or error}"
    except KeyboardInterrupt:
        message = "interrupted"
    say(f"error: {message}", sys.stderr)
    return 1


def console_handler() -> logging.Handler:
    """Rich's handler on a terminal, else plain lines on standard output."""
    if not sys.stdout.isatty():
        handler: logging.Handler = logging.StreamHandler(sys.stdout)
    else:
        from rich import get_console
        from rich.logging import RichHandler

        # The progress bar uses the same console; otherwise messages would be glued to it.
        handler = RichHandler(console=get_console(), show_time=False, show_level=False, show_path=False, markup=False)
    handler.addFilter(_without_control_characters)
    return handler


def _without_control_characters(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def log_traceback(error: Exception) -> str | None:
    """Write the traceback to the run's log file, not to the terminal; returns the file's path, if there is one."""
    record = logging.LogRecord(
        __name__, logging.ERROR, __file__, 0, "%s", (str(error),), (type(error), error, error.__traceback__)
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
            return handler.baseFilename
    return None


def adopt_lightning_loggers() -> None:
    """Let Lightning's messages reach the run's log file: its own handlers go, ours take over."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for message in CHATTER:
        warnings.filterwarnings("ignore", message=message)
    logging.raiseExceptions = False  # a log on a full disk: what ends the run says so, without tracebacks of logging's
    # Which devices it found and what else one could install; what was chosen is logged by us.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)


def silence() -> None:
    """Of several processes one speaks; of the others only what ends them reaches the log."""
    logging.getLogger().setLevel(logging.CRITICAL)
