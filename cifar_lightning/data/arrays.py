"""A data set as NumPy arrays, and where it comes from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np

from cifar_lightning.data.variants import Variants


@dataclass(frozen=True)
class Source:
    """Where images come from and how they are split: all that determines the images of each split."""

    name: str
    source: Literal["pickle", "torchvision"]
    root: Path
    verify: bool
    val_size: int | float
    split_seed: int
    labels: Literal["fine", "coarse"] = "fine"
    folds: int | None = None
    fold: int = 0
    variants: Variants = field(default_factory=Variants)


@dataclass(frozen=True)
class LabeledImages:
    """Images uint8 [N, C, H, W] and their labels int64 [N]."""

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
    """Files that differ from the official ones, if that was accepted."""

    @classmethod
    def of(
        cls, train: LabeledImages, test: LabeledImages, class_names: tuple[str, ...], changed: Sequence[str] = ()
    ) -> Self:
        digest = hashlib.sha256()
        for array in (train.images, train.labels, test.images, test.labels):
            digest.update(np.ascontiguousarray(array).data)
        return cls(train, test, class_names, digest.hexdigest()[:16], tuple(changed))
