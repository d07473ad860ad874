"""Augment many images at once, each by its own random draw: `draw(n, generator)`, then `apply(images, drawn)`."""

from cifar_lightning.data.augmentation.affine import RandomAffine
from cifar_lightning.data.augmentation.color import ColorJitter
from cifar_lightning.data.augmentation.crop import RandomCrop
from cifar_lightning.data.augmentation.cutout import Cutout
from cifar_lightning.data.augmentation.flip import AlternatingFlip, HorizontalFlip
from cifar_lightning.data.augmentation.mixing import CutMix, Mixup

__all__ = [
    "AlternatingFlip",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "HorizontalFlip",
    "Mixup",
    "RandomAffine",
    "RandomCrop",
]
