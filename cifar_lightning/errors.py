"""The one exception that is shown to a person without a traceback."""


class UserError(Exception):
    """A mistake that the person at the keyboard can mend.

    Its text says what is wrong, where, and what to do; the commands print it as `error: <text>` and exit with 1.
    """
