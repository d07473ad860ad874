"""Parse the arguments of all commands but training: `key=value`, bare paths and names, `--help`, one-line errors.

Nothing here imports torch, so help and errors take tenths of a second.
"""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.console import answer, console_handler, say
from cifar_lightning.errors import UserError, nearest
from cifar_lightning.runs.folders import checkpoint_file, checkpoint_files

Given = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """A key's description, default and choices."""

    words: str
    default: str | None = None
    choices: tuple[str, ...] = ()


CHECKPOINT = {"ckpt_path": Key("the checkpoint, or a run's folder for its best one")}
CHECKPOINTS = {"ckpt_path": Key("the checkpoint, or a run's folder for its best one; several are averaged: [A,B]")}
ELSEWHERE = {
    "data.root": Key("the folder with the data, if not where it was in training"),
    "trust": Key("modules with classes of your own that may be built: my_models,more"),
}
LEDGER = {
    "paths.log_dir": Key("the folder of test_ledger.jsonl, if not the nearest one above that has it, nor logs"),
}
ACCELERATOR = {"accelerator": Key("the device", "auto", ("auto", "cpu", "gpu", "cuda", "mps"))}


@dataclass(frozen=True)
class Command:
    """`python -m cifar_lightning <name>`: its description and keys. A key `ckpt_path` is mandatory by default."""

    name: str
    description: str
    keys: Mapping[str, Key]
    examples: Mapping[str, str]
    usage: str = "ckpt_path=FILE [key=value ...]"
    bare: str | None = None  # the key of words without `=`, such as a path
    several: tuple[str, ...] = ()  # keys that may be given more than once; their values are lists
    overrides: bool = False  # whether other words are overrides of a run's config
    quiet: bool = False  # log warnings only
    needs_checkpoint: bool = True

    def call(self, run: Callable[[Given], int], arguments: Sequence[str]) -> int:
        """Run the command and return the exit code; a UserError is printed as `error: …` on standard error."""
        return answer(lambda: self._call(run, arguments))

    def _call(self, run: Callable[[Given], int], arguments: Sequence[str]) -> int:
        if {"-h", "--help", "help"} & set(arguments):
            say(self.help())
            return 0
        handler = console_handler()
        handler.setLevel(logging.WARNING if self.quiet else logging.NOTSET)
        logging.basicConfig(format="%(message)s", handlers=[handler])
        logging.getLogger("cifar_lightning").setLevel(logging.INFO)
        return run(self.parsed(arguments))

    def parsed(self, arguments: Sequence[str]) -> Given:
        """The value of every key; `typed`: all words; `overrides`: the words that are no key.

        Raises UserError, naming the word and the nearest key or choice.
        """
        given: Given = {}
        overrides: list[str] = []
        for word in arguments:
            name, equals, value = word.lstrip("+").partition("=")
            if word.startswith("-"):
                meant = name.strip("-").partition(" ")[0]
                raise UserError(f"{word}: options are written key=value{nearest(meant, list(self.keys))}")
            if self.overrides and name not in self.keys and (equals or word.startswith("~")):
                overrides.append(word)
                continue
            is_path = "/" in name or not equals or os.path.exists(word)  # a path may contain `=`
            if self.bare and name not in self.keys and is_path:
                name, equals, value = self.bare, "=", word
            self._check(word, name, equals, value, given)
            given[name] = [*given.get(name, []), value] if name in self.several else value
        if "ckpt_path" in self.keys:
            if "ckpt_path" in given:
                found = checkpoint_files if "ckpt_path" in self.several else checkpoint_file
                given["ckpt_path"] = found(given["ckpt_path"])
            elif self.needs_checkpoint:
                raise UserError("ckpt_path=FILE is missing: name a checkpoint, e.g. the best.ckpt of a run")
            given["trust"] = [module for module in given.get("trust", "").split(",") if module]
        defaults: Given = {name: [] if name in self.several else key.default for name, key in self.keys.items()}
        return defaults | given | {"typed": list(arguments), "overrides": overrides}

    def _check(self, word: str, name: str, equals: str, value: str, given: Given) -> None:
        if not equals:
            raise UserError(f"{word}: write key=value, e.g. {next(iter(self.keys))}={word}")
        if name not in self.keys:
            raise UserError(f"there is no key {name}{nearest(name, list(self.keys))}")
        if name in given and name not in self.several:
            raise UserError(f"{name} is given twice: {given[name]} and {value}")
        choices = self.keys[name].choices
        if choices and value not in choices:
            raise UserError(f"{name}={value}: there is no such choice{nearest(value, choices)}")
        if value == "":
            raise UserError(f"{name}= is empty: give {self.keys[name].words}, or leave it out")

    def help(self) -> str:
        width = max(map(len, self.keys)) + 2
        lines = [f"usage: python -m cifar_lightning {self.name} {self.usage}", "", self.description, ""]
        for name, key in self.keys.items():
            choices = f": {', '.join(key.choices)}" if key.choices else ""
            default = f" [{key.default}]" if key.default else ""
            lines.append(f"  {name:{width}}{key.words}{choices}{default}")
        lines += ["", "examples:"]
        for words, meaning in self.examples.items():
            lines += [f"  python -m cifar_lightning {self.name} {words}".rstrip(), f"      {meaning}"]
        return "\n".join(lines)


def number(name: str, text: str, *, above: float = 0.0, whole: bool = False) -> float:
    """The value of a key. Raises UserError unless it is a finite number, a whole one if wanted, above this bound."""
    kind = "an integer" if whole else "a number"
    try:
        value = float(int(text) if whole else text)
    except (ValueError, OverflowError):
        value = math.nan
    if not above < value < math.inf:
        raise UserError(f"{name}={text}: must be {kind} above {above:g}")
    return value


def beside(checkpoints: Sequence[Path], ending: str) -> Path:
    """Where the results of a checkpoint are written by default; those of several are beside the first."""
    stem = checkpoints[0].stem if len(checkpoints) == 1 else f"ensemble_of_{len(checkpoints)}"
    return checkpoints[0].with_name(stem + ending)


def output_path(path: Path, *, folder: bool = False, key: str = "out") -> Path:
    """The path, if a file (or a folder of files) can be written there. Raises UserError, before the work is done."""
    if path.exists() and path.is_dir() != folder:
        raise UserError(f"{key}={path} is a {'file' if folder else 'folder'}: give another name")
    existing = next(p for p in [path, *path.absolute().parents] if p.exists())
    if not (existing.is_dir() or existing == path) or not os.access(existing, os.W_OK):
        raise UserError(f"{key}={path} can't be written: {existing} is not a folder that you may write to")
    return path
