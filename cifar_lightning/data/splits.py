"""The training, validation and test split of a data set, read once for all runs of a process."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.data.arrays import Source
from cifar_lightning.data.download import find_or_download
from cifar_lightning.data.loader import Split
from cifar_lightning.data.sets import SETS
from cifar_lightning.data.stratified_split import stratified_split
from cifar_lightning.data.variants import flips_by_name, fold_split


@dataclass(frozen=True)
class Splits:
    """The three splits, and the indices of the first two in the official training set.

    Runs share them, so they are read-only: after a write to one the next run reads the files again.
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


_latest: tuple[str, Splits] | None = None  # only one, so that a process never holds two data sets


def load_splits(source: Source) -> Splits:
    """The splits, from memory if this process read the same files for the same splits last.

    Raises UserError if the data is missing or damaged.
    """
    global _latest
    key = _key(source)
    if _latest is not None and _latest[0] == key and not any(tensor._version for tensor in _latest[1].tensors()):
        if _latest[1].changed:  # into the log of each run
            SETS[source.name].module().warn_of_changes(_latest[1].changed, source.root)
        return _latest[1]
    _latest = None  # before the others are read
    splits = _read(source)
    _latest = key, splits
    return splits


def _key(source: Source) -> str:
    """The source and the state of its files, as text: a `val_size` of 1 is one image, of 1.0 all of them."""
    official = SETS[source.name].official
    if official is None:
        return repr(source)
    folder = find_or_download(official, source.root, source.verify).resolve()
    states = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    files = [(name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states]
    return repr((replace(source, root=folder), files))


def _read(source: Source) -> Splits:
    data_set = SETS[source.name]
    arrays = data_set.module().read(source, data_set.official)
    labels = arrays.train.labels
    if source.folds is not None:
        train, val = fold_split(labels, source.folds, source.fold, source.split_seed)
    else:
        train, val = stratified_split(labels, source.val_size, source.split_seed)
    flips = flips_by_name(data_set.look_alikes, arrays.class_names)
    kept, given = source.variants.apply(labels[train], len(arrays.class_names), flips)
    varied = len(kept) < len(train) or not np.array_equal(given, labels[train])
    train = train[kept]
    images = arrays.train.images  # all of them are in their own order, and need no copy
    with torch.inference_mode(False):  # ordinary tensors, whose version counts writes
        return Splits(
            train=_split(images if len(train) == len(labels) else images[train], given),
            val=_split(images[val], labels[val]),
            test=_split(arrays.test.images, arrays.test.labels),
            train_indices=train,
            val_indices=val,
            class_names=arrays.class_names,
            checksum=_checksum(arrays.checksum, train, given) if varied else arrays.checksum,
            changed=arrays.changed,
        )


def _checksum(whole: str, indices: np.ndarray, labels: np.ndarray) -> str:
    """The checksum of the data with another training split."""
    return hashlib.sha256(whole.encode() + indices.tobytes() + labels.tobytes()).hexdigest()[:16]


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(torch.from_numpy(images), torch.from_numpy(labels))
