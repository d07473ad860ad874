"""Augmentation of many images at once, each by its own draw: `draw(n, generator)`, then `apply(images, drawn)`."""

from cifar_lightning.data.augmentation.crop import RandomCrop
from cifar_lightning.data.augmentation.flip import HorizontalFlip

__all__ = ["HorizontalFlip", "RandomCrop"]
