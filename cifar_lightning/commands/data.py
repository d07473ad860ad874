"""The data command: describe a data set and check its splits."""

import re
from collections.abc import Sequence
from typing import Any

from cifar_lightning.commands.parser import Command, Given, Key
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import plain, quoted
from cifar_lightning.config.keys import PATHS
from cifar_lightning.console import say
from cifar_lightning.data.sets import SETS, fetch
from cifar_lightning.errors import UserError

COMMAND = Command(
    "data",
    "Describe the data: MD5 of the files, images of each class in each split, mean and standard deviation of the\n"
    "channels, and images that occur more than once, within a split or across splits. Exit code 1 if the split leaks.\n"
    "`data check` is the same; `data audit` looks for near-duplicates and wrong labels, see `data audit --help`.",
    keys={
        "data": Key("the data set", "cifar10", tuple(SETS)),
        "data.root": Key("the folder with the files", "data"),
        "data.labels": Key("of CIFAR-100: fine, or coarse for the superclasses", "fine", ("fine", "coarse")),
        "data.source": Key("what reads the files", "pickle", ("pickle", "torchvision")),
        "data.verify": Key("false: accept files other than the official ones", "true", ("true", "false")),
        "data.val_size": Key("count or share of the training images for validation", "10000"),
        "data.split_seed": Key("seed of the split", "42"),
        "data.folds": Key("of cross-validation, in the place of data.val_size"),
        "data.fold": Key("which of them is the validation split", "0"),
        "data.channels": Key("1 for grey images, 3 for colours, if not as in the files"),
        "data.image_size": Key("of grey digits and folders: pixels"),
        "data.unreadable": Key("of folders: leave broken files out", "refuse", ("refuse", "leave_out")),
        "data.labels_file": Key("other labels for the training images, .pt, .npy or .csv"),
        "data.labels_key": Key("which array or column of it"),
        "data.train_size": Key("count or share of the training split to keep"),
        "data.imbalance": Key("how many times more images the first class has than the last"),
        "data.imbalance_type": Key("a long tail, or two halves", "exp", ("exp", "step")),
        "data.label_noise": Key("share of wrong labels", "0.0"),
        "data.label_noise_type": Key("any class, or a look-alike", "symmetric", ("symmetric", "asymmetric")),
        "data.variant_seed": Key("seed of these", "0"),
    },
    examples={
        "": "CIFAR-10 in data/, downloaded if missing",
        "data.root=/data/cifar": "the same in another folder",
        "data=digits": "the bundled digits",
        "data.val_size=5000 data.split_seed=1": "another split",
        "data=folder data.root=photos": "images of your own",
        "data.imbalance=100": "what a variant of the training split leaves of each class",
        "audit data=digits": "near-duplicates of the bundled digits",
    },
    usage="[check|audit] [key=value ...]",
)


def run(given: Given) -> int:
    config = keys_of_data(given["typed"])
    fetch(config["name"], config.get("root", "data"), config.get("verify", True))

    # Imports torch, which takes seconds: not needed for help and mistakes.
    from cifar_lightning.data.check import (
        repeats,
        shared_indices,
        show_channels,
        show_checksums,
        show_classes,
        show_repeats,
        split_of,
    )
    from cifar_lightning.data.datamodule import ImageDataModule

    data = ImageDataModule(**config | {"batch_size": 1})
    data.setup()
    show_checksums(data)
    show_classes(data)
    if data.true_labels is not None:
        wrong = (data.true_labels != data.train.labels).double().mean().item()
        say(f"\n  {wrong:.2%} of the training labels differ from the data's own")
    show_channels(data)
    show_repeats(repeats({name: split.images.numpy() for name, split in split_of(data).items() if len(split)}))
    leaked = shared_indices(data)
    if leaked:
        raise UserError(f"the split leaks: {leaked:,} images are in training and in validation")
    say("\nleaks of the split: none (no image is in two splits)")
    return 0


def keys_of_data(typed: Sequence[str]) -> dict[str, Any]:
    """What an ImageDataModule is built with, by these words."""
    config = plain(compose_checked(overrides(typed)).data)
    return {key: value for key, value in config.items() if key not in ("_target_", "sealed")}


def overrides(typed: Sequence[str]) -> list[str]:
    """The words as overrides, with paths quoted."""
    words = [word.partition("=") for word in typed]
    return [f"{key}={quoted(value) if re.fullmatch(PATHS, key) else value}" for key, _, value in words]


def main(arguments: Sequence[str]) -> int:
    first, *rest = arguments or [""]
    if first == "audit":
        from cifar_lightning.commands import audit  # which takes some of its keys from here

        return audit.main(rest)
    return COMMAND.call(run, rest if first == "check" else arguments)
