"""The grammar of the commands about folders and models: names and --options, a help with examples."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A mistake is answered in one line, as in the other commands, and ends with 1."""

    def __init__(self, name: str, description: str, examples: str) -> None:
        super().__init__(
            prog=f"python -m cifar_lightning.{name}",
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"error: {message} (see {self.prog} --help)\n")
