"""The grammar of the commands about a checkpoint: words `key=value`, a short help, errors in one line.

Nothing here imports torch, so that help and mistakes cost tenths of a second.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.config.hints import nearest
from cifar_lightning.console import answer, console_handler, say
from cifar_lightning.errors import UserError
from cifar_lightning.runs.folders import checkpoint_file

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
    """`python -m cifar_lightning.<name>`. A command about a checkpoint has the key `ckpt_path`, and needs it."""

    name: str
    description: str
    keys: Mapping[str, Key]
    examples: Mapping[str, str]
    usage: str = "ckpt_path=FILE [key=value ...]"
    overrides: bool = False  # whether other words are overrides of a run's config, to be checked by composing it
    quiet: bool = False  # only warnings on the terminal, beside what the command prints

    def call(self, run: Callable[[Given], int], arguments: Sequence[str] | None = None) -> int:
        """Run it with what was typed; the exit code. A UserError is shown as `error: …` on standard error."""
        arguments = sys.argv[1:] if arguments is None else arguments
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
            if self.overrides and name not in self.keys and (equals or word.startswith("~")):
                overrides.append(word)
                continue
            if not equals:
                raise UserError(f"{word}: write key=value, e.g. {self._guess(word)}")
            if name not in self.keys:
                raise UserError(f"there is no key {name}{nearest(name, list(self.keys))}")
            if name in given:
                raise UserError(f"{name} is given twice")
            given[name] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
            choices = self.keys[name].choices
            if choices and given[name] not in choices:
                raise UserError(f"{name}={given[name]}: there is no such choice{nearest(given[name], choices)}")
            if given[name] == "":
                raise UserError(f"{name}= is empty: give {self.keys[name].words}, or leave it out")
        if "ckpt_path" in self.keys:
            if "ckpt_path" not in given:
                raise UserError("ckpt_path=FILE is missing: name a checkpoint, e.g. the best.ckpt of a run")
            given["ckpt_path"] = checkpoint_file(given["ckpt_path"])
            given["trust"] = [module for module in given.get("trust", "").split(",") if module]
        defaults = {name: key.default for name, key in self.keys.items()}
        return defaults | given | {"typed": list(arguments), "overrides": overrides}

    def _guess(self, word: str) -> str:
        if "ckpt_path" not in self.keys:
            return f"{next(iter(self.keys))}={word}"
        return f"ckpt_path={word}" if Path(word).suffix in (".ckpt", ".pt", "") else f"images={word}"

    def help(self) -> str:
        width = max(map(len, self.keys)) + 2
        lines = [f"usage: python -m cifar_lightning.{self.name} {self.usage}"]
        lines += ["", self.description, ""]
        for name, key in self.keys.items():
            choices = f": {', '.join(key.choices)}" if key.choices else ""
            default = f" [{key.default}]" if key.default else ""
            lines.append(f"  {name:{width}}{key.words}{choices}{default}")
        lines += ["", "examples:"]
        for words, meaning in self.examples.items():
            lines += [f"  python -m cifar_lightning.{self.name} {words}".rstrip(), f"      {meaning}"]
        return "\n".join(lines)


def output_path(path: Path, *, folder: bool = False, key: str = "out") -> Path:
    """`path`, if a file (or a folder of files) could be written there; found out before the work, not after it."""
    if path.exists() and path.is_dir() != folder:
        raise UserError(f"{key}={path} is a {'file' if folder else 'folder'}: give another name")
    existing = next(p for p in [path, *path.absolute().parents] if p.exists())
    if not (existing.is_dir() or existing == path) or not os.access(existing, os.W_OK):
        raise UserError(f"{key}={path} can't be written: {existing} is no folder that you may write to; choose another")
    return path
