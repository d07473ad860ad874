"""Images per second of the device pipeline against torchvision's usual ways, in turns.

All give normalized float32 batches: PIL transforms in a DataLoader with 0 and with 2 workers, transforms.v2 on tensors
without workers, and the device pipeline followed by the classifier's normalization.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import v2

from benchmarks import record
from benchmarks.plain import PIL_TRANSFORMS, PilImages
from cifar_lightning import api
from cifar_lightning.data.loader import Split
from cifar_lightning.data.sets import SETS
from cifar_lightning.runs.build import build_module
from cifar_lightning.training.classifier import ImageClassifier

GOALS = {"flip_crop": 8.0, "affine_jitter": 5.0, "flip_crop_cutout": None}
GOAL = "on one CPU thread at least 8x for flip_crop, 5x for affine_jitter, against PIL without workers"
EXPECTED = (
    "8 to 10 times for shifts and flips, which are one gather of bytes; less for colours, which need arithmetic per "
    "pixel; two workers help little, as they add a copy of each batch"
)
EXAMPLES = """\
  python -m benchmarks.pipeline --threads 1                    the three augmentations: a minute or two
  python -m benchmarks.pipeline flip_crop --images 20000
"""
V2_TRANSFORMS: dict[str, list[Any]] = {
    "flip_crop": [v2.RandomHorizontalFlip(), v2.RandomCrop(32, 4, padding_mode="reflect")],
    "affine_jitter": [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(10, scale=(0.8, 1.2), shear=10),
        v2.ColorJitter(0.2, 0.2, 0.2),
    ],
}


class TensorImages(Dataset):
    """A dataset of image tensors, for transforms.v2."""

    def __init__(self, split: Split, transform: v2.Compose) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.split.images[index]), self.split.labels[index]


def pil(name: str, split: Split) -> PilImages:
    normalize = [transforms.ToTensor(), transforms.Normalize(SETS["cifar10"].mean, SETS["cifar10"].std)]
    if name == "flip_crop_cutout":
        return PilImages(split, transforms.Compose([*PIL_TRANSFORMS["flip_crop"], *normalize, erasing(transforms)]))
    return PilImages(split, transforms.Compose([*PIL_TRANSFORMS[name], *normalize]))


def tensors(name: str, split: Split) -> TensorImages:
    normalize = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(SETS["cifar10"].mean, SETS["cifar10"].std)]
    if name == "flip_crop_cutout":
        return TensorImages(split, v2.Compose([*V2_TRANSFORMS["flip_crop"], *normalize, erasing(v2)]))
    return TensorImages(split, v2.Compose([*V2_TRANSFORMS[name], *normalize]))


def erasing(module: Any) -> Any:
    """torchvision's closest to Cutout: a square of 16 x 16 that lies within the image."""
    return module.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0))


def programs(name: str, arguments: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """The ways to make batches; each program returns its images per second."""
    config = api.compose(
        [
            f"augmentation={name}",
            "model=cnn2",
            "data.val_size=0",
            "data.batch_size=128",
            *record.data_overrides(arguments),
        ]
    )
    data = api.load_data(config)
    normalized = cast(ImageClassifier, build_module(config, data)).normalized
    device_loader = data.train_dataloader()
    some = Split(data.train.images[: arguments.images], data.train.labels[: arguments.images])

    def loader(dataset: Dataset, workers: int) -> DataLoader:
        return DataLoader(dataset, 128, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    return {
        "device pipeline": timed(device_loader, normalized),
        "PIL": timed(loader(pil(name, some), 0)),
        "PIL, 2 workers": timed(loader(pil(name, some), 2)),
        "v2": timed(loader(tensors(name, some), 0)),
    }


def timed(loader: Iterable[Any], finish: Callable[[Tensor], Tensor] = lambda images: images) -> Callable[[], float]:
    """A program that runs through an epoch and returns its images per second."""

    def program() -> float:
        start, images = time.perf_counter(), 0
        for batch, _ in loader:
            images += len(finish(batch))
        return images / (time.perf_counter() - start)

    return program


def measure(arguments: argparse.Namespace) -> record.Record:
    rows, seen = [], []
    for name in arguments.augmentations or GOALS:
        speeds = record.in_turns(programs(name, arguments), arguments.repetitions)
        ratio = record.median_ratio(speeds["device pipeline"], speeds["PIL"])
        medians = {way: f"{statistics.median(speed):,.0f}" for way, speed in speeds.items()}
        goal = GOALS[name]
        rows.append(
            {"augmentation": name, **medians, "ratio to PIL": f"{ratio:.1f}", "goal": f"{goal:.1f}" if goal else "-"}
        )
        seen.append(f"{name} {ratio:.1f}x")
    return record.Record(GOAL, EXPECTED, ", ".join(seen), rows)


def known(name: str) -> str:
    if name not in GOALS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(GOALS)}, got {name}")
    return name


def main(argv: Sequence[str] | None = None) -> int:
    options = record.parser("pipeline", __doc__ or "", EXAMPLES, repetitions=5)
    options.add_argument(
        "augmentations", nargs="*", metavar="NAME", type=known, help=f"{', '.join(GOALS)} (default: all)"
    )
    options.add_argument("--images", type=record.positive, default=5_000, help="per epoch of torchvision's ways")
    return record.main(options, measure, argv)


if __name__ == "__main__":
    sys.exit(main())
