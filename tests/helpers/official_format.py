"""Small folders in the format of the official CIFAR-10 files, which Python 2 wrote."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2's cPickle and NumPy 1.x write it: byte strings, everything memoized."""
    memo = -1

    def put() -> bytes:
        nonlocal memo
        memo += 1
        return b"q" + bytes([memo]) if memo < 256 else b"r" + struct.pack("<I", memo)

    def items(values: Any) -> bytes:
        return b"(" + b"".join(map(write, values))

    def write(value: Any) -> bytes:
        match value:
            case None:
                return b"N"
            case bool():
                return b"\x88" if value else b"\x89"
            case int() if 0 <= value < 256:
                return b"K" + bytes([value])
            case int() if 0 <= value < 65536:
                return b"M" + struct.pack("<H", value)
            case int():
                return b"J" + struct.pack("<i", value)
            case bytes() if len(value) < 256:
                return b"U" + bytes([len(value)]) + value + put()
            case bytes():
                return b"T" + struct.pack("<I", len(value)) + value + put()
            case list():
                return b"]" + put() + items(value) + b"e"
            case dict():
                return b"}" + put() + items(entry for pair in value.items() for entry in pair) + b"u"
            case np.ndarray():
                return array(value)
        raise TypeError(type(value))

    def array(value: np.ndarray) -> bytes:
        order, code = value.dtype.str[:1].encode(), value.dtype.str[1:].encode()
        dtype = b"cnumpy\ndtype\n" + write(code) + b"K\x00K\x01\x87R" + put()
        dtype += b"(K\x03" + write(order) + b"NNN" + write(-1) + write(-1) + b"K\x00tb"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + write(b"b") + b"\x87R" + put()
        return empty + b"(K\x01" + items(value.shape) + b"t" + dtype + b"\x89" + write(value.tobytes()) + b"tb"

    return b"\x80\x02" + write(value) + b"."


def batch(images: np.ndarray, labels: np.ndarray, title: str = "training batch 1 of 5") -> dict[bytes, Any]:
    """The entries of one file: images uint8 [N, 3, 32, 32], labels [N]."""
    names = [f"{CLASSES[label]}_s_{i:06}.png".encode() for i, label in enumerate(labels)]
    return {
        b"batch_label": title.encode(),
        b"labels": [int(label) for label in labels],
        b"data": images.reshape(len(images), -1),
        b"filenames": names,
    }


def coloured_noise(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`n` images, as many of each class, which a small network tells apart: noise around a colour for each class."""
    labels = rng.permutation(np.arange(n) % 10)
    colours = np.random.default_rng(10).uniform(40, 215, (10, 3, 1, 1))
    images = colours[labels] + rng.normal(0, 25, (n, 3, 32, 32))
    return images.clip(0, 255).astype(np.uint8), labels


def write_cifar(folder: Path, n_per_batch: int = 60, n_test: int = 100, seed: int = 0) -> None:
    """`folder`/data_batch_1..5, test_batch, batches.meta."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(1, 6):
        entries = batch(*coloured_noise(n_per_batch, rng), title=f"training batch {i} of 5")
        (folder / f"data_batch_{i}").write_bytes(python2_pickle(entries))
    entries = batch(*coloured_noise(n_test, rng), title="testing batch 1 of 1")
    (folder / "test_batch").write_bytes(python2_pickle(entries))
    meta = {b"num_cases_per_batch": n_per_batch, b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))


def write_cifar100(folder: Path, n_train: int = 300, n_test: int = 100) -> None:
    """`cifar-100-python` with `train`, `test` and `meta`, every class in it; the coarse label is the fine one // 5."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, n in (("train", n_train), ("test", n_test)):
        fine = [i % 100 for i in range(n)]
        entries = {
            b"filenames": [f"{i}.png".encode() for i in range(n)],
            b"batch_label": b"batch",
            b"fine_labels": fine,
            b"coarse_labels": [label // 5 for label in fine],
            b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
        }
        (folder / name).write_bytes(python2_pickle(entries))
    names = {
        b"fine_label_names": [f"fine_{i}".encode() for i in range(100)],
        b"coarse_label_names": [f"coarse_{i}".encode() for i in range(20)],
    }
    (folder / "meta").write_bytes(python2_pickle(names))
