"""The training, validation and test part of a data set, read once for all runs of a process."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.data.arrays import LabeledImages, Source
from cifar_lightning.data.loader import Split
from cifar_lightning.data.sets import SETS
from cifar_lightning.data.split import stratified_split


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
            SETS[source.name].module().warn_of_changes(_latest[1].changed, source.root)
        return _latest[1]
    _latest = None  # before the others are read
    parts = _read(source)
    _latest = key, parts
    return parts


def _key(source: Source) -> str:
    """What was asked for and, of files, which they are. As text: a `val_size` of 1 is an image, of 1.0 all of them."""
    data_set = SETS[source.name]
    if not data_set.files:
        return repr((source.name, source.val_size, source.split_seed))
    folder = data_set.module().fetch(source.root, source.verify).resolve()
    states = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    files = [(name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states]
    return repr((replace(source, root=folder), files))


def _read(source: Source) -> Parts:
    arrays = SETS[source.name].module().read(source)
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
