"""The one parser of all commands but training: `key=value`, paths and names that stand bare, `--help`, one-line errors.

Nothing here imports torch, so that help and mistakes cost tenths of a second.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.console import answer, console_handler, say
from cifar_lightning.errors import UserError, nearest

Given = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """What `key=` is, in words; what it is when left out; what it may be."""

    words: str
    default: str | None = None
    choices: tuple[str, ...] = ()


CHECKPOINT = {"ckpt_path": Key("the checkpoint, or a run's folder for its best one")}
ELSEWHERE = {
    "data.root": Key("where the data lie, if not where they lay in training"),
    "trust": Key("modules with classes of your own that may be built: my_models,more"),
}
ACCELERATOR = {"accelerator": Key("the device", "auto", ("auto", "cpu", "gpu", "cuda", "mps"))}


@dataclass(frozen=True)
class Command:
    """`python -m cifar_lightning <name>`: what it does, its keys, and which of them a bare word gives a value.

    A command about a checkpoint has the key `ckpt_path`, and needs it.
    """

    name: str
    description: str
    keys: Mapping[str, Key]
    examples: Mapping[str, str]
    usage: str = "ckpt_path=FILE [key=value ...]"
    bare: str | None = None  # the key of words without a `=`, such as a path
    several: tuple[str, ...] = ()  # keys that may be given more than once; their values are lists
    overrides: bool = False  # whether other words are overrides of a run's config, to be checked by composing it
    quiet: bool = False  # only warnings on the terminal, beside what the command prints

    def call(self, run: Callable[[Given], int], arguments: Sequence[str]) -> int:
        """Run it with what was typed; the exit code. A UserError is shown as `error: …` on standard error."""
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
        """The value of every key, `typed`, the words themselves, and `overrides`, those of them that are no key.

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
            if self.bare and name not in self.keys and ("/" in name or not equals):  # a path may have a `=` in it
                name, equals, value = self.bare, "=", word
            if not equals:
                raise UserError(f"{word}: write key=value, e.g. {next(iter(self.keys))}={word}")
            if name not in self.keys:
                raise UserError(f"there is no key {name}{nearest(name, list(self.keys))}")
            if name in given and name not in self.several:
                raise UserError(f"{name} is given twice: {given[name]} and {value}")
            value = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
            choices = self.keys[name].choices
            if choices and value not in choices:
                raise UserError(f"{name}={value}: there is no such choice{nearest(value, choices)}")
            if value == "":
                raise UserError(f"{name}= is empty: give {self.keys[name].words}, or leave it out")
            given[name] = [*given.get(name, []), value] if name in self.several else value
        if "ckpt_path" in self.keys:
            if "ckpt_path" not in given:
                raise UserError("ckpt_path=FILE is missing: name a checkpoint, e.g. the best.ckpt of a run")
            from cifar_lightning.runs.folders import (
                checkpoint_file,  # imports Hydra: tables of runs need not wait for it
            )

            given["ckpt_path"] = checkpoint_file(given["ckpt_path"])
            given["trust"] = [module for module in given.get("trust", "").split(",") if module]
        defaults: Given = {name: [] if name in self.several else key.default for name, key in self.keys.items()}
        return defaults | given | {"typed": list(arguments), "overrides": overrides}

    def help(self) -> str:
        width = max(map(len, self.keys)) + 2
        lines = [f"usage: python -m cifar_lightning {self.name} {self.usage}"]
        lines += ["", self.description, ""]
        for name, key in self.keys.items():
            choices = f": {', '.join(key.choices)}" if key.choices else ""
            default = f" [{key.default}]" if key.default else ""
            lines.append(f"  {name:{width}}{key.words}{choices}{default}")
        lines += ["", "examples:"]
        for words, meaning in self.examples.items():
            lines += [f"  python -m cifar_lightning {self.name} {words}".rstrip(), f"      {meaning}"]
        return "\n".join(lines)


def output_path(path: Path, *, folder: bool = False, key: str = "out") -> Path:
    """`path`, if a file (or a folder of files) could be written there; found out before the work, not after it."""
    if path.exists() and path.is_dir() != folder:
        raise UserError(f"{key}={path} is a {'file' if folder else 'folder'}: give another name")
    existing = next(p for p in [path, *path.absolute().parents] if p.exists())
    if not (existing.is_dir() or existing == path) or not os.access(existing, os.W_OK):
        raise UserError(f"{key}={path} can't be written: {existing} is no folder that you may write to; choose another")
    return path
