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
    val_size: int | float | None
    split_seed: int
    labels: Literal["fine", "coarse"] = "fine"
    image_size: int | None = None
    channels: Literal[1, 3] | None = None
    fit: Literal["crop", "squash"] = "crop"
    unreadable: Literal["refuse", "leave_out"] = "refuse"
    folds: int | None = None
    fold: int = 0
    labels_file: Path | None = None
    labels_key: str | None = None
    variants: Variants = field(default_factory=Variants)


@dataclass(frozen=True)
class LabeledImages:
    """Images uint8 [N, C, H, W] and their labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["LabeledImages"]) -> "LabeledImages":
        return cls(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


@dataclass(frozen=True)
class Arrays:
    train: LabeledImages
    test: LabeledImages
    class_names: tuple[str, ...]
    checksum: str
    """First 16 hex digits of the SHA-256 over training images, training labels, test images, test labels."""
    changed: tuple[str, ...] = ()
    """Files that differ from the official ones, if that was accepted."""
    validation: int = 0
    """How many of the training images, the last ones, the files set apart for validation."""

    @classmethod
    def of(
        cls,
        train: LabeledImages,
        test: LabeledImages,
        class_names: Sequence[str],
        changed: Sequence[str] = (),
        validation: int = 0,
    ) -> Self:
        digest = hashlib.sha256()
        for array in (train.images, train.labels, test.images, test.labels):
            digest.update(np.ascontiguousarray(array).data)
        return cls(train, test, tuple(class_names), digest.hexdigest()[:16], tuple(changed), validation)


def with_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Images uint8 [N, C, H, W] with 1 or 3 channels: grey ones repeated, colours made grey as Pillow does."""
    if channels is None or channels == images.shape[1]:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.empty((len(images), 1, *images.shape[2:]), np.uint8)
    for start in range(0, len(images), 10_000):  # wider integers for a part at a time
        red, green, blue = images[start : start + 10_000].astype(np.uint32).transpose(1, 0, 2, 3)
        grey[start : start + 10_000, 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey
