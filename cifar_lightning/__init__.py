"""CIFAR-10 experiments in PyTorch Lightning, composed by Hydra."""

import re
import sys

__version__ = "0.1.0"


def _refuse_other_modules() -> None:
    """`python -m cifar_lightning.runs.train` would import a module, print nothing and end."""
    if sys.argv[:1] != ["-m"]:  # Python's, while it looks for the module that it was told to run
        return
    named = re.search(r"(?:^|\s)-m\s*cifar_lightning\.(\S+)", " ".join(sys.orig_argv))
    if named and named[1] != "__main__":
        sys.exit(f"error: cifar_lightning.{named[1]} is no command; python -m cifar_lightning --help lists them")


_refuse_other_modules()
