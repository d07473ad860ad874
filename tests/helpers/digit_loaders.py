"""Loaders over a few digits, for every file of conf/augmentation."""

from typing import Any

import torch
from omegaconf import OmegaConf

from cifar_lightning.config.compose import conf_dir, instantiate, plain
from cifar_lightning.data.device_loader import DeviceLoader
from cifar_lightning.data.digits import load_digits
from cifar_lightning.data.loader import Batch, Split, TrainingLoader
from cifar_lightning.data.worker_loader import WorkerLoader

AUGMENTATIONS = sorted(file.stem for file in (conf_dir() / "augmentation").glob("*.yaml"))


def digits(n: int) -> Split:
    train = load_digits().train
    return Split(torch.from_numpy(train.images[:n]).clone(), torch.from_numpy(train.labels[:n]).clone())


def augmentation(name: str) -> tuple[str, list[Any]]:
    """The pipeline and the transforms of a file."""
    config = OmegaConf.load(conf_dir() / "augmentation" / f"{name}.yaml")
    return config.pipeline, [instantiate(plain(t)) for t in config.transforms.values()]


def loader(name: str, split: Split, **keys: Any) -> TrainingLoader:
    pipeline, transforms = augmentation(name)
    if pipeline == "device":
        return DeviceLoader(split, transforms=transforms, **keys)
    return WorkerLoader(split, transforms=transforms, **{"num_workers": 0} | keys)


def joined(batches: list[Batch]) -> Batch:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def same(some: list[Batch], others: list[Batch]) -> bool:
    """Bit for bit, types too."""
    pairs = [(a, b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True)]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
