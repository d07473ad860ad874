"""The command lr_find: a learning rate for a config, by Lightning's learning-rate finder."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.commands.parser import Command, Given, Key, number, output_path
from cifar_lightning.commands.probe import train_command, training_words
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.runs.folders import command, shown

COMMAND = Command(
    "lr_find",
    "Find a learning rate: a few training steps, each with a higher rate than the last (Smith 2017), by Lightning's\n"
    "finder. Suggests the rate at which the loss was lowest, and draws the curve. Nothing is kept of the training.\n"
    "The schedule is off meanwhile: optimizer.lr is the highest rate of one. Other rates, such as Muon's\n"
    "optimizer.sgd_lr, keep their ratio to optimizer.lr. Every other word is an override, as for training.",
    keys={
        "min_lr": Key("the first rate", "1e-6"),
        "max_lr": Key("the last rate", "10"),
        "steps": Key("how many steps; more are smoother", "100"),
        "out": Key("a folder for the results, if not a new one in logs/lr_find/runs"),
    },
    examples={
        "model=resnet optimizer=sgd": "100 steps of the baseline",
        "experiment=classic/lenet data.batch_size=512": "of a recipe with another batch size",
        "data=digits model=cnn2 optimizer=muon max_lr=1": "the embedded digits, no download",
    },
    usage="[group=choice] [key=value ...]",
    overrides=True,
    quiet=True,
)


def run(given: Given) -> int:
    low, high = number("min_lr", given["min_lr"], above=0), number("max_lr", given["max_lr"], above=0)
    steps = int(number("steps", given["steps"], above=9, whole=True))
    if low >= high:
        raise UserError(f"min_lr={given['min_lr']} must be below max_lr={given['max_lr']}")
    words = training_words(given, COMMAND)
    out = output_path(Path(given["out"]).expanduser(), folder=True) if given["out"] else None

    from cifar_lightning.search.learning_rate import find_learning_rate  # imports torch

    found = find_learning_rate(words, low, high, steps, out, command("lr_find", *given["typed"]))
    for what, suffix in (("curve", "png"), ("table", "csv"), ("record", "json")):
        say(f"{what:7} {shown(found.folder)}/lr_find.{suffix}")
    if not found.overrides:
        raise UserError(f"the loss did not fall from {low:g} to {high:g}: try more steps, or another range")
    test = found.test
    note = ", and still falls at max_lr: try a higher one" if test.still_falling else ""
    note += f"; too high from {test.too_high:.2g} on" if test.too_high else ""
    say(f"the loss falls most steeply at {test.steepest:.2g}, is lowest at {test.suggestion:.2g}{note}")
    say(f"suggestion: {' '.join(found.overrides)}")
    say(f"  {train_command(given['overrides'], found.overrides)}")
    return 0


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
