"""`python -m cifar_lightning [COMMAND] …`, the same as `cifar-lightning [COMMAND] …`; without a command it trains.

A command is the module of its name in commands/, imported only when it is asked for.
"""

import os
import sys
from importlib import import_module

from cifar_lightning.commands import COMMANDS
from cifar_lightning.console import open_streams, say
from cifar_lightning.errors import nearest


def main() -> None:
    """The console command. A mistake is answered by `error: …` on standard error and exit code 1."""
    open_streams()
    if os.getcwd() not in sys.path:  # as `python -m` has it: a user's own modules lie in the current folder
        sys.path.insert(0, os.getcwd())
    first, *rest = sys.argv[1:] or [""]
    if first in COMMANDS:
        sys.exit(import_module(f"cifar_lightning.commands.{first}").main(rest))
    if first.isidentifier():  # neither an option nor an override
        meant = "; training needs no command" if first == "train" else nearest(first, list(COMMANDS))
        say(f"error: there is no command {first}{meant}", sys.stderr)
        sys.exit(1)
    import_module("cifar_lightning.commands.train").main()


if __name__ == "__main__":
    main()
