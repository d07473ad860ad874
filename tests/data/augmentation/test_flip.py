import pytest
import torch
from helpers.pictures import pictures, seeded
from scipy.stats import binomtest
from torchvision.transforms.v2.functional import hflip

from cifar_lightning.data.augmentation import AlternatingFlip, HorizontalFlip
from cifar_lightning.errors import UserError


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_flip_mirrors_only_the_drawn_images(dtype):
    images, flipped = pictures(7, dtype), torch.tensor([1, 0, 0, 1, 1, 0, 1]).bool()
    out = HorizontalFlip().apply(images, flipped)
    for image, mirrored, given in zip(out, flipped, images, strict=True):
        assert torch.equal(image, hflip(given) if mirrored else given)


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_flip_is_drawn_with_its_probability(p):
    drawn = HorizontalFlip(p).draw(20_000, seeded())
    assert binomtest(int(drawn.sum()), len(drawn), p).pvalue > 0.001


def test_flip_never_and_always():
    assert not HorizontalFlip(0).draw(1000, seeded()).any()
    assert HorizontalFlip(1).draw(1000, seeded()).all()


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_flip_refuses_what_is_no_probability(p):
    with pytest.raises(UserError, match=f"p={p}"):
        HorizontalFlip(p)


def test_alternating_flips_turn_round_with_each_epoch():
    def drawn(epoch, seed=3):
        return AlternatingFlip().draw_by_image(20_000, seeded(seed), epoch)

    assert torch.equal(drawn(0), drawn(2))
    assert torch.equal(drawn(1), ~drawn(0))
    assert torch.equal(drawn(7), drawn(1))
    assert not torch.equal(drawn(0), drawn(0, seed=4))
    assert binomtest(int(drawn(0).sum()), 20_000).pvalue > 0.001
