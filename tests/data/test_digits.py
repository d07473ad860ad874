"""The embedded digits, with scikit-learn's copy as the oracle."""

import numpy as np
import sklearn.datasets
import torch
from numpy.testing import assert_array_equal
from sklearn.model_selection import train_test_split

from cifar_lightning.data.digits import enlarge, load_digits


def test_digits_are_scikit_learns_split_by_class():
    arrays, oracle = load_digits(), sklearn.datasets.load_digits()
    train, test = train_test_split(np.arange(1797), test_size=360, stratify=oracle.target, random_state=42)
    for part, expected in ((arrays.train, train), (arrays.test, test)):
        assert_array_equal(part.images, enlarge(oracle.images[expected].astype(np.uint8)))
        assert_array_equal(part.labels, oracle.target[expected])
        assert part.images.shape == (len(expected), 3, 32, 32)
        assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int64)
    assert arrays.class_names == tuple("0123456789")


def test_enlarged_digits_are_torchs_bilinear_ones():
    digits = sklearn.datasets.load_digits().images[:100]
    grey = torch.nn.functional.interpolate(torch.tensor(digits)[:, None], scale_factor=4, mode="bilinear") * 255 / 16
    enlarged = torch.tensor(enlarge(digits.astype(np.uint8)))
    assert (enlarged - grey).abs().max() <= 0.5
    assert torch.equal(enlarged[:, 0], enlarged[:, 2])


def test_digits_are_the_same_everywhere():
    assert load_digits().checksum == "72cb95229c4718f1"
