"""What the data are, and whether any image is in two splits.

Only exact copies count. Near-duplicates are another matter: 3.3 % of CIFAR-10's test images have one among
the training images (Barz and Denzler 2020).
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lightning.console import say
from cifar_lightning.data.sets import SETS

if TYPE_CHECKING:
    import numpy as np

    from cifar_lightning.data.datamodule import ImageDataModule

PARTS = ("training", "validation", "test")


def parts(data: "ImageDataModule") -> dict[str, Any]:
    return dict(zip(PARTS, (data.train, data.val, data.test), strict=True))


def shared_indices(data: "ImageDataModule") -> int:
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


def show_sums(data: "ImageDataModule") -> None:
    """The MD5 sum of each file, and whether it is the official one."""
    from cifar_lightning.data import digits
    from cifar_lightning.data.archive import FOLDER, OFFICIAL_FILES, sum_of

    say(f"{data.name}, checksum of all images and labels {data.checksum}\n")
    if not SETS[data.name].files:
        path = Path(digits.__file__).with_name("digits.npz")
        say(f"  {sum_of(path).md5}  {path.name}  (part of the package)")
        return
    root = data.root.expanduser()
    folder = root if root.name == FOLDER else root / FOLDER
    for name, official in OFFICIAL_FILES.items():
        found = sum_of(folder / name)
        say(f"  {found.md5}  {name:13} {'official' if found.md5 == official.md5 else 'NOT the official file'}")


def show_classes(data: "ImageDataModule") -> None:
    """How many images of each class are in each part."""
    import numpy as np

    counts = {
        part: np.bincount(split.labels.numpy(), minlength=len(data.class_names)).tolist()
        for part, split in parts(data).items()
    }
    say(f"\n  {'class':14}" + "".join(f"{part:>12}" for part in PARTS))
    for i, name in enumerate(data.class_names):
        say(f"  {name:14}" + "".join(f"{counts[part][i]:12,}" for part in PARTS))
    say(f"  {'all':14}" + "".join(f"{sum(counts[part]):12,}" for part in PARTS))


def show_channels(data: "ImageDataModule") -> None:
    """Mean and deviation of the three channels: of training and validation images together, and of the test's."""
    import torch

    from cifar_lightning.data.normalize import measured

    say(f"\n  {'of [0, 1]':24}{'mean (red, green, blue)':30}deviation")
    both = torch.cat([data.train.images, data.val.images])
    for part, images in (("training and validation", both), ("test", data.test.images)):
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in measured(images))
        say(f"  {part:24}{mean:30}{std}")


def show_repeats(found: dict[tuple[str, str], list[int]]) -> None:
    """Images of equal content: those are in the data set itself."""
    say("\n  images that equal another in every pixel")
    for (earlier, later), numbers in found.items():
        where = f"within {later}" if earlier == later else f"in {later} and in {earlier}"
        shown = f"  ({later} {', '.join(map(str, numbers[:8]))}{', …' * (len(numbers) > 8)})" if numbers else ""
        say(f"  {len(numbers):6,}  {where}{shown}")
