"""Split indices by class, exactly as scikit-learn's `train_test_split(..., stratify=labels)` does.

scikit-learn is the reference in the tests, not a dependency: it is 146 MB and takes seconds to import.
"""

import math
import numbers

import numpy as np

from cifar_lightning.errors import UserError


def stratified_split(labels: np.ndarray, val_size: int | float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (training, validation), int64, shuffled, with the same proportions of classes in both.

    `val_size` is a count (int) or a share (float below 1); 0 keeps all for training, in their own order.
    Raises UserError for a size that can't be split.
    """
    labels = np.asarray(labels)
    n = len(labels)
    n_val = _validation_count(val_size, n)
    if n_val == 0:
        return np.arange(n), np.arange(0)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**32:
        raise UserError(f"data.split_seed={seed!r} must be an integer from 0 to {2**32 - 1:,}.")

    classes, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    _check_sizes(classes, counts, n - n_val, n_val, val_size)

    # The order of these draws must stay that of scikit-learn's StratifiedShuffleSplit._iter_indices.
    rng = np.random.RandomState(int(seed))
    n_train_of = _apportion(counts, n - n_val, rng)
    n_val_of = _apportion(counts - n_train_of, n_val, rng)
    train, val = [], []
    for of_class, n_train, n_val in zip(
        np.split(np.argsort(members, kind="stable"), np.cumsum(counts)[:-1]), n_train_of, n_val_of, strict=True
    ):
        shuffled = of_class[rng.permutation(len(of_class))]
        train.append(shuffled[:n_train])
        val.append(shuffled[n_train : n_train + n_val])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(val))


def _validation_count(val_size: int | float, n: int) -> int:
    if not isinstance(val_size, numbers.Real) or isinstance(val_size, bool):
        raise UserError(f"data.val_size={val_size!r} must be a count of images or a share between 0 and 1.")
    if val_size == 0:
        return 0
    if isinstance(val_size, numbers.Integral):
        if not 0 < val_size < n:
            raise UserError(f"data.val_size={val_size} is out of range: there are {n:,} images, so 0 to {n - 1:,}.")
        return int(val_size)
    if not 0 < val_size < 1:
        raise UserError(
            f"data.val_size={val_size} is out of range: a share is between 0 and 1 (a count is an integer)."
        )
    return math.ceil(val_size * n)


def _check_sizes(classes: np.ndarray, counts: np.ndarray, n_train: int, n_val: int, val_size: int | float) -> None:
    if counts.min() < 2:
        rare = ", ".join(str(name) for name in classes[counts < 2][:10])
        raise UserError(
            f"a stratified split needs at least 2 images per class, but there is only 1 of class {rare}. "
            "Add images, or train on all of them with data.val_size=0."
        )
    for split, size in (("training", n_train), ("validation", n_val)):
        if size < len(classes):
            raise UserError(
                f"data.val_size={val_size} leaves {size} images for the {split} split, fewer than the "
                f"{len(classes)} classes. Choose another data.val_size (0: no validation split)."
            )


def _apportion(counts: np.ndarray, total: int, rng: np.random.RandomState) -> np.ndarray:
    """The number of each class in `total`: shares rounded down, the rest to the largest remainders.

    Ties are broken at random (scikit-learn, utils.extmath._approximate_mode).
    """
    exact = counts / counts.sum() * total
    given = np.floor(exact)
    missing = int(total - given.sum())
    remainders = exact - given
    for remainder in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        (tied,) = np.nonzero(remainders == remainder)
        lucky = rng.choice(tied, size=min(len(tied), missing), replace=False)
        given[lucky] += 1
        missing -= len(lucky)
    return given.astype(np.int64)
