"""The official CIFAR-10 files (`data_batch_1`, …, `batches.meta`), read without trusting them.

They are pickles, which can be made to run anything: `unpickling.py` reads plain data from them and nothing else. Here
is what they must hold.
"""

import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from cifar_lightning.data.unpickling import LARGEST_FILE, Corrupt, CutShort, PlainArray, Refused, printable, unpickled
from cifar_lightning.errors import UserError, regular

N_CLASSES = 10
IMAGE_SHAPE = (3, 32, 32)


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, 32, 32] and labels int64 [n] of one batch file."""
    return parse_batch(read_file(path), path)


def read_class_names(path: Path) -> tuple[str, ...]:
    """The ten class names, in the order of their labels."""
    return parse_class_names(read_file(path), path)


def read_file(path: Path) -> bytes:
    try:
        size = regular(path).stat().st_size
        if size > LARGEST_FILE:
            _reject(path, f"is no CIFAR-10 file: it has {size:,} bytes, an official one 31 million")
        return path.read_bytes()
    except FileNotFoundError:
        _reject(path, "is missing")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}. Mend that, or give another data.root=...") from error


def parse_batch(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """As `read_batch`, from bytes that were read already; the images may be a read-only view of them."""
    batch = _unpickle(content, path)
    images, labels = _entry(batch, "data", path), _entry(batch, "labels", path)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (math.prod(IMAGE_SHAPE),):
        _reject(path, "is no CIFAR-10 batch: its 'data' is not a uint8 array of 3,072 columns")
    if len(images) == 0:
        _reject(path, "holds no images")
    if isinstance(labels, list) and set(map(type, labels)) <= {int}:
        labels = np.array([label if 0 <= label < N_CLASSES else -1 for label in labels], np.int64)
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        _reject(path, "is no CIFAR-10 batch: its 'labels' are not a list of whole numbers")
    if len(labels) != len(images):
        _reject(path, f"has {len(images):,} images but {len(labels):,} labels")
    if labels.min() < 0 or labels.max() >= N_CLASSES:
        _reject(path, f"has a label outside 0 to {N_CLASSES - 1}")
    return images.reshape(-1, *IMAGE_SHAPE), labels.astype(np.int64)


def parse_class_names(content: bytes, path: Path) -> tuple[str, ...]:
    names = _entry(_unpickle(content, path), "label_names", path)
    if not isinstance(names, list) or not set(map(type, names)) <= {bytes, str}:
        _reject(path, "is no CIFAR-10 file: its 'label_names' are not a list of names")
    try:
        names = tuple(name.decode() if isinstance(name, bytes) else name for name in names)
    except UnicodeDecodeError:
        _reject(path, "is corrupt: a class name is not UTF-8")
    if len(set(names)) != N_CLASSES or len(names) != N_CLASSES or not all(map(str.isprintable, names)) or "" in names:
        _reject(path, f"does not hold {N_CLASSES} different class names")
    return names


def _entry(content: dict, key: str, path: Path) -> Any:
    for spelling in (key.encode(), key):  # bytes where Python 2 wrote it
        if spelling in content:
            value = content[spelling]
            return value.value if isinstance(value, PlainArray) else value
    found = ", ".join(sorted(printable(name) for name in list(content)[:8])) or "nothing"
    _reject(path, f"is no CIFAR-10 file: it has no entry '{key}' (it has {found})")


def _unpickle(content: bytes, path: Path) -> dict:
    try:
        value = unpickled(content)
    except CutShort:
        _reject(path, f"is cut short (it ends after {len(content):,} bytes)")
    except Refused as reason:
        _reject(path, str(reason))
    except Corrupt:
        _reject(path, "is corrupt")
    if not isinstance(value, dict):
        _reject(path, "is no CIFAR-10 file: it holds no table of entries")
    return value


def _reject(path: Path, fault: str) -> NoReturn:
    raise UserError(
        f"{path} {fault}. Delete the folder {path.parent} and run again to fetch it anew, "
        "or give another one with data.root=..."
    ) from None
