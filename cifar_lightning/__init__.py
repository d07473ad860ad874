"""CIFAR-10 experiments in PyTorch Lightning, composed by Hydra."""

import re
import sys
from pathlib import Path

__version__ = "0.1.0"


def _refuse_other_modules() -> None:
    """`python -m cifar_lightning.runs.train`, or its file, would import a module, print nothing and end."""
    package, name = Path(__file__).resolve().parent, ""
    started = Path(getattr(sys.modules["__main__"], "__file__", None) or "-").resolve()
    if sys.argv[:1] == ["-m"]:  # Python's, while it looks for the module that it was told to run
        name = "".join(re.findall(r"(?:^|\s)-m\s*cifar_lightning\.(\S+)", " ".join(sys.orig_argv))[:1])
    elif package in started.parents:
        name = ".".join(started.relative_to(package).with_suffix("").parts)
    if name not in ("", "__main__"):
        sys.exit(f"error: cifar_lightning.{name} is no command; python -m cifar_lightning --help lists them")


_refuse_other_modules()
