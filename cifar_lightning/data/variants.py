"""Variants of a training split: fewer images, unequal classes, wrong labels.

Each is drawn from `seed` alone, class by class, and takes labels int64 [N] of K classes. They act in the order
subset, imbalance, noise: `train_size` counts images before the imbalance, noise is a share of what is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cifar_lightning.errors import UserError

Imbalance = Literal["exp", "step"]
Noise = Literal["symmetric", "asymmetric"]


@dataclass(frozen=True)
class Variants:
    """Changes to the training split; the defaults leave it as it is."""

    train_size: int | float | None = None
    imbalance: float | None = None
    imbalance_type: Imbalance = "exp"
    label_noise: float = 0.0
    label_noise_type: Noise = "symmetric"
    variant_seed: int = 0

    def apply(self, labels: np.ndarray, classes: int, flips: Mapping[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
        """Indices into `labels` of the images that stay, ascending, and their labels, of which some may be wrong.

        flips: for asymmetric noise. Raises UserError for what these labels don't allow.
        """
        kept = np.arange(len(labels))
        if self.train_size is not None:
            kept = kept[subset(labels, self.train_size, self.variant_seed)]
        if self.imbalance is not None:
            kept = kept[imbalanced(labels[kept], self.imbalance, self.imbalance_type, self.variant_seed)]
        if not self.label_noise:
            return kept, labels[kept]
        if self.label_noise_type == "asymmetric" and not flips:
            raise UserError("data.label_noise_type=asymmetric: not defined for this data set; use symmetric")
        chosen = flips if self.label_noise_type == "asymmetric" else None
        return kept, noisy(labels[kept], self.label_noise, chosen, classes, self.variant_seed)


# One stream of draws for each variant, so that switching one on leaves the others' draws as they are.
SUBSET, IMBALANCE, NOISE = range(3)


def subset(labels: np.ndarray, size: int | float, seed: int) -> np.ndarray:
    """Indices of a stratified subset, ascending: `size` images (a count, or a share up to 1.0).

    Each class has its share of them to within one image. Subsets are nested: of one seed, the smaller one is part of
    the larger one. Raises UserError for more images than there are, or fewer than classes.
    """
    n, classes = len(labels), len(np.unique(labels))
    count = size if isinstance(size, int) else round(size * n)
    if not classes <= count <= n:
        raise UserError(
            f"data.train_size={size} is {count:,} images: give at least one for each of the {classes} classes, and at "
            f"most the {n:,} of the training split"
        )
    # The images of a class are spread evenly over [0, 1] in random order; the first `count` of all are the subset.
    rng = np.random.default_rng((seed, SUBSET))
    place = np.empty(n)
    for members in by_class(labels):
        place[rng.permutation(members)] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(place, kind="stable")[:count])


def imbalanced(labels: np.ndarray, factor: float, kind: Imbalance, seed: int) -> np.ndarray:
    """Indices, ascending, that leave the last class with 1/`factor` of the first one's images.

    exp: n_i = n (1/factor)^(i / (K - 1)), rounded down, for class i and the largest class's n (Cui et al. 2019,
    arXiv 1901.05555, section 5.1). step: the second half of the classes have n / factor (Buda et al. 2018). A class
    with fewer images keeps all. Raises UserError where a class would be left without images.
    """
    members = by_class(labels)
    most, last = max(map(len, members)), max(len(members) - 1, 1)
    shares = [
        factor ** (-i / last) if kind == "exp" else 1 / factor if i >= len(members) / 2 else 1
        for i in range(len(members))
    ]
    # 1e-9: 5000 / 100 ** 1.0 is 50, whatever the rounding of the power.
    sizes = [min(len(of_class), int(most * share + 1e-9)) for of_class, share in zip(members, shares, strict=True)]
    if 0 in sizes:
        raise UserError(
            f"data.imbalance={factor:g} leaves a class without images: give at most {most:,}, the largest class's"
        )
    rng = np.random.default_rng((seed, IMBALANCE))
    kept = [rng.permutation(of_class)[:size] for of_class, size in zip(members, sizes, strict=True)]
    return np.sort(np.concatenate(kept))


def noisy(labels: np.ndarray, share: float, flips: Mapping[int, int] | None, classes: int, seed: int) -> np.ndarray:
    """Labels int64 [N] of which a share is wrong.

    flips=None: symmetric noise, round(share N) of all labels become one of the other K - 1 classes, all equally likely.
    flips: asymmetric noise, of each class in it round(share n) labels become the class that it maps to (Patrini et al.
    2017, arXiv 1609.03683, section 5).
    """
    rng = np.random.default_rng((seed, NOISE))
    changed = labels.copy()
    if flips is None:
        chosen = rng.permutation(len(labels))[: round(share * len(labels))]
        changed[chosen] = (labels[chosen] + rng.integers(1, classes, len(chosen))) % classes
        return changed
    for old, new in sorted(flips.items()):
        members = np.flatnonzero(labels == old)
        changed[rng.permutation(members)[: round(share * len(members))]] = new
    return changed


def fold_split(labels: np.ndarray, folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (training, validation), ascending, of stratified cross-validation; the validation splits are disjoint.

    Each fold has its share of every class to within one image, and of all images to within one for each class. Raises
    UserError where a class has fewer images than there are folds.
    """
    members = by_class(labels)
    if folds > min(map(len, members)):
        raise UserError(
            f"data.folds={folds}: the smallest class has only {min(map(len, members))} images, less than one a fold"
        )
    rng = np.random.default_rng(seed)
    fold_of = np.empty(len(labels), dtype=np.int64)
    start = 0  # where one class ends the next begins, so that folds stay of equal size
    for of_class in members:
        fold_of[rng.permutation(of_class)] = (start + np.arange(len(of_class))) % folds
        start = (start + len(of_class)) % folds
    return np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def flips_by_name(pairs: Mapping[str, str], class_names: Sequence[str]) -> dict[int, int]:
    """Which class is mistaken for which, by number."""
    return {class_names.index(old): class_names.index(new) for old, new in pairs.items()}


def by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of each class that occurs, in the order of the classes."""
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
