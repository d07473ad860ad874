"""Damaged files of every kind, without end: each must be read, or refused in one line, quickly and in little memory.

    python tests/helpers/fuzz.py 60            a minute of each kind
    python tests/helpers/fuzz.py 60 image 7    a minute of images, beginning with seed 7

A failure is printed with the bytes' path, the seed, and what went wrong.
"""

import contextlib
import functools
import io
import pickle
import random
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from PIL import Image

from cifar_lightning.checkpoints.load import load_classifier
from cifar_lightning.data.archive import unpack
from cifar_lightning.data.images import FORMATS, read_image
from cifar_lightning.data.official import CIFAR10
from cifar_lightning.data.pickles import parse_batch
from cifar_lightning.errors import UserError
from helpers.checkpoints import checkpoint_of
from helpers.official_format import batch, coloured_noise, python2_pickle, write_cifar

MOST_SECONDS = 20.0  # of CPU time for one file: what takes that long would not end
# More than before the first file. An image of the largest size that is read, as a damaged header may claim, takes 400
# MB, and twice that while it is converted.
MOST_MEMORY = 1 << 30
MAGIC = [b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff" * 8, b"\x80\x02", b"c", b"R", b"."]


@dataclass(frozen=True)
class Kind:
    """Whole files to begin with, and what reads one in a folder of its own."""

    seeds: Callable[[Path], list[bytes]]
    attempt: Callable[[bytes, Path], object]


def pickles(folder: Path) -> list[bytes]:
    entries = batch(*coloured_noise(3, np.random.default_rng(0)))
    return [python2_pickle(entries), *(pickle.dumps(entries, protocol) for protocol in (2, 3, 4, 5))]


def archives(folder: Path) -> list[bytes]:
    import tarfile

    write_cifar(folder / "small", n_per_batch=1, n_test=1)
    contents = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
            tar.add(folder / "small", CIFAR10.folder)
        contents.append(buffer.getvalue())
    return contents


def read_archive(content: bytes, folder: Path) -> None:
    """What is damaged is the tar within: gzip's own check would find the rest."""
    import gzip

    (folder / "a.tar.gz").write_bytes(gzip.compress(content, 1))
    try:
        unpack(CIFAR10, folder / "a.tar.gz", folder / CIFAR10.folder)
    finally:
        (folder / "a.tar.gz").unlink()
        for file in (folder / CIFAR10.folder).glob("*"):
            file.unlink()
        if (folder / CIFAR10.folder).is_dir():
            (folder / CIFAR10.folder).rmdir()


def checkpoints(folder: Path) -> list[bytes]:
    return [whole_checkpoint()]


@functools.cache
def whole_checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint_of(), buffer)
    return buffer.getvalue()


def read_checkpoint(content: bytes, folder: Path) -> None:
    """The zip's sums would find most damage: the description within is what is damaged in every second file."""
    if len(content) % 2:
        content = redescribed(content)
    read_file(load_classifier, "a.ckpt")(content, folder)


def redescribed(content: bytes) -> bytes:
    buffer, rng = io.BytesIO(), random.Random(content)
    with zipfile.ZipFile(io.BytesIO(whole_checkpoint())) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            inner = old.read(member)
            new.writestr(member.filename, damaged(inner, rng) if member.filename.endswith("data.pkl") else inner)
    return buffer.getvalue()


def images(folder: Path) -> list[bytes]:
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8))
    contents = []
    for format in FORMATS:
        more = {"save_all": True, "append_images": [pixels.rotate(90)]} if format in ("GIF", "PNG") else {}
        buffer = io.BytesIO()
        pixels.save(buffer, format, **more)
        contents.append(buffer.getvalue())
    return contents


def read_file(read: Callable[[Path], object], name: str) -> Callable[[bytes, Path], None]:
    def attempt(content: bytes, folder: Path) -> None:
        (folder / name).write_bytes(content)
        try:
            read(folder / name)
        finally:
            (folder / name).unlink()

    return attempt


KINDS = {
    "pickle": Kind(pickles, lambda content, folder: parse_batch(content, folder / "data_batch_1")),
    "archive": Kind(archives, read_archive),
    "checkpoint": Kind(checkpoints, read_checkpoint),
    "image": Kind(images, read_file(lambda path: read_image(path, 32), "a.png")),
}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One to four changes: cut, flip a bit, write a number or an instruction, repeat or lose a piece."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        # Where the structure is: at both ends, more often than in the middle.
        at = min(int(len(changed) * rng.random() ** rng.choice([1, 4])), max(0, len(changed) - 1))
        at = len(changed) - 1 - at if changed and rng.random() < 0.3 else at
        length = rng.choice([1, 2, 4, 8, 64, 512])
        match rng.randrange(6):
            case 0:
                del changed[at : None if rng.random() < 0.3 else at + length]
            case 1 if changed:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                magic = rng.choice(MAGIC)
                changed[at : at + len(magic)] = magic
            case 3:
                changed[at:at] = changed[at : at + length] * rng.choice([1, 2, 100])
            case 4:
                changed[at : at + length] = rng.randbytes(length)
            case _:
                del changed[at : at + length]
    return bytes(changed)


def fuzz(kind: Kind, folder: Path, *, seed: int = 0, files: int | None = None, seconds: float = 60) -> tuple[int, int]:
    """Read damaged files, for so many of them or so long; the number of those that could be read, and that could not.

    Raises AssertionError, with the seed, for what is neither read nor refused in one line, or too slowly, or in too
    much memory, or leaves a file behind.
    """
    seeds = kind.seeds(folder)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    with contextlib.suppress(UserError):
        kind.attempt(seeds[0], work)  # loads what is loaded once
    memory, end, read, refused = peak_memory(), time.monotonic() + seconds, 0, 0
    for number in counted(seed, files):
        rng = random.Random(number)
        content = damaged(rng.choice(seeds), rng)
        began = time.process_time()
        try:
            kind.attempt(content, work)
            read, answer = read + 1, ""
        except UserError as error:
            refused, answer = refused + 1, str(error)
        except BaseException as error:
            (folder / "failed").write_bytes(content)
            raise AssertionError(f"seed {number}: {type(error).__name__}: {error} ({folder / 'failed'})") from error
        assert "\n" not in answer, f"seed {number}: more than one line: {answer}"
        assert time.process_time() - began < MOST_SECONDS, f"seed {number}: {time.process_time() - began:.1f} s"
        assert peak_memory() - memory < MOST_MEMORY, f"seed {number}: {(peak_memory() - memory) >> 20} MiB"
        assert not list(work.iterdir()), f"seed {number}: left {list(work.iterdir())}"
        if time.monotonic() > end:
            break
    return read, refused


def counted(start: int, files: int | None) -> Iterator[int]:
    number = start
    while files is None or number < start + files:
        yield number
        number += 1


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(seconds: str = "60", names: str = ",".join(KINDS), seed: str = "0") -> None:
    for name in names.split(","):
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        read, refused = fuzz(KINDS[name], folder, seed=int(seed), seconds=float(seconds))
        shutil.rmtree(folder)
        print(f"{name}: {read + refused:,} damaged files, {read:,} read, {refused:,} refused")


if __name__ == "__main__":
    main(*sys.argv[1:])
