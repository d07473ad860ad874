"""Read CIFAR-10 and CIFAR-100 as arrays: from the official files ourselves, or through torchvision."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_lightning.data.arrays import Arrays, LabeledImages, Source
from cifar_lightning.data.download import find_or_download
from cifar_lightning.data.official import Official
from cifar_lightning.data.pickles import parse_batch, parse_class_names, read_file
from cifar_lightning.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Which official file has what, and under which keys labels and class names are."""

    train: tuple[str, ...]
    test: str
    names: str
    labels_key: str
    names_key: str
    classes: int


LAYOUTS = {
    "cifar10": Layout(
        tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", "labels", "label_names", 10
    ),
    "cifar100": Layout(("train",), "test", "meta", "fine_labels", "fine_label_names", 100),
    "cifar100 coarse": Layout(("train",), "test", "meta", "coarse_labels", "coarse_label_names", 20),
}


def files(source: Source, official: Official) -> list[Path]:
    folder = find_or_download(official, source.root, source.verify)
    return [folder / name for name in official.files if (folder / name).is_file()]


def read(source: Source, official: Official) -> Arrays:
    """All images and labels: from the folder under the root, else from the archive there, else downloaded."""
    layout = LAYOUTS.get(f"{source.name} coarse" if source.labels == "coarse" else source.name)
    if layout is None:
        raise UserError(f"data.labels={source.labels}: {source.name} has no such labels")
    folder = find_or_download(official, source.root, source.verify)
    with ThreadPoolExecutor() as pool:  # reading and hashing release the interpreter's lock
        contents = dict(
            zip(official.files, pool.map(lambda name: read_file(folder / name), official.files), strict=True)
        )
        sums = dict(zip(official.files, pool.map(md5, contents.values()), strict=True))
    changed = [name for name, expected in official.files.items() if sums[name] != expected.md5]
    if changed and source.source == "torchvision":
        raise UserError(
            f"{folder / changed[0]} is not the official file, and data.source=torchvision reads no other. "
            f"Read it with data.source=pickle data.verify=false, or delete {folder} to download it again."
        )
    if changed and source.verify:
        raise UserError(not_official(official, folder / changed[0], len(contents[changed[0]])))
    if changed:
        warn_of_changes(changed, folder)
    if source.source == "torchvision":
        return through_torchvision(source, folder.parent)

    def images_and_labels(names: Sequence[str]) -> LabeledImages:
        batches = [parse_batch(contents[name], folder / name, layout.classes, layout.labels_key) for name in names]
        images, labels = zip(*batches, strict=True)
        return LabeledImages(np.concatenate(images), np.concatenate(labels))

    return Arrays.of(
        train=images_and_labels(layout.train),
        test=images_and_labels([layout.test]),
        class_names=parse_class_names(contents[layout.names], folder / layout.names, layout.classes, layout.names_key),
        changed=changed,
    )


def warn_of_changes(changed: Sequence[str], folder: Path) -> None:
    log.warning("data.verify=false: %s in %s differ from the official files", ", ".join(changed), folder)


def through_torchvision(source: Source, root: Path) -> Arrays:
    """torchvision unpickles without restrictions: only for files whose checksums were verified."""
    from torchvision.datasets import CIFAR10, CIFAR100

    if source.labels == "coarse":
        raise UserError("data.labels=coarse: torchvision reads fine labels only; use data.source=pickle")
    reader = CIFAR100 if source.name == "cifar100" else CIFAR10
    train, test = (reader(root, train=train, download=False) for train in (True, False))
    train_images, test_images = (
        LabeledImages(np.ascontiguousarray(split.data.transpose(0, 3, 1, 2)), np.array(split.targets, np.int64))
        for split in (train, test)
    )
    return Arrays.of(train_images, test_images, tuple(train.classes))


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def not_official(official: Official, path: Path, size: int) -> str:
    expected = official.files[path.name].size
    fault = f"is cut short ({size:,} of {expected:,} bytes)" if size < expected else "differs from the official file"
    return (
        f"{path} {fault}. Delete the folder {path.parent} and run again to download it, give another one with "
        "data.root=..., or use it as it is with data.verify=false"
    )
