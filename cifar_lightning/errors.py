"""What ends a command with a sentence to a person instead of a traceback."""

import signal


class UserError(Exception):
    """A mistake that the person at the keyboard can mend.

    Its text says what is wrong, where, and what to do; the commands print it as `error: <text>` and exit with 1.
    """


class Interrupted(BaseException):
    """A signal has ended the run; the text says what is saved and how to go on.

    No Exception, because whoever goes on after a failed run (a sweep, a search) is to end as well. The commands print
    the text and exit with 128 + `signal`, as a process does that the signal has killed.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)
