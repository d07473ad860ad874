"""Read the official CIFAR-10 files (`data_batch_1`, …, `batches.meta`) without running anything in them.

They are pickles, which can be made to call anything. Here they may name NumPy's arrays and nothing else.
"""

import io
import math
import pickle
import pickletools
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from cifar_lightning.errors import UserError, printable, regular

LARGEST_FILE = 1 << 29  # bytes, 17 times an official batch

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
            return value.value if isinstance(value, _Array) else value
    names = [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in list(content)[:8]]
    found = printable(", ".join(sorted(name[:80] for name in names))) or "nothing"
    _reject(path, f"is no CIFAR-10 file: it has no entry '{key}' (it has {found})")


class _DType:
    """A dtype of whole numbers. NumPy's own would take a state that makes it read any memory."""

    def __init__(self, code: bytes | str, *_: Any) -> None:
        code = code.decode() if isinstance(code, bytes) else code
        if not re.fullmatch(r"[biu][1248]", code):
            raise pickle.UnpicklingError(f"holds an array of type {printable(code)[:60]}: refused")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.value = np.dtype(order + self.value.str[1:])


class _Array:
    """An array, from the bytes that the file has for it."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = np.frombuffer(content, dtype.value).reshape(shape, order="F" if is_fortran else "C")


def _reconstruct(kind: type[_Array], *_: Any) -> _Array:
    return kind()


def _frombuffer(content: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.value = np.frombuffer(content, dtype.value).reshape(shape, order="F" if order == "F" else "C")
    return array


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")  # the only encoding by which pickles write bytes


class _ArraysOnly(pickle.Unpickler):
    """Python's own machine for pickles. What makes an array is ours, and nothing else has a name."""

    # NumPy's module is numpy.core before 2.0, numpy._core since. Python 3 writes bytes by _codecs.encode in protocol 2.
    known: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy.core.numeric", "_frombuffer"): _frombuffer,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        key = module.replace("numpy._core", "numpy.core"), name
        if key not in self.known:
            raise pickle.UnpicklingError(f"asks for {ascii(module)[1:-1]}.{ascii(name)[1:-1]}: refused")
        return self.known[key]


def _check_memo(content: bytes) -> None:
    """Python's machine makes room for whatever number an entry of its memo is given: gigabytes, if the file says so."""
    with suppress(ValueError):  # cut short or no pickle, which loading says in its own way
        for instruction, argument, _ in pickletools.genops(content):
            if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
                raise pickle.UnpicklingError("its memo is larger than the file")


def _unpickle(content: bytes, path: Path) -> dict:
    if content[:1] not in (b"\x80", b"") or content[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05", b""):
        _reject(path, "is no CIFAR-10 file (not a pickle of protocol 2 to 5)")
    try:
        _check_memo(content)
        value = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # nearly anything, on damaged bytes
        if isinstance(error, EOFError) or "truncated" in str(error):
            _reject(path, f"is cut short (it ends after {len(content):,} bytes)")
        _reject(path, str(error) if str(error).endswith(": refused") else "is corrupt")
    if not isinstance(value, dict):
        _reject(path, "is no CIFAR-10 file: it holds no table of entries")
    return value


def _reject(path: Path, fault: str) -> NoReturn:
    raise UserError(
        f"{path} {fault}. Delete the folder {path.parent} and run again to fetch it anew, "
        "or give another one with data.root=..."
    ) from None
