"""Read CIFAR-10 as arrays: the official files by ourselves, or through torchvision. Both give the same."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from cifar_lightning.data.archive import META, OFFICIAL_FILES, TEST, TRAIN
from cifar_lightning.data.arrays import Arrays, LabeledImages, Source
from cifar_lightning.data.download import fetch_cifar10
from cifar_lightning.data.pickles import parse_batch, parse_class_names, read_file
from cifar_lightning.errors import UserError

log = logging.getLogger(__name__)


def fetch(root: Path, verify: bool) -> Path:
    """The folder of the official files: found, unpacked or downloaded."""
    return fetch_cifar10(root, verify)


def read(source: Source) -> Arrays:
    return load_cifar10(source.root, source.source, source.verify)


def load_cifar10(
    root: str | Path,
    source: Literal["pickle", "torchvision"] = "pickle",
    verify: bool = True,
    urls: Sequence[str] | None = None,
) -> Arrays:
    """All of CIFAR-10: from the folder under `root`, else from the archive there, else downloaded (from `urls`)."""
    folder = fetch_cifar10(Path(root), verify, urls)
    with ThreadPoolExecutor() as pool:  # reading and hashing let go of the interpreter's lock
        contents, sums = zip(*pool.map(lambda name: _read(folder / name), OFFICIAL_FILES), strict=True)
    content = dict(zip(OFFICIAL_FILES, contents, strict=True))
    changed = [name for name, md5 in zip(OFFICIAL_FILES, sums, strict=True) if md5 != OFFICIAL_FILES[name].md5]
    if changed and source == "torchvision":
        raise UserError(
            f"{folder / changed[0]} is not the official file, and data.source=torchvision reads no other. "
            f"Read a changed copy with data.source=pickle data.verify=false, or delete {folder} to fetch it anew."
        )
    if changed and verify:
        raise UserError(_not_official(folder / changed[0], len(content[changed[0]])))
    if changed:
        warn_of_changes(changed, folder)
    if source == "torchvision":
        return _through_torchvision(folder.parent)
    return Arrays.of(
        train=_join([parse_batch(content[name], folder / name) for name in TRAIN]),
        test=_join([parse_batch(content[TEST], folder / TEST)]),
        class_names=parse_class_names(content[META], folder / META),
        changed=changed,
    )


def warn_of_changes(changed: Sequence[str], folder: Path) -> None:
    log.warning("data.verify=false: %s in %s differ from the official files", ", ".join(changed), folder)


def _join(batches: list[tuple[np.ndarray, np.ndarray]]) -> LabeledImages:
    images, labels = zip(*batches, strict=True)
    return LabeledImages(np.concatenate(images), np.concatenate(labels))


def _through_torchvision(root: Path) -> Arrays:
    """torchvision unpickles without restraint: only for files whose sums were checked."""
    from torchvision.datasets import CIFAR10

    parts = [CIFAR10(root, train=train, download=False) for train in (True, False)]
    train, test = (
        LabeledImages(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.array(part.targets, np.int64))
        for part in parts
    )
    return Arrays.of(train, test, tuple(parts[0].classes))


def _read(path: Path) -> tuple[bytes, str]:
    content = read_file(path)
    return content, hashlib.md5(content, usedforsecurity=False).hexdigest()


def _not_official(path: Path, size: int) -> str:
    expected = OFFICIAL_FILES[path.name].size
    fault = f"is cut short ({size:,} of {expected:,} bytes)" if size < expected else "differs from the official file"
    return (
        f"{path} {fault}. Delete the folder {path.parent} and run again to fetch it anew, give another one with "
        "data.root=..., or use it as it is with data.verify=false"
    )
