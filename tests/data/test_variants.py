"""Variants are those of their papers, nested where they promise it, and depend on nothing but their seed."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cifar_lightning.data.variants import fold_split, imbalanced, noisy, subset
from cifar_lightning.errors import UserError

BALANCED = np.random.RandomState(0).permutation(np.repeat(np.arange(10), 4_000))
UNEQUAL = np.random.RandomState(1).permutation(np.repeat(np.arange(4), [901, 7, 33, 400]))


@pytest.mark.parametrize("labels", [BALANCED, UNEQUAL], ids=["balanced", "unequal"])
@pytest.mark.parametrize("size", [10, 97, 1_000, 0.25, 1.0])
def test_a_subset_has_each_class_in_proportion(labels, size):
    chosen = subset(labels, size, seed=3)
    assert len(chosen) == (size if isinstance(size, int) else round(size * len(labels)))
    assert len(set(chosen.tolist())) == len(chosen)
    assert (np.diff(chosen) > 0).all()
    expected = np.bincount(labels) * len(chosen) / len(labels)
    assert np.abs(np.bincount(labels[chosen], minlength=len(expected)) - expected).max() <= 1


@pytest.mark.parametrize("labels", [BALANCED, UNEQUAL], ids=["balanced", "unequal"])
def test_subsets_of_one_seed_are_nested_and_those_of_another_differ(labels):
    sizes = [subset(labels, size, seed=0) for size in (40, 99, 100, 1_000)]
    for smaller, larger in pairwise(sizes):
        assert set(smaller) <= set(larger)
    assert not np.array_equal(sizes[0], subset(labels, 40, seed=1))
    assert_array_equal(sizes[0], subset(labels, 40, seed=0))


@pytest.mark.parametrize("size", [9, 40_001, 0.0001])
def test_a_subset_that_cannot_be_is_refused(size):
    with pytest.raises(UserError, match=r"data.train_size=.* 10 classes"):
        subset(BALANCED, size, seed=0)


@pytest.mark.parametrize("factor", [1, 10, 50, 100])
def test_the_long_tail_is_that_of_cui(factor):
    # get_img_num_per_cls of the authors' repository, as the paper gives it: int(max * factor ** (i / (K - 1))).
    expected = [int(4_000 * (1 / factor) ** (i / 9)) for i in range(10)]
    chosen = imbalanced(BALANCED, factor, "exp", seed=0)
    counts = np.bincount(BALANCED[chosen])
    assert np.abs(counts - expected).max() <= (1 if factor in (10, 100) else 0)  # 1/factor is inexact in theirs
    assert counts[0] == 4_000
    assert counts[-1] == 4_000 // factor


def test_a_step_halves_the_classes():
    counts = np.bincount(BALANCED[imbalanced(BALANCED, 20, "step", seed=0)])
    assert counts.tolist() == [4_000] * 5 + [200] * 5


def test_an_imbalance_leaves_each_class_an_image():
    with pytest.raises(UserError, match=r"data.imbalance=5000 .*at most 4,000"):
        imbalanced(BALANCED, 5_000, "exp", seed=0)
    assert np.bincount(UNEQUAL[imbalanced(UNEQUAL, 9, "exp", seed=0)]).tolist() == [901, 7, 33, 100]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 1.0])
def test_symmetric_noise_flips_so_many_labels_to_any_other_class(share):
    changed = noisy(BALANCED, share, None, 10, seed=0)
    assert (changed != BALANCED).sum() == round(share * len(BALANCED))
    if share:
        table = np.zeros((10, 10))
        np.add.at(table, (BALANCED, changed), 1)
        others = table[~np.eye(10, dtype=bool)] / (4_000 * share / 9)
        assert others.min() > 0.7
        assert others.max() < 1.3


def test_asymmetric_noise_flips_a_class_to_its_look_alike_only():
    flips = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
    changed = noisy(BALANCED, 0.3, flips, 10, seed=0)
    for label in range(10):
        seen = changed[label == BALANCED]
        other = flips.get(label, label)
        assert ((seen == label) | (seen == other)).all()
        assert (seen == other).sum() == (1_200 if label in flips else 4_000)


@pytest.mark.parametrize("labels", [BALANCED, UNEQUAL], ids=["balanced", "unequal"])
def test_folds_are_a_stratified_partition(labels):
    splits = [fold_split(labels, 5, fold, seed=0) for fold in range(5)]
    assert sorted(np.concatenate([val for _, val in splits]).tolist()) == list(range(len(labels)))
    for train, val in splits:
        assert sorted([*train, *val]) == list(range(len(labels)))
        assert np.abs(np.bincount(labels[val]) - np.bincount(labels) / 5).max() <= 1
    sizes = [len(val) for _, val in splits]
    assert max(sizes) - min(sizes) <= 1


def test_more_folds_than_images_of_a_class_are_refused():
    with pytest.raises(UserError, match=r"data.folds=8: the smallest class has only 7 images"):
        fold_split(UNEQUAL, 8, 0, seed=0)


def test_each_variant_has_its_own_draws():
    kept = subset(BALANCED, 0.5, seed=0)
    assert not np.array_equal(kept, imbalanced(BALANCED, 1, "exp", seed=0))
    first = np.flatnonzero(noisy(BALANCED, 0.1, None, 10, seed=0) != BALANCED)
    assert not np.array_equal(first, np.flatnonzero(noisy(BALANCED, 0.1, None, 10, seed=1) != BALANCED))
