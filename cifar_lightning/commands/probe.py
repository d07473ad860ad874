"""What lr_find and batch_size_find share: they try a few steps of the training that the other words describe."""

import difflib
import re
from collections.abc import Sequence

from cifar_lightning.commands.parser import Command, Given
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import quoted_paths
from cifar_lightning.errors import UserError
from cifar_lightning.runs.folders import command
from cifar_lightning.runs.processes import processes_to_start, started_from_outside

FORBIDDEN = r"(train|ckpt_path|hydra[./].*|paths\.output_dir)"


def training_words(given: Given, this: Command) -> list[str]:
    """The overrides of the training, checked. Raises UserError, before torch is imported, for one that can't be tried.

    A misspelt key of the command itself would be taken for an override, so that is looked for, too.
    """
    words = quoted_paths(given["overrides"])
    names = [word.lstrip("+~").partition("=")[0] for word in words]
    for word, name in zip(given["overrides"], names, strict=True):
        if re.fullmatch(FORBIDDEN, name) and not name.startswith("hydra.searchpath"):
            raise UserError(f"{word}: leave it out; {this.name} trains a few steps from scratch and keeps none of them")
    try:
        trainer = compose_checked(words).trainer
    except UserError:
        for name in names:
            if near := difflib.get_close_matches(name, list(this.keys), n=1, cutoff=0.8):
                raise UserError(f"there is no key {name}; did you mean {near[0]}?") from None
        raise
    if trainer.fast_dev_run:
        raise UserError("trainer.fast_dev_run=true: leave it out; one step tells nothing")
    if started_from_outside() or trainer.num_nodes > 1 or processes_to_start(trainer):
        raise UserError(
            f"trainer.devices={trainer.devices} trainer.strategy={trainer.strategy}: {this.name} needs one process; "
            "for the global batch of several, multiply data.batch_size by their number"
        )
    return words


def train_command(typed: Sequence[str], found: Sequence[str]) -> str:
    """The training command with these overrides in place of typed ones for the same keys."""
    replaced = {override.partition("=")[0] for override in found}
    return command(*(word for word in typed if word.lstrip("+").partition("=")[0] not in replaced), *found)
