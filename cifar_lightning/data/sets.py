"""The data sets: all that is known of each without reading it. A new one is an entry here and a module that reads it.

Needs no torch, so that configs are checked and data downloaded before it is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from cifar_lightning.data.official import CIFAR10, CIFAR100, Official


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set.

    reader: the module of this package whose `read(source, official)` returns its `Arrays`.
    mean, std: of each channel in [0, 1] over the training images; None where they are measured.
    official: its files, where it has any to be found or downloaded.
    look_alikes: which class is mistaken for which in asymmetric label noise.
    """

    reader: str
    classes: int  # of fine labels, where there are coarse ones
    image_shape: tuple[int, int, int]  # channels, height, width
    train_images: int  # before the validation split
    test_images: int
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
        classes=10,
        image_shape=(3, 32, 32),
        train_images=50_000,
        test_images=10_000,
        # The often-copied standard deviations (0.2023, 0.1994, 0.2010) are means of those of single images.
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        official=CIFAR10,
        # Patrini et al. 2017 (arXiv 1609.03683), section 5.
        look_alikes={"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"},
    ),
    "cifar100": DataSet(
        reader="cifar",
        classes=100,
        image_shape=(3, 32, 32),
        train_images=50_000,
        test_images=10_000,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        official=CIFAR100,
    ),
    "digits": DataSet(
        reader="digits", classes=10, image_shape=(3, 32, 32), train_images=1_437, test_images=360
    ),
}  # fmt: skip


def fetch(name: str, root: str, verify: bool) -> None:
    """Find or download the official files of a data set. Raises UserError where they can't be had."""
    official = SETS[name].official if name in SETS else None
    if official:
        from cifar_lightning.data.download import find_or_download

        find_or_download(official, Path(root), verify)
