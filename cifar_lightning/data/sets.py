"""The data sets: all that is known of each without reading it. A new one is an entry here and a module that reads it.

Needs no torch, so that configs are checked and data downloaded before it is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from cifar_lightning.data.official import CIFAR10, CIFAR100, Official

VAL_SHARE = 0.2  # for validation with data.val_size=null, where the files set no images apart


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set.

    reader: the module of this package whose `read(source, official)` returns its `Arrays`, and whose
    `files(source, official)` are what it reads.
    mean, std: of each channel in [0, 1] over the training images; None where they are measured.
    official: its files, where it has any to be found or downloaded.
    look_alikes: which class is mistaken for which in asymmetric label noise.
    """

    reader: str
    train_images: int | None = None  # before the validation split; None where only the files tell
    image_sizes: tuple[int, ...] = ()  # the choices of data.image_size, where there are any
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    official: Official | None = None
    look_alikes: Mapping[str, str] = field(default_factory=dict)

    @property
    def channel(self) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
        """(mean, standard deviation), where they are known."""
        return (self.mean, self.std) if self.mean and self.std else None

    def module(self) -> Any:
        return import_module(f"cifar_lightning.data.{self.reader}")


SETS = {
    "cifar10": DataSet(
        reader="cifar",
        train_images=50_000,
        # The often-copied standard deviations (0.2023, 0.1994, 0.2010) are means of those of single images.
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        official=CIFAR10,
        # Patrini et al. 2017 (arXiv 1609.03683), section 5.
        look_alikes={"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"},
    ),
    "cifar100": DataSet(
        reader="cifar",
        train_images=50_000,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        official=CIFAR100,
    ),
    "mnist": DataSet(reader="torchvision_sets", train_images=60_000, image_sizes=(28, 32)),
    "fashion_mnist": DataSet(reader="torchvision_sets", train_images=60_000, image_sizes=(28, 32)),
    "svhn": DataSet(reader="torchvision_sets", train_images=73_257),
    "folder": DataSet(reader="folder", image_sizes=(32, 48, 64, 96)),
    "npz": DataSet(reader="npz"),
    "digits": DataSet(reader="digits", train_images=1_437),
}


def fetch(name: str, root: str, verify: bool) -> None:
    """Find or download the official files of a data set. Raises UserError where they can't be had."""
    official = SETS[name].official if name in SETS else None
    if official:
        from cifar_lightning.data.download import find_or_download

        find_or_download(official, Path(root), verify)
