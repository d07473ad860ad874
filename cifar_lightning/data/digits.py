"""Bundled handwritten digits: a small data set for the demo and the tests that needs no download.

1,797 handwritten digits of 8x8 pixels and 17 grey levels, by E. Alpaydin and C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/). `digits.npz` holds the repository's test set as scikit-learn's
`load_digits` returns it, unchanged: `images` uint8 [1797, 8, 8] (0 to 16) and `labels` uint8 [1797]. They are enlarged
and turned into RGB below.
"""

from pathlib import Path

import numpy as np

from cifar_lightning.data.arrays import Arrays, LabeledImages, Source
from cifar_lightning.data.stratified_split import stratified_split

N_TEST = 360


FILE = Path(__file__).with_name("digits.npz")


def files(source: Source, official: None) -> list[Path]:
    return [FILE]


def read(source: Source, official: None) -> Arrays:
    return load_digits()


def load_digits() -> Arrays:
    """1,437 training and 360 test images, always the same ones, in the shape of CIFAR-10's."""
    with np.load(FILE, allow_pickle=False) as file:
        images, labels = enlarge(file["images"]), file["labels"].astype(np.int64)
    train, test = stratified_split(labels, N_TEST, seed=42)
    return Arrays.of(
        train=LabeledImages(images[train], labels[train]),
        test=LabeledImages(images[test], labels[test]),
        class_names=tuple("0123456789"),
    )


def enlarge(digits: np.ndarray) -> np.ndarray:
    """[N, 8, 8] in 0..16 -> uint8 [N, 3, 32, 32] in 0..255: bilinear, in integers, so the same everywhere."""
    # Pixel centres of the 32 fall 1, 3, 5 and 7 eighths of the way between those of the 8; the border is repeated.
    eighths = np.clip(2 * np.arange(32) - 3, 0, 56)
    left = np.minimum(eighths // 8, 6)
    weights = np.zeros((32, 8), np.int64)
    weights[np.arange(32), left + 1] = eighths - 8 * left
    weights[np.arange(32), left] = 8 - weights[np.arange(32), left + 1]
    scaled = weights @ digits.astype(np.int64) @ weights.T  # 0 .. 16 * 8 * 8
    grey = ((scaled * 255 + 512) // 1024).astype(np.uint8)
    return np.repeat(grey[:, None], 3, axis=1)
