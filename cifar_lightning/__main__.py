"""Run `python -m cifar_lightning [COMMAND] …`, the same as `cifar-lightning [COMMAND] …`; the default is to train.

A command is the module of that name in commands/, imported only when it is called.
"""

import os
import signal
import sys
from importlib import import_module

from cifar_lightning.commands import COMMANDS
from cifar_lightning.console import open_streams, say
from cifar_lightning.errors import nearest


def main() -> None:
    """Run a command; errors are printed as `error: …` on standard error, with exit code 1."""
    open_streams()
    if os.getcwd() not in sys.path:  # as under `python -m`: the user's own modules are in the current folder
        sys.path.insert(0, os.getcwd())
    first, *rest = sys.argv[1:] or [""]
    if first.isidentifier() and first not in COMMANDS:  # neither an option nor an override
        meant = "; training needs no command" if first == "train" else nearest(first, list(COMMANDS))
        say(f"error: there is no command {first}{meant}", sys.stderr)
        sys.exit(1)
    try:
        module = import_module(f"cifar_lightning.commands.{first if first in COMMANDS else 'train'}")
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        sys.exit(128 + signal.SIGINT)
    sys.exit(module.main(rest) if first in COMMANDS else module.main())


if __name__ == "__main__":
    main()
