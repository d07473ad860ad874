"""The training, validation and test split of a data set, read once for all runs of a process."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cifar_lightning.data.arrays import Arrays, Source, with_channels
from cifar_lightning.data.labels_file import read_labels
from cifar_lightning.data.loader import Split
from cifar_lightning.data.sets import SETS, VAL_SHARE
from cifar_lightning.data.stratified_split import stratified_split
from cifar_lightning.data.variants import flips_by_name, fold_split

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """The three splits, and the indices of the first two in the official training set.

    true_labels: of the training images, where some of the split's are known to be wrong.
    Runs share them, so they are read-only: after a write to one the next run reads the files again.
    """

    train: Split
    val: Split
    test: Split
    true_labels: Tensor | None
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
    untouched = _latest is not None and not any(tensor._version for tensor in _latest[1].tensors())
    if _latest is not None and untouched and _latest[0] == _key(source):
        if _latest[1].changed:  # into the log of each run
            SETS[source.name].module().warn_of_changes(_latest[1].changed, source.root)
        return _latest[1]
    _latest = None  # before the others are read
    splits = _read(source)
    _latest = _key(source), splits  # reading may have downloaded the files
    return splits


def _key(source: Source) -> str:
    """The source and the state of its files, as text: a `val_size` of 1 is one image, of 1.0 all of them."""
    data_set = SETS[source.name]
    paths = [path.resolve() for path in data_set.module().files(source, data_set.official)]
    paths += [source.labels_file] if source.labels_file and source.labels_file.is_file() else []
    states = [(path, path.stat()) for path in paths]
    files = [(str(path), state.st_ino, state.st_size, state.st_mtime_ns) for path, state in states]
    return repr((replace(source, root=Path()), files))


def _read(source: Source) -> Splits:
    data_set = SETS[source.name]
    arrays = data_set.module().read(source, data_set.official)
    official, classes = arrays.train.labels, len(arrays.class_names)
    train, val = _indices(source, arrays)
    labels = official
    if source.labels_file:
        labels = read_labels(source.labels_file, source.labels_key, official, classes)
        log.info(
            "data.labels_file: %.2f %% of the labels differ from the data's own", 100 * (labels != official).mean()
        )
    flips = flips_by_name(data_set.look_alikes, arrays.class_names)
    kept, given = source.variants.apply(labels[train], classes, flips)
    train = train[kept]
    wrong = not np.array_equal(given, official[train])
    varied = wrong or len(train) + len(val) < len(official)
    images = with_channels(arrays.train.images, source.channels)
    test_images = with_channels(arrays.test.images, source.channels)
    checksum = arrays.checksum
    if images.shape != arrays.train.images.shape:
        checksum = _checksum(checksum, np.array([images.shape[1]]))
    with torch.inference_mode(False):  # ordinary tensors, whose version counts writes
        return Splits(
            # All images are in their own order, and need no copy.
            train=_split(images if len(train) == len(official) else images[train], given),
            val=_split(images[val], official[val]),
            test=_split(test_images, arrays.test.labels),
            true_labels=torch.from_numpy(official[train]) if wrong else None,
            train_indices=train,
            val_indices=val,
            class_names=arrays.class_names,
            checksum=_checksum(checksum, train, given) if varied else checksum,
            changed=arrays.changed,
        )


def _indices(source: Source, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the training and the validation split."""
    labels = arrays.train.labels
    if source.folds is not None:
        return fold_split(labels, source.folds, source.fold, source.split_seed)
    if source.val_size is None and arrays.validation:
        first = len(labels) - arrays.validation
        return np.arange(first), np.arange(first, len(labels))
    return stratified_split(labels, VAL_SHARE if source.val_size is None else source.val_size, source.split_seed)


def _checksum(whole: str, *changes: np.ndarray) -> str:
    """The checksum of the data with another training split, or of another form."""
    return hashlib.sha256(whole.encode() + b"".join(array.tobytes() for array in changes)).hexdigest()[:16]


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(torch.from_numpy(images), torch.from_numpy(labels))
