"""Unpack the official files of a data set from their archive, without trusting the archive."""

import gzip
import os
import shutil
import tarfile
import zlib
from pathlib import Path

from cifar_lightning.data.official import Official
from cifar_lightning.errors import UserError

LARGEST_ARCHIVE = 1 << 29  # bytes when unpacked, about three times CIFAR-10's
LARGEST_HEADER = 1 << 22  # bytes that are read at once
MAX_MEMBERS = 1_000  # CIFAR-10 has 9
# Raised by gzip and tarfile on damaged or manipulated files; nested headers are read recursively.
DAMAGED = (
    EOFError, ValueError, LookupError, ArithmeticError, RecursionError, zlib.error, gzip.BadGzipFile, tarfile.TarError
)  # fmt: skip


def folder_in(archive: Path) -> str:
    """The folder that the first member of an archive is in; empty for a damaged one."""
    try:
        with _BoundedGzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            first = tar.next()
            return first.name.partition("/")[0] if first else ""
    except (*DAMAGED, OSError):
        return ""


def unpack(official: Official, archive: Path, folder: Path) -> None:
    """Unpack the official files beside `folder`, then move them there in one step; other members are ignored.

    The caller holds the lock. Raises UserError for a damaged archive, or one without all of the files.
    """
    remedy = f"Delete {archive} and run again to download it, or give another folder with data.root=..."
    scratch = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(scratch, ignore_errors=True)  # left by a process that was killed
    try:
        scratch.mkdir()
        with _BoundedGzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for n, member in enumerate(tar):
                if n == MAX_MEMBERS:
                    raise tarfile.ReadError(f"it has more than {MAX_MEMBERS:,} members")
                parent, _, name = member.name.rpartition("/")
                if parent == official.folder and name in official.files:
                    if not member.isreg() or member.issparse():  # a link, a device, or gigabytes of holes
                        raise UserError(f"{archive} holds {member.name!r}, which is not a plain file. {remedy}")
                    content = tar.extractfile(tarfile.data_filter(member, str(scratch)))
                    with content, (scratch / name).open("wb") as file:  # type: ignore[union-attr]
                        shutil.copyfileobj(content, file, 1 << 20)  # type: ignore[arg-type]
        for name in official.files:
            if not (scratch / name).is_file():
                raise UserError(f"{archive} is not a {official.title} archive: no {official.folder}/{name}. {remedy}")
        os.replace(scratch, folder)
    except DAMAGED as error:
        raise UserError(f"{archive} is cut short or corrupt ({error}). {remedy}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _BoundedGzip(gzip.GzipFile):
    """Limits how much is unpacked, and how much is read at once: a header may claim any length."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST_HEADER or self.tell() + size > LARGEST_ARCHIVE:
            raise tarfile.ReadError("its content is too large")
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset > LARGEST_ARCHIVE:
            raise tarfile.ReadError("its content is too large")
        return super().seek(offset, whence)
