"""Messages on the terminal: beside Rich's progress bar where there is one, plain lines where output is piped."""

import logging
import os
import sys
import warnings
from typing import NoReturn

# Warnings of Lightning about what is meant to be so, or what no user can mend.
CHATTER = (
    ".*(LeafSpec|functional.all_gather is deprecated)",  # with newer versions of torch
    "Precision .* is not supported by the model summary",
    "Total length of `list` across ranks is zero",  # data.val_size=0
    "Be aware that when using `ckpt_path`, callbacks",  # the average of weights, which a test does without
    "Checkpoint directory .* exists and is not empty",  # a resumed run
    "You have overridden `transfer_batch_to_device`",  # and meant to
    "The number of training batches .* is smaller than the logging interval",  # every epoch is logged all the same
)


def console_handler() -> logging.Handler:
    """Rich's handler on a terminal, else plain lines on standard output."""
    if not sys.stdout.isatty():
        return logging.StreamHandler(sys.stdout)
    from rich import get_console
    from rich.logging import RichHandler

    # The progress bar uses the same console; otherwise messages would be glued to it.
    return RichHandler(console=get_console(), show_time=False, show_level=False, show_path=False, markup=False)


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


def end_unread() -> NoReturn:
    """End without a word where nobody reads on, as in `… | head`: what Rich does when its own output meets that."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # lest Python complain when it flushes at the end
    sys.exit(1)


def silence() -> None:
    """Of several processes one speaks; of the others only what ends them reaches the log."""
    logging.getLogger().setLevel(logging.CRITICAL)
