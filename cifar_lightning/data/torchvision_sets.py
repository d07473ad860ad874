"""Read MNIST, Fashion-MNIST and SVHN through torchvision, which downloads their official files and checks their MD5."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from cifar_lightning.data.arrays import Arrays, LabeledImages, Source
from cifar_lightning.errors import UserError

SECONDS = 10.0  # without an answer of a server
CLASSES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "svhn": "SVHN"}


def files(source: Source, official: None) -> list[Path]:
    folder = folder_of(source)
    return sorted(path for path in folder.glob("*") if path.suffix in ("", ".mat") and path.is_file())


def folder_of(source: Source) -> Path:
    root = source.root.expanduser()
    return root if source.name == "svhn" else root / CLASSES[source.name] / "raw"


def read(source: Source, official: None) -> Arrays:
    """Images uint8 [N, 1, S, S] (SVHN [N, 3, 32, 32]). Raises UserError where they can't be had."""
    train, test = (load(source, part) for part in (True, False))
    names = [str(i) for i in range(10)] if source.name != "fashion_mnist" else train.classes
    return Arrays.of(arrays(train, source.image_size), arrays(test, source.image_size), names)


def load(source: Source, train: bool) -> Any:
    """torchvision's data set, downloaded if it isn't there."""
    import torchvision.datasets

    title, folder = CLASSES[source.name], folder_of(source)
    kind, root = getattr(torchvision.datasets, title), source.root.expanduser()
    which: Any = {"train": train} if title != "SVHN" else {"split": "train" if train else "test"}
    lock, before = root / f".{source.name}.lock", socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(SECONDS)  # torchvision sets none
        with FileLock(lock):
            return kind(root, **which, download=True)
    except ImportError as error:
        raise UserError("data=svhn needs SciPy: pip install 'cifar-lightning[svhn]'") from error
    # Whatever torchvision raises for damaged files, and for servers that don't answer.
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
        with suppress(OSError):  # what was made for the download, if nothing has come
            lock.unlink()
            for made in (folder, folder.parent, root):
                made.rmdir()
        raise UserError(
            f"{title} can't be read from {folder}, nor downloaded ({' '.join(str(error).split())}): put its official "
            "files there, or give another folder with data.root=..."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def arrays(data_set: Any, size: int | None) -> LabeledImages:
    if hasattr(data_set, "targets"):  # MNIST and its kin: tensors [N, 28, 28]
        images, labels = data_set.data.numpy()[:, None], data_set.targets.numpy()
    else:
        images, labels = data_set.data, data_set.labels
    border = ((size or images.shape[-1]) - images.shape[-1]) // 2
    padded = np.pad(images, ((0, 0), (0, 0), (border, border), (border, border))) if border else images
    return LabeledImages(np.ascontiguousarray(padded), labels.astype(np.int64))
