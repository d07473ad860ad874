import pytest
import torch
from helpers.pictures import pictures, seeded
from scipy.stats import chisquare
from torchvision.transforms.v2.functional import erase

from cifar_lightning.data.augmentation import Cutout
from cifar_lightning.errors import UserError


@pytest.mark.parametrize("size", [0, 1, 7, 16, 64])
@pytest.mark.parametrize(("dtype", "value"), [(torch.uint8, [0, 128, 255]), (torch.float32, [0, 0.5, 1])])
def test_cutout_erases_the_clipped_square(size, dtype, value):
    images, cutout = pictures(50, dtype), Cutout(size, fill=(0, 0.5, 1))
    centres = cutout.draw(50, seeded())
    out = cutout.apply(images, centres)
    for image, centre, given in zip(out, (centres * 32).long().tolist(), images, strict=True):
        (top, bottom), (left, right) = ((max(0, c - size // 2), max(0, min(32, c - size // 2 + size))) for c in centre)
        fill = torch.tensor(value, dtype=dtype)[:, None, None]
        assert torch.equal(image, erase(given, top, left, bottom - top, right - left, fill))


def test_cutout_centres_are_uniform_over_the_pixels():
    y, x = (Cutout().draw(20_000, seeded()) * 8).long().unbind(1)
    assert chisquare(torch.bincount(y * 8 + x, minlength=64)).pvalue > 0.001


def test_cutout_is_black_by_default():
    out = Cutout(4).apply(torch.full((1, 3, 32, 32), 200, dtype=torch.uint8), torch.tensor([[0.5, 0.5]]))
    assert (out == 0).sum() == 3 * 4 * 4


def test_cutout_refuses_bad_values():
    with pytest.raises(UserError, match="size=-1"):
        Cutout(-1)
    with pytest.raises(UserError, match="fill="):
        Cutout(16, fill=(0.5, 128, 0))
