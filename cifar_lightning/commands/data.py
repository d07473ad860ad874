"""The command data: what the data are, and whether any image is in two splits."""

from collections.abc import Sequence

from cifar_lightning.commands.parser import Command, Given, Key
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import plain, quoted
from cifar_lightning.console import say
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError

COMMAND = Command(
    "data",
    "Look at the data: MD5 sums of the files, images of each class in each part, mean and deviation of the channels,\n"
    "and images that occur more than once, within a part or across them. Exit code 1 if the split itself leaks.",
    keys={
        "data": Key("the set", "cifar10", tuple(SETS)),
        "data.root": Key("the folder with CIFAR-10's files or archive", "data"),
        "data.source": Key("what reads them", "pickle", ("pickle", "torchvision")),
        "data.verify": Key("false: read files that are not the official ones", "true", ("true", "false")),
        "data.val_size": Key("count or share of the training images for validation", "10000"),
        "data.split_seed": Key("the split's own seed", "42"),
    },
    examples={
        "": "CIFAR-10 in data/ (downloaded if need be)",
        "data.root=/data/cifar": "the same in another folder",
        "data=digits": "the embedded digits",
        "data.val_size=5000 data.split_seed=1": "another split",
    },
    usage="[key=value ...]",
)


def run(given: Given) -> int:
    config = plain(compose_checked(overrides(given["typed"])).data)

    # Imports torch: seconds that help and mistakes need not wait for.
    from cifar_lightning.data.check import (
        parts,
        repeats,
        shared_indices,
        show_channels,
        show_classes,
        show_repeats,
        show_sums,
    )
    from cifar_lightning.data.datamodule import ImageDataModule

    data = ImageDataModule(**{key: value for key, value in config.items() if key != "_target_"})
    data.setup()
    show_sums(data)
    show_classes(data)
    show_channels(data)
    show_repeats(repeats({part: split.images.numpy() for part, split in parts(data).items() if len(split)}))
    leaked = shared_indices(data)
    if leaked:
        raise UserError(f"the split leaks: {leaked:,} images are in training and in validation")
    say("\nleaks of the split: none (no image was dealt to two parts)")
    return 0


def overrides(typed: Sequence[str]) -> list[str]:
    """The words as overrides: a path in quotes, whatever its characters."""
    words = [word.partition("=") for word in typed]
    return [f"{key}={quoted(value) if key == 'data.root' else value}" for key, _, value in words]


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
