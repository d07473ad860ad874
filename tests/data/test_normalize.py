import pytest
import torch
from helpers.digit_loaders import digits

from cifar_lightning.data.normalize import normalization
from cifar_lightning.data.sets import SETS


@pytest.mark.parametrize(
    ("name", "black", "white"), [("none", (0, 0, 0), (1, 1, 1)), ("half", (-1, -1, -1), (1, 1, 1))]
)
def test_range_after_normalization(name, black, white):
    mean, std = normalization(name, digits(2).images)
    assert tuple((0 - m) / s for m, s in zip(mean, std, strict=True)) == black
    assert tuple((1 - m) / s for m, s in zip(mean, std, strict=True)) == white


def test_channel_measures_what_it_is_given():
    images = digits(200).images.clone()
    images[:, 1] //= 3
    images[:, 2] = 255 - images[:, 2] // 2
    mean, std = normalization("channel", images)
    values = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean).double(), values.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std).double(), values.std((0, 2, 3), correction=0))


def test_what_is_known_of_a_data_set_is_not_measured():
    assert normalization("channel", digits(2).images, SETS["cifar10"].channel) == SETS["cifar10"].channel
