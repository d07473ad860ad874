import pytest
import torch
from helpers.pictures import pictures, seeded
from scipy.stats import chi2_contingency, chisquare
from torchvision.transforms import v2

from cifar_lightning.data.augmentation import RandomCrop
from cifar_lightning.errors import UserError

TORCHVISION_MODE = {"reflect": "reflect", "zeros": "constant"}


@pytest.mark.parametrize("mode", ["reflect", "zeros"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_is_torchvisions_for_every_corner(mode, dtype):
    crop, corners = RandomCrop(2, mode), torch.cartesian_prod(torch.arange(5), torch.arange(5))
    images = pictures(len(corners), dtype)[..., :24]  # height and width differ
    out = crop.apply(images, corners)
    for image, (top, left), given in zip(out, corners.tolist(), images, strict=True):
        padded = v2.functional.pad(given, [2], padding_mode=TORCHVISION_MODE[mode])
        assert torch.equal(image, v2.functional.crop(padded, top, left, 32, 24))


def test_crop_corners_are_uniform_and_torchvisions():
    n, padding = 10_000, 2
    drawn = RandomCrop(padding).draw(n, seeded())
    counts = torch.bincount(drawn[:, 0] * 5 + drawn[:, 1], minlength=25)
    assert chisquare(counts).pvalue > 0.001

    theirs = v2.RandomCrop(32, padding=padding)
    image = torch.zeros(3, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        params = [theirs.make_params([image]) for _ in range(n)]
    their_counts = torch.bincount(torch.tensor([p["top"] * 5 + p["left"] for p in params]), minlength=25)
    assert chi2_contingency(torch.stack([counts, their_counts])).pvalue > 0.001


def test_crop_without_padding_keeps_the_images():
    images = pictures(4)
    crop = RandomCrop(0)
    assert torch.equal(crop.apply(images, crop.draw(4, seeded())), images)


def test_crop_refuses_bad_values():
    with pytest.raises(UserError, match="padding=-1"):
        RandomCrop(-1)
    with pytest.raises(UserError, match=r"padding=32 can't reflect images of 32x32"):
        RandomCrop(32).apply(pictures(2), torch.zeros(2, 2, dtype=torch.int64))
