"""Run the project's commands in this process, as a person would type them."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cifar_lightning.__main__ import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class Command:
    """`command("data=digits", "seed=1")` is `python -m cifar_lightning data=digits seed=1` in an empty folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys

    def __call__(self, *arguments: str) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["cifar_lightning", *arguments])
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        self._capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for handler in root.handlers:
                if handler not in handlers:
                    handler.close()
            root.handlers[:], root.level = handlers, level
        return Outcome(code, *self._capsys.readouterr())

    def runs(self, task: str = "train") -> list[Path]:
        """The folders of the single runs so far, oldest first."""
        return sorted((self.folder / "logs" / task / "runs").glob("*"))
