"""A network and data so small that a training takes milliseconds."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from cifar_lightning.config.compose import compose, plain
from cifar_lightning.training.classifier import ImageClassifier

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SGD = {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9}
CONSTANT = {"_target_": "cifar_lightning.optim.schedules.constant"}


def group_config(group: str, choice: str, **keys: Any) -> dict[str, Any]:
    """The config that `group=choice` composes, with other values for some keys."""
    config = compose([f"{group}={choice}"])
    OmegaConf.set_struct(config, False)
    config[group] = OmegaConf.merge(config[group], keys)
    return dict(plain(config[group]))


class Batches:
    """The same batches in every epoch, the last one smaller where `n` is no multiple of the batch size."""

    def __init__(self, n: int = 38, batch_size: int = 8, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
        self.labels = torch.randint(0, 10, (n,), generator=generator)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)


def small_network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, bias=False),  # the norm leaves its bias a gradient of noise, which Adam blows up
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(54, 10),
    )


def small_classifier(network: nn.Module | None = None, **keys: Any) -> ImageClassifier:
    defaults = {"optimizer": SGD, "scheduler": CONSTANT, "mean": MEAN, "std": STD, "config": {"seed": 0}}
    names = [f"class {i}" for i in range(10)]
    return ImageClassifier(network or small_network(), **{**defaults, "class_names": names, **keys})


def small_trainer(**keys: Any) -> L.Trainer:
    defaults = {"accelerator": "cpu", "max_epochs": 4, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(**{**defaults, **quiet, **keys})


def normalized(images: Tensor) -> Tensor:
    """As a person would write it down."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (images / 255 - mean) / std
