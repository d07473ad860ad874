import pytest
import torch
from helpers.model_configs import parameters
from torch.nn import functional as F

from cifar_lightning.errors import UserError
from cifar_lightning.models.wide_resnet import WideResNet


# Zagoruyko and Komodakis 2016, table 4, in millions.
@pytest.mark.parametrize(
    ("depth", "widen_factor", "published"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (40, 8, 35.7), (28, 10, 36.5), (28, 12, 52.5), (22, 8, 17.2),
     (22, 10, 26.8), (16, 8, 11.0), (16, 10, 17.1)],
)  # fmt: skip
def test_parameters_are_the_papers(depth, widen_factor, published):
    with torch.device("meta"):
        network = WideResNet(depth=depth, widen_factor=widen_factor)
    assert parameters(network) / 1e6 == pytest.approx(published, abs=0.06)


def by_formula(weights, images, depth):
    """The network in training mode, from its tensors in order, as the authors wrote it: no modules."""
    tensors = iter(weights)

    def norm_relu(x):
        return F.relu(F.batch_norm(x, None, None, next(tensors), next(tensors), training=True))

    x = F.conv2d(images, next(tensors), padding=1)
    for group in range(3):
        for block in range((depth - 4) // 6):
            stride = 2 if group > 0 and block == 0 else 1
            activated = norm_relu(x)
            y = F.conv2d(activated, next(tensors), stride=stride, padding=1)
            y = F.conv2d(norm_relu(y), next(tensors), padding=1)
            x = y + (F.conv2d(activated, next(tensors), stride=stride) if block == 0 else x)
    pooled = norm_relu(x).mean((2, 3))
    return pooled @ next(tensors).T + next(tensors)


@pytest.mark.parametrize("depth", [10, 16])
def test_it_computes_the_formula(depth):
    torch.manual_seed(0)
    network = WideResNet(depth=depth, widen_factor=2, init="kaiming_normal")
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(network(images), by_formula(network.parameters(), images, depth), rtol=1e-4, atol=1e-4)


def test_widening_by_one_still_projects_where_the_paper_does():
    # With widen_factor=1 the first group keeps its 16 channels: an identity there, as in the authors' code.
    network = WideResNet(depth=10, widen_factor=1)
    shortcuts = [block.shortcut for block in network.features[1:4]]
    assert shortcuts[0] is None
    assert [shortcut.stride for shortcut in shortcuts[1:]] == [(2, 2), (2, 2)]


def test_dropout_lies_between_the_two_convolutions():
    network = WideResNet(depth=10, widen_factor=2, dropout=1.0)
    block = network.features[1]
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), block.shortcut(block.preactivation(x)))


def test_an_impossible_depth_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"model\.depth=27: .*28"):
        WideResNet(depth=27)
