"""Attacks on a linear network, where the exact answer is known, and networks that hide their gradients."""

import pytest
import torch

from cifar_lightning.data.loader import Split
from cifar_lightning.evaluation.attacks import ATTACKS, BOUNDLESS, LONGER, SEARCH, Attack, masking, survivors


@pytest.fixture
def linear():
    """A linear network of two classes on 6 x 6 images far from black and white, and its margins."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3 * 6 * 6, generator=generator)
    images = torch.randint(60, 196, (200, 3, 6, 6), generator=generator, dtype=torch.uint8)
    scores = (images.float() / 255 - 0.5).flatten(1) @ weights
    labels = (scores > 0).long()
    labels[:20] = 1 - labels[:20]

    def network(x):
        score = (x - 0.5).flatten(1) @ weights
        return torch.stack([-score, score], 1)

    return network, Split(images, labels), scores * (2 * labels - 1), weights


@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize("radius", [1 / 255, 4 / 255])
def test_the_gradient_finds_exactly_what_there_is_to_find(linear, steps, radius):
    network, split, margins, weights = linear
    attack = Attack("", "linf", radius, steps=steps)
    expected = margins > radius * weights.abs().sum()
    assert 20 < expected.sum() < 180
    assert torch.equal(survivors(network, split, attack), expected)


def test_within_a_ball_of_the_l2_norm_too(linear):
    network, split, margins, weights = linear
    found = survivors(network, split, Attack("", "l2", 0.2))
    expected = margins > 0.2 * weights.norm()
    assert (found == expected).double().mean() > 0.98  # at the border of the ball by 20 steps
    assert not (found & (margins <= 0)).any()
    assert not (~found & expected).any()


def test_a_search_without_gradients_finds_no_more_than_there_is(linear):
    network, split, margins, weights = linear
    found = survivors(network, split, Attack("", "linf", 4 / 255, steps=100), "search")
    assert not (~found & (margins > 4 / 255 * weights.abs().sum())).any()
    assert found.sum() < (margins > 0).sum()  # but some


def signs_of(network, split):
    pairs = [survivors(network, split, ATTACKS[key]) for key in ("fgsm_linf_2", "pgd_linf_2")]
    longer, boundless = (survivors(network, split, attack) for attack in (LONGER, BOUNDLESS))
    return masking(*pairs, longer, survivors(network, split, SEARCH, "search"), boundless)


def test_honest_gradients_are_told_from_hidden_ones(linear):
    network, split, *_ = linear

    def saturated(x):  # the cross entropy of 1e5 times the logits has no gradient in single precision
        return 1e5 * network(x)

    def stepped(x):  # neither has a network of steps
        return (network(x).detach() * 100).round() + 0 * network(x)

    assert signs_of(network, split) == []
    for hidden in (saturated, stepped):
        assert any("search without gradients" in sign for sign in signs_of(hidden, split))
