"""The split, with scikit-learn as the oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.model_selection import train_test_split

from cifar_lightning.data.stratified_split import stratified_split
from cifar_lightning.errors import UserError


def scikit_learns(labels, val_size, seed):
    return train_test_split(np.arange(len(labels)), test_size=val_size, stratify=labels, random_state=seed)


def unbalanced(n):
    return np.random.default_rng(3).choice(5, n, p=[0.5, 0.25, 0.15, 0.07, 0.03])


@pytest.mark.parametrize("val_size", [0.2, 10_000, 0.123, 4_321])
def test_split_of_a_set_like_cifar10_is_scikit_learns(val_size):
    labels = np.random.default_rng(0).permutation(np.arange(50_000) % 10)
    for ours, expected in zip(stratified_split(labels, val_size, 42), scikit_learns(labels, val_size, 42), strict=True):
        assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "labels", [unbalanced(999), np.array([0] * 97 + [1] * 2 + [7] * 3), np.array(list("banana" * 5))]
)
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_split_of_unbalanced_labels_is_scikit_learns(labels, seed):
    for ours, expected in zip(stratified_split(labels, 0.3, seed), scikit_learns(labels, 0.3, seed), strict=True):
        assert_array_equal(ours, expected)


@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=80).map(np.array),
    val_size=st.one_of(st.integers(1, 90), st.floats(0.001, 1.2)),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_and_its_refusals_are_scikit_learns(labels, val_size, seed):
    try:
        expected = scikit_learns(labels, val_size, seed)
    except ValueError:
        with pytest.raises(UserError):
            stratified_split(labels, val_size, seed)
        return
    for ours, theirs in zip(stratified_split(labels, val_size, seed), expected, strict=True):
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize("nothing", [0, 0.0])
def test_no_validation_part_keeps_all_images_in_their_order(nothing):
    train, val = stratified_split(unbalanced(50), nothing, 42)
    assert_array_equal(train, np.arange(50))
    assert val.shape == (0,)
    assert train.dtype == val.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "val_size", "seed", "message"),
    [
        (np.arange(100) % 10, 60_000, 42, r"data\.val_size=60000 is out of range: there are 100 images, so 0 to 99"),
        (np.arange(100) % 10, 100, 42, r"data\.val_size=100 is out of range"),
        (np.arange(100) % 10, -1, 42, r"data\.val_size=-1 is out of range"),
        (np.arange(100) % 10, 1.0, 42, r"data\.val_size=1\.0 is out of range"),
        (np.arange(100) % 10, float("nan"), 42, r"data\.val_size=nan is out of range"),
        (np.arange(100) % 10, "ten", 42, r"data\.val_size='ten' must be"),
        (np.arange(100) % 10, True, 42, r"data\.val_size=True must be"),
        (np.arange(100) % 10, 9, 42, r"data\.val_size=9 leaves 9 images for the validation split, fewer than the 10"),
        (np.arange(100) % 10, 0.95, 42, r"data\.val_size=0\.95 leaves 5 images for the training split"),
        (np.array([0, 0, 1, 1, 2]), 0.5, 42, r"at least 2 images per class, but there is only 1 of class 2"),
        (np.arange(100) % 10, 0.2, -1, r"data\.split_seed=-1 must be"),
        (np.arange(100) % 10, 0.2, 2**32, r"data\.split_seed=4294967296 must be"),
    ],
)
def test_impossible_split_says_which_key_to_change(labels, val_size, seed, message):
    with pytest.raises(UserError, match=message):
        stratified_split(labels, val_size, seed)
