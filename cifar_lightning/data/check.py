"""Describe a data set, and check whether any image is in two splits.

Only exact duplicates count, of which CIFAR-10 has none. near_duplicates.py finds altered copies.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lightning.console import say
from cifar_lightning.data.sets import SETS

if TYPE_CHECKING:
    import numpy as np

    from cifar_lightning.data.datamodule import ImageDataModule

SPLITS = ("training", "validation", "test")


def split_of(data: "ImageDataModule") -> dict[str, Any]:
    return dict(zip(SPLITS, (data.train, data.val, data.test), strict=True))


def shared_indices(data: "ImageDataModule") -> int:
    return len({*data.train_indices.tolist()} & {*data.val_indices.tolist()})


def fingerprints(images: "np.ndarray") -> list[bytes]:
    """A hash of each image [N, …]."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def repeats(images: dict[str, "np.ndarray"]) -> dict[tuple[str, str], list[int]]:
    """For each pair of splits (earlier, later) the indices of the later one's images that the earlier one contains.

    (split, split): the images of a split that repeat an earlier one of the same split.
    """
    hashes = {split: fingerprints(some) for split, some in images.items()}
    found = {}
    for i, (later, values) in enumerate(hashes.items()):
        first: dict[bytes, int] = {}
        found[later, later] = [n for n, value in enumerate(values) if first.setdefault(value, n) != n]
        for earlier in list(images)[:i]:
            known = set(hashes[earlier])
            found[earlier, later] = [n for n, value in enumerate(values) if value in known]
    return found


def show_checksums(data: "ImageDataModule") -> None:
    """The MD5 of each file, and whether it is the official one."""
    from cifar_lightning.data import digits
    from cifar_lightning.data.official import checksum

    say(f"{data.name}, checksum of all images and labels {data.checksum}\n")
    official = SETS[data.name].official
    if official is None:
        path = Path(digits.__file__).with_name("digits.npz")
        say(f"  {checksum(path).md5}  {path.name}  (part of the package)")
        return
    root = data.root.expanduser()
    folder = root if root.name == official.folder else root / official.folder
    for name, expected in official.files.items():
        md5 = checksum(folder / name).md5
        say(f"  {md5}  {name:13} {'official' if md5 == expected.md5 else 'NOT the official file'}")


def show_classes(data: "ImageDataModule") -> None:
    """The number of images of each class in each split."""
    import numpy as np

    counts = {
        name: np.bincount(split.labels.numpy(), minlength=len(data.class_names)).tolist()
        for name, split in split_of(data).items()
    }
    say(f"\n  {'class':14}" + "".join(f"{split:>12}" for split in SPLITS))
    for i, name in enumerate(data.class_names):
        say(f"  {name:14}" + "".join(f"{counts[split][i]:12,}" for split in SPLITS))
    say(f"  {'all':14}" + "".join(f"{sum(counts[split]):12,}" for split in SPLITS))


def show_channels(data: "ImageDataModule") -> None:
    """Mean and standard deviation of each channel, over the training and validation images and over the test images."""
    import torch

    from cifar_lightning.data.normalize import measured

    say(f"\n  {'of [0, 1]':24}{'mean (red, green, blue)':30}standard deviation")
    both = torch.cat([data.train.images, data.val.images])
    for split, images in (("training and validation", both), ("test", data.test.images)):
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in measured(images))
        say(f"  {split:24}{mean:30}{std}")


def show_repeats(found: dict[tuple[str, str], list[int]]) -> None:
    """Exact duplicates, which are part of the data set itself."""
    say("\n  images that equal another one in every pixel")
    for (earlier, later), numbers in found.items():
        where = f"within {later}" if earlier == later else f"in {later} and in {earlier}"
        shown = f"  ({later} {', '.join(map(str, numbers[:8]))}{', …' * (len(numbers) > 8)})" if numbers else ""
        say(f"  {len(numbers):6,}  {where}{shown}")
