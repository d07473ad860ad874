"""The command batch_size_find: the batch size from which training gets no faster, and the largest that fits."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.commands.parser import Command, Given, Key, number, output_path
from cifar_lightning.commands.probe import train_command, training_words
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.runs.folders import command, shown

# Named after its sibling lr_find, which is Lightning's name; Lightning's scale_batch_size looks for the largest only.
COMMAND = Command(
    "batch_size_find",
    "Find a batch size: training is measured for some seconds at 16, 32, 64, ... images. Suggests the smallest batch\n"
    "that is as fast as the fastest (within 5 %), as a larger one takes fewer steps an epoch and learns less from it.\n"
    "Goes on until the GPU's memory is full; on a CPU, until two sizes in a row are no faster. Nothing is kept of the\n"
    "training. Every other word is an override, as for training.",
    keys={
        "min_batch_size": Key("the first size", "16"),
        "max_batch_size": Key("the largest size", "8192"),
        "seconds": Key("how long each is measured", "2"),
        "out": Key("a folder for the results, if not a new one in logs/batch_size_find/runs"),
    },
    examples={
        "model=resnet18 trainer.accelerator=gpu": "how many images a second, and how large a batch fits",
        "experiment=classic/lenet seconds=5": "of a recipe; longer is more exact",
        "data=digits model=cnn2 min_batch_size=8 max_batch_size=512": "the embedded digits, no download",
    },
    usage="[group=choice] [key=value ...]",
    overrides=True,
    quiet=True,
)


def run(given: Given) -> int:
    low, high = (int(number(key, given[key], whole=True)) for key in ("min_batch_size", "max_batch_size"))
    seconds = number("seconds", given["seconds"])
    if low > high:
        raise UserError(f"min_batch_size={low} is above max_batch_size={high}")
    words = training_words(given, COMMAND)
    out = output_path(Path(given["out"]).expanduser(), folder=True) if given["out"] else None

    from cifar_lightning.search.batch_size import find_batch_size  # imports torch

    found = find_batch_size(words, low, high, seconds, out, command("batch_size_find", *given["typed"]))
    for what, suffix in (("curve", "png"), ("table", "csv"), ("record", "json")):
        say(f"{what:7} {shown(found.folder)}/batch_size_find.{suffix}")
    fastest, largest = found.fastest, found.measured[-1].batch_size
    say(f"fastest at {fastest.batch_size:,}: {fastest.images_per_second:,.0f} images/s; largest tried: {largest:,}; "
        f"ended: {found.ended}")  # fmt: skip
    override = f"data.batch_size={found.chosen}"
    say(f"suggestion: {override}, the smallest within 5 % of the fastest; then look for its learning rate:")
    say("  " + train_command(given["overrides"], [override]).replace("cifar_lightning", "cifar_lightning lr_find", 1))
    return 0


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
