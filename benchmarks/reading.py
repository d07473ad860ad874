"""Time to read each kind of data: the official files of CIFAR-10 and CIFAR-100, and a folder of PNGs, new and cached.

All in one process, in turns, with the operating system's cache warm.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks import record
from cifar_lightning.data import splits
from cifar_lightning.data.datamodule import ImageDataModule

GOAL = "CIFAR-100 in the time of CIFAR-10; a folder at 5,000 images a second, and from its cache in a second"
EXPECTED = "reading is hashing and copying, the same for both; decoding a small PNG takes 150 microseconds of a core"
EXAMPLES = """\
  python -m benchmarks.reading --cifar100 data    about two minutes
"""


def measure(arguments: argparse.Namespace) -> record.Record:
    record.data_overrides(arguments)  # the files are there
    first = data_set("digits") if arguments.digits else data_set("cifar10", root=arguments.root)
    with tempfile.TemporaryDirectory() as folder:
        write_images(first, Path(folder), arguments.images)
        programs: dict[str, Callable[[], float]] = {first.name: partial(seconds, first.name, root=arguments.root)}
        if arguments.cifar100:
            programs["cifar100"] = partial(seconds, "cifar100", root=arguments.cifar100)
        programs["folder, new"] = lambda: forget_cache(folder) + seconds("folder", root=folder)
        programs["folder, cached"] = partial(seconds, "folder", root=folder)
        times = record.in_turns(programs, arguments.repetitions)
    counts = dict.fromkeys(times, len(first.train) + len(first.test)) | dict.fromkeys(
        ["folder, new", "folder, cached"], min(arguments.images, len(first.train))
    )
    rows = [
        {
            "data": name,
            "seconds": f"{statistics.median(taken):.3f}",
            "images": f"{counts[name]:,}",
            "images/s": f"{counts[name] / statistics.median(taken):,.0f}",
        }
        for name, taken in times.items()
    ]
    seen = f"a folder at {rows[-2]['images/s']} images/s, {rows[-1]['images/s']} from its cache"
    if arguments.cifar100:
        seen += f"; CIFAR-100 in {record.median_ratio(times['cifar100'], times['cifar10']):.2f}x the time of CIFAR-10"
    return record.Record(GOAL, EXPECTED, seen, rows)


def data_set(name: str, **keys: object) -> ImageDataModule:
    splits._latest = None  # as in a new process
    data = ImageDataModule(name=name, val_size=0, batch_size=1, verify=False, **keys)  # type: ignore[arg-type]
    data.setup()
    return data


def seconds(name: str, **keys: object) -> float:
    start = time.perf_counter()
    data_set(name, **keys)
    return time.perf_counter() - start


def write_images(data: ImageDataModule, folder: Path, count: int) -> None:
    """`folder/CLASS/I.png`, the first `count` training images."""
    images, labels = data.train.images[:count].permute(0, 2, 3, 1).numpy(), data.train.labels[:count].tolist()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / data.class_names[label] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)


def forget_cache(folder: str) -> float:
    for path in Path(folder).glob(".images-*"):
        path.unlink()
    return 0.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = record.parser("reading", __doc__ or "", EXAMPLES, repetitions=5)
    parser.add_argument("--cifar100", type=Path, help="folder of CIFAR-100, if it is to be compared")
    parser.add_argument("--images", type=record.positive, default=50_000, help="PNGs in the folder (default: 50,000)")
    return record.main(parser, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
