"""Adapt the user's own LightningDataModule: add the attributes that a run needs and the module lacks."""

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch

from cifar_lightning.data.loader import Split
from cifar_lightning.errors import UserError


def adopted(datamodule: L.LightningDataModule) -> Any:
    """The data module, set up, with the attributes of `ImageDataModule` that it lacks.

    It needs a `train_dataloader` and a `test_dataloader` of (images [B, C, H, W], labels [B]), and a `val_dataloader`
    for validation. Floating-point images are taken as normalized. One pass over each loader counts images and classes.
    Raises UserError for other batches.
    """
    datamodule.prepare_data()
    datamodule.setup("fit")
    datamodule.setup("test")
    name = type(datamodule).__name__
    found: dict[str, Any] = {
        split: joined(loader(datamodule, split), f"{name}.{split}_dataloader") for split in ("train", "val", "test")
    }
    if not len(found["train"]):
        raise UserError(f"data._target_={name}: its train_dataloader yields no images")
    channels = found["train"].images.shape[1]
    classes = getattr(datamodule, "num_classes", None) or int(found["train"].labels.max()) + 1
    defaults = {
        **found,
        "name": name,
        "checksum": None,
        "has_validation": len(found["val"]) > 0,
        "class_names": tuple(map(str, range(classes))),
        "mean": (0.0,) * channels,
        "std": (1.0,) * channels,
        "image_shape": tuple(found["train"].images.shape[1:]),
        "eval_batch_size": 500,
        "augmented_examples": lambda n: (as_bytes(found["train"].images[:n]), found["train"].labels[:n]),
    }
    for key, value in defaults.items():
        if not hasattr(datamodule, key):
            setattr(datamodule, key, value)
    return datamodule


def loader(datamodule: L.LightningDataModule, split: str) -> Iterable[Any]:
    own = getattr(type(datamodule), f"{split}_dataloader")
    if own is getattr(L.LightningDataModule, f"{split}_dataloader"):
        if split == "val":
            return []
        raise UserError(f"data._target_={type(datamodule).__name__} has no {split}_dataloader")
    return getattr(datamodule, f"{split}_dataloader")() or []


def joined(batches: Iterable[Any], name: str) -> Split:
    images, labels = [], []
    for batch in batches:
        if not (isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], torch.Tensor)):
            raise UserError(f"{name}: a batch must be (images, labels), got {type(batch).__name__}")
        images.append(batch[0])
        labels.append(torch.as_tensor(batch[1]))
    if not images:
        return Split(torch.empty(0, 3, 1, 1), torch.empty(0, dtype=torch.int64))
    return Split(torch.cat(images), torch.cat(labels).long())


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Images for display, uint8: normalized ones are stretched from their minimum to their maximum."""
    if images.dtype == torch.uint8:
        return images
    low, high = images.min(), images.max()
    return ((images - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
