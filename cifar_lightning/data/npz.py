"""Read the user's own arrays from an .npz file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lightning.data.arrays import Arrays, LabeledImages, Source
from cifar_lightning.errors import UserError, first_line, regular

SPLITS = ("train", "val", "test")


def files(source: Source, official: None) -> list[Path]:
    return [source.root.expanduser()]


def read(source: Source, official: None) -> Arrays:
    """Images and labels of the splits in the file. Raises UserError for arrays of other names, shapes or types."""
    path = source.root.expanduser()
    if not regular(path).is_file():
        raise UserError(f"data.root={source.root}: no such file; data=npz reads an .npz file")
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UserError(f"{path} holds one array: it must be an .npz file of several")
            found = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = first_line(error)
        if "Object arrays" in reason:
            reason = "it has an array of Python objects, such as images of different sizes"
        raise UserError(f"{path} is not an .npz file of plain arrays: {reason}") from error
    splits = {split: labeled(found, split, path) for split in SPLITS if split != "val" or "val_images" in found}
    shapes = {split: some.images.shape[1:] for split, some in splits.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{split} {list(shape)}" for split, shape in shapes.items())
        raise UserError(f"{path}: the splits' images differ in shape ({listed})")
    return Arrays.of(
        train=LabeledImages.joined([splits[split] for split in ("train", "val") if split in splits]),
        test=splits["test"],
        class_names=class_names(found, splits, path),
        validation=len(splits["val"].labels) if "val" in splits else 0,
    )


def labeled(found: dict[str, np.ndarray], split: str, path: Path) -> LabeledImages:
    for name in (f"{split}_images", f"{split}_labels"):
        if name not in found:
            raise UserError(f"{path} has no array {name}, only {', '.join(sorted(found)) or 'none'}")
    images, labels = found[f"{split}_images"], found[f"{split}_labels"]
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if images.dtype != np.uint8:
        raise UserError(f"{path}: {split}_images are {images.dtype}; give uint8 from 0 to 255")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{path}: {split}_labels must be integers [N], got {labels.dtype} {list(labels.shape)}")
    if len(images) != len(labels):
        raise UserError(f"{path}: {len(images):,} {split}_images, but {len(labels):,} {split}_labels")
    return LabeledImages(channels_first(images, f"{path}: {split}_images"), labels.astype(np.int64))


def channels_first(images: np.ndarray, what: str) -> np.ndarray:
    """[N, H, W], [N, H, W, C] or [N, C, H, W] as [N, C, H, W] of square images with 1 or 3 channels."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[-1] in (1, 3) and images.shape[1] == images.shape[2]:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise UserError(f"{what} have the shape {list(images.shape)}: give square images with 1 or 3 channels")
    return np.ascontiguousarray(images)


def class_names(found: dict[str, Any], splits: dict[str, LabeledImages], path: Path) -> list[str]:
    """The array `class_names` if there is one, else numbers. Raises UserError for labels that it has no name for."""
    train = splits["train"].labels
    names = list(map(str, found["class_names"].ravel())) if "class_names" in found else []
    classes = len(names) or int(train.max(initial=0)) + 1
    for split, some in splits.items():
        if wrong := sorted(set(some.labels.tolist()) - set(range(classes))):
            raise UserError(f"{path}: {split}_labels hold {wrong[0]}, but there are {classes} classes, from 0")
    names = names or [str(i) for i in range(classes)]
    counts = np.bincount(train, minlength=classes)
    if 0 in counts:
        raise UserError(f"{path}: class {names[int(counts.argmin())]} has no training images")
    return names
