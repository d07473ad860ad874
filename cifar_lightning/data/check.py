"""python -m cifar_lightning data: what the data are, and whether any image is in two of their parts.

Only copies to the last bit count. Near-duplicates are another matter: 3.3 % of CIFAR-10's test images have one among
the training images (Barz and Denzler 2020).
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lightning.commands.arguments import Command, Given, Key
from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.compose import plain, quoted
from cifar_lightning.console import say
from cifar_lightning.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from cifar_lightning.data.datamodule import CIFAR10DataModule

COMMAND = Command(
    "data.check",
    "Look at the data: MD5 sums of the files, images of each class in each part, mean and deviation of the channels,\n"
    "and images that occur more than once, within a part or across them. Exit code 1 if the split itself leaks.",
    keys={
        "data": Key("the set", "cifar10", ("cifar10", "digits")),
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
PARTS = ("training", "validation", "test")


def run(given: Given) -> int:
    config = plain(compose_checked(overrides(given["typed"])).data)

    # Imports torch: seconds that help and mistakes need not wait for.
    from cifar_lightning.data.datamodule import CIFAR10DataModule

    data = CIFAR10DataModule(**config)
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


def parts(data: "CIFAR10DataModule") -> dict[str, Any]:
    return dict(zip(PARTS, (data.train, data.val, data.test), strict=True))


def shared_indices(data: "CIFAR10DataModule") -> int:
    return len({*data.train_indices.tolist()} & {*data.val_indices.tolist()})


def fingerprints(images: "np.ndarray") -> list[bytes]:
    """A hash of each image [N, …], by its content alone."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def repeats(images: dict[str, "np.ndarray"]) -> dict[tuple[str, str], list[int]]:
    """For each pair of parts (earlier, later) the images of the later one, by number, that the earlier has as well.

    (part, part): the images of a part that repeat an earlier one of the same part.
    """
    prints = {part: fingerprints(some) for part, some in images.items()}
    found = {}
    for i, (later, marks) in enumerate(prints.items()):
        first: dict[bytes, int] = {}
        found[later, later] = [n for n, mark in enumerate(marks) if first.setdefault(mark, n) != n]
        for earlier in list(images)[:i]:
            known = set(prints[earlier])
            found[earlier, later] = [n for n, mark in enumerate(marks) if mark in known]
    return found


def show_sums(data: "CIFAR10DataModule") -> None:
    """The MD5 sum of each file, and whether it is the official one."""
    from cifar_lightning.data import digits
    from cifar_lightning.data.archive import FOLDER, OFFICIAL_FILES, sum_of

    say(f"{data.name}, checksum of all images and labels {data.checksum}\n")
    if data.name == "digits":
        path = Path(digits.__file__).with_name("digits.npz")
        say(f"  {sum_of(path).md5}  {path.name}  (part of the package)")
        return
    root = data.root.expanduser()
    folder = root if root.name == FOLDER else root / FOLDER
    for name, official in OFFICIAL_FILES.items():
        found = sum_of(folder / name)
        say(f"  {found.md5}  {name:13} {'official' if found.md5 == official.md5 else 'NOT the official file'}")


def show_classes(data: "CIFAR10DataModule") -> None:
    """How many images of each class are in each part."""
    import numpy as np

    counts = {part: np.bincount(split.labels.numpy(), minlength=10).tolist() for part, split in parts(data).items()}
    say(f"\n  {'class':14}" + "".join(f"{part:>12}" for part in PARTS))
    for i, name in enumerate(data.class_names):
        say(f"  {name:14}" + "".join(f"{counts[part][i]:12,}" for part in PARTS))
    say(f"  {'all':14}" + "".join(f"{sum(counts[part]):12,}" for part in PARTS))


def show_channels(data: "CIFAR10DataModule") -> None:
    """Mean and deviation of the three channels: of training and validation images together, and of the test's."""
    import torch

    from cifar_lightning.data.normalize import normalization

    say(f"\n  {'of [0, 1]':24}{'mean (red, green, blue)':30}deviation")
    both = torch.cat([data.train.images, data.val.images])
    for part, images in (("training and validation", both), ("test", data.test.images)):
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in normalization("channel", images))
        say(f"  {part:24}{mean:30}{std}")


def show_repeats(found: dict[tuple[str, str], list[int]]) -> None:
    """Images of equal content: those are in the data set itself."""
    say("\n  images that equal another in every pixel")
    for (earlier, later), numbers in found.items():
        where = f"within {later}" if earlier == later else f"in {later} and in {earlier}"
        shown = f"  ({later} {', '.join(map(str, numbers[:8]))}{', …' * (len(numbers) > 8)})" if numbers else ""
        say(f"  {len(numbers):6,}  {where}{shown}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    return COMMAND.call(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
