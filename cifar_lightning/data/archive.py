"""The official archive: what it holds, its sums, and how it is unpacked without trusting it."""

import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cifar_lightning.data.pickles import LARGEST_FILE
from cifar_lightning.errors import UserError, regular

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = "test_batch"
META = "batches.meta"
MOST_MEMBERS = 1_000  # the official archive has 9
LARGEST_READ = 1 << 22
# What gzip and tarfile raise on damaged or doctored files; headers in headers, without end, are read recursively.
DAMAGED = (
    EOFError, ValueError, LookupError, ArithmeticError, RecursionError, zlib.error, gzip.BadGzipFile, tarfile.TarError
)  # fmt: skip


class Sum(NamedTuple):
    size: int
    md5: str


# The archive's MD5 is on https://www.cs.toronto.edu/~kriz/cifar.html; those of its files follow from it.
OFFICIAL_ARCHIVE = Sum(170_498_071, "c58f30108f718f92721af3b95e74349a")
OFFICIAL_FILES = {
    "data_batch_1": Sum(31_035_704, "c99cafc152244af753f735de768cd75f"),
    "data_batch_2": Sum(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": Sum(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": Sum(31_035_696, "634d18415352ddfa80567beed471001a"),
    "data_batch_5": Sum(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": Sum(31_035_526, "40351d587109b95175f43aff81a1287e"),
    "batches.meta": Sum(158, "5ff9c542aee3614f3951f8cda6e48888"),
}


def sum_of(path: Path) -> Sum:
    with regular(path).open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return Sum(path.stat().st_size, digest.hexdigest())


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files that are read, and no others, beside `folder`, then move them there in one step.

    The caller holds the lock. A member that leaves the folder, a link or a device makes the archive refused whole.
    """
    scratch = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    try:
        scratch.mkdir()
        _unpack_known(archive, scratch)
        missing = [name for name in OFFICIAL_FILES if not (scratch / name).is_file()]
        if missing:
            raise UserError(f"{archive} is no CIFAR-10 archive: it has no {FOLDER}/{missing[0]}. {_mend(archive)}")
        os.replace(scratch, folder)
    except DAMAGED as error:
        raise UserError(f"{archive} is cut short or corrupt ({error}). {_mend(archive)}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Bounded:
    """The unpacked bytes of an archive: an end to them, and to what is read at once (a header may claim any length)."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self.tell = file, file.tell

    def read(self, n: int) -> bytes:
        if n > LARGEST_READ or self.tell() + n > LARGEST_FILE:
            raise tarfile.ReadError("it holds more than CIFAR-10 does")
        return self._file.read(n)

    def seek(self, position: int) -> int:
        if position > LARGEST_FILE:
            raise tarfile.ReadError("it holds more than CIFAR-10 does")
        return self._file.seek(position)


def _bounded(file: gzip.GzipFile) -> Any:
    return _Bounded(file)  # all that tarfile asks of a file, if not all that its type does


def _unpack_known(archive: Path, target: Path) -> None:
    with gzip.open(archive) as unpacked, tarfile.open(fileobj=_bounded(unpacked), mode="r:") as tar:
        for n, member in enumerate(tar):
            if n == MOST_MEMBERS:
                raise UserError(f"{archive} holds more than {MOST_MEMBERS:,} members: refused. {_mend(archive)}")
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
                raise UserError(f"{archive} holds {member.name!r}, which leaves the folder: refused. {_mend(archive)}")
            if not (member.isreg() or member.isdir()) or member.issparse():  # sparse: gigabytes of holes
                raise UserError(f"{archive} holds {member.name!r}, a link or a device: refused. {_mend(archive)}")
            if path.parent != PurePosixPath(FOLDER) or path.name not in OFFICIAL_FILES or not member.isreg():
                continue
            if member.size > LARGEST_FILE:
                raise UserError(f"{archive} holds {member.name!r} of {member.size:,} bytes: refused. {_mend(archive)}")
            content = tar.extractfile(member)
            assert content is not None  # as it is a regular file
            with content, (target / path.name).open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)


def _mend(archive: Path) -> str:
    return f"Delete {archive} and run again to download it, or give another folder with data.root=..."
