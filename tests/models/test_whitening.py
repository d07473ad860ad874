import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d
from torch.testing import assert_close

from cifar_lightning.data.digits import load_digits
from cifar_lightning.models.whitening import whitening_filters


def images(n=40):
    """Grey digits, with noise so that no direction has variance 0."""
    generator = torch.Generator().manual_seed(0)
    digits = torch.from_numpy(load_digits().train.images[:n]).float() / 255
    return digits + 0.1 * torch.randn(digits.shape, generator=generator)


@pytest.mark.parametrize("size", [2, 3])
def test_responses_are_uncorrelated_and_of_variance_one(size):
    filters = whitening_filters(images(), size, epsilon=0.0)
    half = 3 * size**2
    assert filters.shape == (2 * half, 3, size, size)
    responses = conv2d(images(), filters[:half]).transpose(0, 1).flatten(1).double()
    assert_close(responses @ responses.T / responses.shape[1], torch.eye(half).double(), rtol=0, atol=2e-3)


def test_filters_are_numpys_principal_directions_over_the_root_of_variance_and_epsilon():
    given = images(20).double()
    windows = [given[:, :, i : i + 2, j : j + 2].flatten(1) for i in range(31) for j in range(31)]
    patches = torch.cat(windows).numpy()
    _, deviations, directions = np.linalg.svd(patches / len(patches) ** 0.5, full_matrices=False)
    expected = directions / np.sqrt(deviations**2 + 0.01)[:, None]  # the largest first
    found = whitening_filters(given, 2, epsilon=0.01)[:12].flatten(1).numpy()
    signs = np.sign((found * expected).sum(1, keepdims=True))  # either direction is an eigenvector
    np.testing.assert_allclose(found, expected * signs, rtol=0, atol=1e-9)


def test_the_second_half_are_the_negatives():
    filters = whitening_filters(images())
    assert torch.equal(filters[12:], -filters[:12])


def test_images_in_parts_give_the_same_filters():
    few = images(40).double()
    few, repeated = whitening_filters(few), whitening_filters(few.repeat(20, 1, 1, 1))  # 800 are more than one part
    signs = (few * repeated).flatten(1).sum(1).sign()[:, None, None, None]
    assert_close(repeated * signs, few, rtol=1e-3, atol=1e-3)
