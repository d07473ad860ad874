"""Read the official CIFAR files (`data_batch_1`, …, `batches.meta`) without running any code from them.

They are pickles, which may call anything. Here they may build NumPy arrays and nothing else.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from cifar_lightning.errors import UserError, printable, regular

LARGEST_FILE = 1 << 29  # bytes; the largest official one has 155 million
IMAGE_SHAPE = (3, 32, 32)


def read_file(path: Path) -> bytes:
    try:
        size = regular(path).stat().st_size
        if size > LARGEST_FILE:
            _reject(path, f"is not a CIFAR file: it has {size:,} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        _reject(path, "is missing")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}. Give another folder with data.root=...") from error


def parse_batch(content: bytes, path: Path, classes: int = 10, key: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, 32, 32] and labels int64 [n] of a file's content; the images may be a read-only view of it.

    `key`: the entry with the labels. Raises UserError, naming `path`, for anything else.
    """
    batch = _unpickle(content, path)
    images, labels = _entry(batch, "data", path), _entry(batch, key, path)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (math.prod(IMAGE_SHAPE),):
        _reject(path, "is not a CIFAR batch: its 'data' is not a uint8 array of 3,072 columns")
    if len(images) == 0:
        _reject(path, "holds no images")
    if isinstance(labels, list) and set(map(type, labels)) <= {int}:
        labels = np.array([label if 0 <= label < classes else -1 for label in labels], np.int64)
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        _reject(path, f"is not a CIFAR batch: its '{key}' are not a list of integers")
    if len(labels) != len(images):
        _reject(path, f"has {len(images):,} images but {len(labels):,} labels")
    if labels.min() < 0 or labels.max() >= classes:
        _reject(path, f"has a label outside 0 to {classes - 1}")
    return images.reshape(-1, *IMAGE_SHAPE), labels.astype(np.int64)


def parse_class_names(content: bytes, path: Path, classes: int = 10, key: str = "label_names") -> tuple[str, ...]:
    """The class names in the order of their labels, from the entry `key`. Raises UserError for anything else."""
    names = _entry(_unpickle(content, path), key, path)
    if not isinstance(names, list) or not set(map(type, names)) <= {bytes, str}:
        _reject(path, f"is not a CIFAR file: its '{key}' are not a list of names")
    try:
        names = tuple(name.decode() if isinstance(name, bytes) else name for name in names)
    except UnicodeDecodeError:
        _reject(path, "is corrupt: a class name is not UTF-8")
    if not len(set(names)) == len(names) == classes or not all(map(str.isprintable, names)) or "" in names:
        _reject(path, f"does not hold {classes} different class names")
    return names


def _entry(content: dict, key: str, path: Path) -> Any:
    for spelling in (key.encode(), key):  # bytes if written by Python 2
        if spelling in content:
            value = content[spelling]
            return value.value if isinstance(value, _Array) else value
    names = [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in list(content)[:8]]
    found = printable(", ".join(sorted(name[:80] for name in names))) or "nothing"
    _reject(path, f"is not a CIFAR file of this data set: it has no entry '{key}' (it has {found})")


class _DType:
    """A dtype of integers. NumPy's own would take a state that makes it read arbitrary memory."""

    def __init__(self, code: bytes | str, *_: Any) -> None:
        code = code.decode() if isinstance(code, bytes) else code
        if not re.fullmatch(r"[biu][1248]", code):
            raise pickle.UnpicklingError(f"holds an array of type {ascii(code)[1:-1][:60]}: refused")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if order in ("<", ">"):
            self.value = np.dtype(order + self.value.str[1:])


class _Array:
    """An array, built from the bytes in the file."""

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
    return text.encode("latin1")  # the only encoding that pickles write bytes with


class _ArraysOnly(pickle.Unpickler):
    """Python's unpickler, in which only stand-ins for NumPy's arrays and dtypes have names."""

    # numpy.core before NumPy 2.0, numpy._core since. Python 3 writes bytes with _codecs.encode in protocol 2.
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
    """Python's unpickler allocates memory for the largest number of a memo entry, up to gigabytes."""
    with suppress(ValueError):  # cut short or not a pickle: reported when it is loaded
        for instruction, argument, _ in pickletools.genops(content):
            if instruction.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
                raise pickle.UnpicklingError("its memo is larger than the file")


def arrays_in(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """The integer arrays of a pickled dictionary, by name. Raises UserError, naming `path`, for anything else."""
    content_of = _unpickle(content, path, _refuse)
    arrays = {k: v.value for k, v in content_of.items() if isinstance(v, _Array) and v.value is not None}
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): array for key, array in arrays.items()}


def _unpickle(content: bytes, path: Path, reject: Callable[[Path, str], NoReturn] | None = None) -> dict:
    reject = reject or _reject
    if content[:1] not in (b"\x80", b"") or content[1:2] not in (b"\x02", b"\x03", b"\x04", b"\x05", b""):
        reject(path, "is not a pickle of protocol 2 to 5")
    try:
        _check_memo(content)
        value = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # nearly anything, for damaged bytes
        if isinstance(error, EOFError) or "truncated" in str(error):
            reject(path, f"is cut short (it ends after {len(content):,} bytes)")
        reject(path, str(error) if str(error).endswith(": refused") else "is corrupt")
    if not isinstance(value, dict):
        reject(path, "does not hold a dictionary")
    return value


def _reject(path: Path, fault: str) -> NoReturn:
    raise UserError(
        f"{path} {fault}. Delete the folder {path.parent} and run again to download it, "
        "or give another one with data.root=..."
    ) from None


def _refuse(path: Path, fault: str) -> NoReturn:
    raise UserError(f"{path} {fault}") from None
