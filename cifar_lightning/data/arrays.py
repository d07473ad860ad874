"""A data set as NumPy arrays, and what says where it comes from and how it is split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np


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
class LabeledImages:
    """Images uint8 [N, 3, 32, 32] and their labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Arrays:
    train: LabeledImages
    test: LabeledImages
    class_names: tuple[str, ...]
    checksum: str
    """First 16 hex digits of the SHA-256 over training images, training labels, test images, test labels."""
    changed: tuple[str, ...] = ()
    """The files that differ from the official ones, where that was accepted."""

    @classmethod
    def of(
        cls, train: LabeledImages, test: LabeledImages, class_names: tuple[str, ...], changed: Sequence[str] = ()
    ) -> Self:
        digest = hashlib.sha256()
        for array in (train.images, train.labels, test.images, test.labels):
            digest.update(np.ascontiguousarray(array).data)
        return cls(train, test, class_names, digest.hexdigest()[:16], tuple(changed))
