"""Folders of small PNG files that a network learns easily."""

from pathlib import Path

import numpy as np
from PIL import Image

from cifar_lightning.data.digits import load_digits


def write_folder(root: Path, counts: dict[str, int], classes: int = 3, size: int = 32) -> Path:
    """`root/SPLIT/digit N/I.png`: so many embedded digits of each class in each split ("" for no folder)."""
    digits = load_digits().train
    start = 0
    for split, count in counts.items():
        for label in range(classes):
            folder = root / split / f"digit {label}"
            folder.mkdir(parents=True)
            for i in np.flatnonzero(digits.labels == label)[start : start + count]:
                image = Image.fromarray(digits.images[i].transpose(1, 2, 0))
                image.resize((size, size)).save(folder / f"{i}.png")
        start += count
    return root
