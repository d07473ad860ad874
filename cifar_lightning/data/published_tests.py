"""Read test sets that others published for the classes of CIFAR-10, where their files lie in the data folder.

CIFAR-10.1 (Recht et al. 2018, arXiv 1806.00451), CIFAR-10.2 (Lu et al. 2020) and CIFAR-10-C (Hendrycks and Dietterich
2019, arXiv 1903.12261), each in the folder itself or in one of its own name.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError, first_line, regular

CORRUPTED = "CIFAR-10-C"
SEVERITIES = 5
# By title: the files with images and labels, or the one with both.
NEW = {
    "CIFAR-10.1": ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy"),
    "CIFAR-10.2": ("cifar102_test.npz",),
}


def new_test_sets(root: Path) -> dict[str, Split]:
    """CIFAR-10.1 and CIFAR-10.2, as far as they are there. Raises UserError for damaged files."""
    found = {}
    for title, names in NEW.items():
        folder = next((f for f in (root, root / title) if all((f / name).is_file() for name in names)), None)
        if folder is not None:
            arrays = [opened(folder / name) for name in names]
            images, labels = arrays if len(arrays) == 2 else (arrays[0]["images"], arrays[0]["labels"])
            found[title] = as_split(images, labels, folder / names[0])
    return found


def corruptions_in(root: Path) -> list[str]:
    """The corruptions of which CIFAR-10-C's files are there."""
    names = sorted(path.stem for path in (root / CORRUPTED).glob("*.npy"))
    return [name for name in names if name != "labels"] if "labels" in names else []


def corrupted_split(root: Path, kind: str, severity: int, rows: Sequence[int]) -> Split:
    """These rows of the 10,000 images of a corruption at a severity from 1 to 5. Raises UserError for damaged files."""
    path = root / CORRUPTED / f"{kind}.npy"
    images, labels = opened(path), opened(path.with_name("labels.npy"))
    count = len(images) // SEVERITIES
    if len(images) != len(labels) or len(images) % SEVERITIES or max(rows) >= count:
        raise UserError(f"{path} has {len(images):,} images and {len(labels):,} labels, not five times the test set")
    places = np.asarray(rows) + (severity - 1) * count
    return as_split(images[places], labels[places], path)


def as_split(images: np.ndarray, labels: np.ndarray, path: Path) -> Split:
    fits = images.ndim == 4 and images.shape[1:] == (32, 32, 3) and images.dtype == np.uint8
    if not fits or labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or not len(labels):
        kinds = f"images {images.dtype} {list(images.shape)} and labels {labels.dtype} {list(labels.shape)}"
        raise UserError(f"{path}: {kinds}, not uint8 [N, 32, 32, 3] with a label for each")
    if labels.min() < 0 or labels.max() > 9:
        raise UserError(f"{path}: labels from {labels.min()} to {labels.max()}, not from 0 to 9")
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return Split(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))


def opened(path: Path) -> Any:
    """The array, not read before it is used; of an .npz file its arrays by name."""
    try:
        content = np.load(regular(path), mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        return content if path.suffix == ".npy" else {key: content[key] for key in ("images", "labels")}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} can't be read: {first_line(error)}") from error
