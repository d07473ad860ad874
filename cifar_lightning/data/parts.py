"""The training, validation and test part of a data set, read once for all runs of a process."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.data.archive import OFFICIAL_FILES
from cifar_lightning.data.digits import load_digits
from cifar_lightning.data.download import fetch_cifar10
from cifar_lightning.data.loader import Split
from cifar_lightning.data.sources import LabeledImages, load_cifar10, warn_of_changes
from cifar_lightning.data.split import stratified_split


@dataclass(frozen=True)
class Source:
    """Where images come from and how they are split: what decides which images a part has."""

    name: str
    source: Literal["pickle", "torchvision"]
    root: Path
    verify: bool
    val_size: int | float
    split_seed: int


@dataclass(frozen=True)
class Parts:
    """The `Split`s, and which images of the official training set the first two have.

    Runs share them, so they are for reading; whoever writes into one makes the next run read the files again.
    """

    train: Split
    val: Split
    test: Split
    train_indices: np.ndarray
    val_indices: np.ndarray
    class_names: tuple[str, ...]
    checksum: str
    changed: tuple[str, ...]

    def tensors(self) -> Iterator[Tensor]:
        for split in (self.train, self.val, self.test):
            yield split.images
            yield split.labels


_latest: tuple[str, Parts] | None = None  # one, so that a process never holds two data sets


def load_parts(source: Source) -> Parts:
    """The parts, from memory where this process has read the very same files for the very same split last.

    Raises UserError where the data can't be had or is damaged.
    """
    global _latest
    key = _key(source)
    if _latest is not None and _latest[0] == key and not any(tensor._version for tensor in _latest[1].tensors()):
        if _latest[1].changed:  # each run's log says so
            warn_of_changes(_latest[1].changed, source.root)
        return _latest[1]
    _latest = None  # before the others are read
    parts = _read(source)
    _latest = key, parts
    return parts


def _key(source: Source) -> str:
    """What was asked for and, of files, which they are. As text: a `val_size` of 1 is an image, of 1.0 all of them."""
    if source.name == "digits":
        return repr(("digits", source.val_size, source.split_seed))
    folder = fetch_cifar10(source.root, source.verify).resolve()
    states = [os.stat(folder / name) if (folder / name).exists() else None for name in OFFICIAL_FILES]
    return repr((replace(source, root=folder), [s and (s.st_ino, s.st_size, s.st_mtime_ns) for s in states]))


def _read(source: Source) -> Parts:
    is_digits = source.name == "digits"
    arrays = load_digits() if is_digits else load_cifar10(source.root, source.source, source.verify)
    train, val = stratified_split(arrays.train.labels, source.val_size, source.split_seed)
    with torch.inference_mode(False):  # ordinary tensors, which count the changes that are made to them
        return Parts(
            train=_split(arrays.train, train if len(val) else None),
            val=_split(arrays.train, val),
            test=_split(arrays.test),
            train_indices=train,
            val_indices=val,
            class_names=arrays.class_names,
            checksum=arrays.checksum,
            changed=arrays.changed,
        )


def _split(data: LabeledImages, indices: np.ndarray | None = None) -> Split:
    images, labels = (data.images, data.labels) if indices is None else (data.images[indices], data.labels[indices])
    return Split(torch.from_numpy(images), torch.from_numpy(labels))
