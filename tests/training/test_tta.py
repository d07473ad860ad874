from typing import get_args

import pytest
import torch
from helpers.small import Batches, normalized, small_classifier, small_trainer
from torchvision.transforms.v2.functional import affine, hflip

from cifar_lightning.training.tta import TTA, UNCERTAIN, views

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
VIEWS = {"none": 1, "flip": 2, "flip_shift": 6}


@pytest.mark.parametrize("tta", VIEWS)
def test_the_weights_of_the_views_add_up_to_one(tta):
    assert sum(weight for weight, _ in views(IMAGES, tta)) == 1
    assert len(views(IMAGES, tta)) == VIEWS[tta]


def test_half_of_the_weight_is_on_the_image_and_its_mirror_image():
    (a, image), (b, mirrored), *others = views(IMAGES, "flip_shift")
    assert (a, b) == (0.25, 0.25)
    assert torch.equal(image, IMAGES)
    assert torch.equal(mirrored, hflip(IMAGES))
    assert [weight for weight, _ in others] == [0.125] * 4


def test_shifted_views_are_moved_by_one_pixel_each_way():
    def shifted(by):  # torchvision pads with zeros: the border is compared below
        return affine(IMAGES, angle=0, translate=[by, by], scale=1, shear=[0, 0])

    found = [view for _, view in views(IMAGES, "flip_shift")[2:]]
    for view, expected in zip(found, [shifted(1), hflip(shifted(1)), shifted(-1), hflip(shifted(-1))], strict=True):
        torch.testing.assert_close(view[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    assert torch.equal(found[0][..., 0, 1:], IMAGES[..., 1, :-1])  # reflected: row -1 is row 1
    assert torch.equal(found[2][..., -1, :-1], IMAGES[..., -2, 1:])


@pytest.mark.parametrize("tta", VIEWS)
def test_a_test_averages_over_the_views_and_keeps_the_logits_without(tta):
    batches = Batches(n=10)
    classifier = small_classifier(test_tta=tta)
    small_trainer().test(classifier, batches, verbose=False)
    with torch.no_grad():
        network, images = classifier.network.eval(), normalized(batches.images)
        expected = sum(weight * network(view) for weight, view in views(images, tta))
        torch.testing.assert_close(classifier.test_logits, expected)
        torch.testing.assert_close(classifier.plain_test_logits, network(images))
    assert torch.equal(classifier.test_logits, classifier.plain_test_logits) == (tta == "none")


def test_only_the_least_certain_quarter_of_a_batch_is_averaged():
    batches = Batches(n=40, batch_size=40)
    classifier = small_classifier(test_tta="flip_shift_uncertain")
    small_trainer().test(classifier, batches, verbose=False)
    with torch.no_grad():
        network, images = classifier.network.eval(), normalized(batches.images)
        plain = network(images)
        mean = sum(weight * network(view) for weight, view in views(images, "flip_shift"))
    least = plain.softmax(1).max(1).values.argsort()[: int(40 * UNCERTAIN)]
    plain_elsewhere = plain.clone()
    plain_elsewhere[least] = mean[least]
    torch.testing.assert_close(classifier.test_logits, plain_elsewhere)
    torch.testing.assert_close(classifier.plain_test_logits, plain)


def test_every_choice_of_the_config_is_known():
    assert {*VIEWS, "flip_shift_uncertain"} == set(get_args(TTA))
