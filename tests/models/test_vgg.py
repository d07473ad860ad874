import pytest
import torch
import torchvision
from helpers.model_configs import parameters
from torch import nn

from cifar_lightning.errors import UserError
from cifar_lightning.models.vgg import VGG

COLUMNS = {11: "A", 13: "B", 16: "D", 19: "E"}


def torchvisions(depth):
    """The convolutional part of torchvision's VGG, with the linear layer that 32 px need."""
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[COLUMNS[depth]], batch_norm=True)
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


@pytest.mark.parametrize("depth", COLUMNS)
def test_it_computes_what_torchvisions_does(depth):
    torch.manual_seed(0)
    ours, theirs = VGG(depth=depth, init="kaiming_normal").double(), torchvisions(depth).double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 64 if depth == 11 else 32, 64 if depth == 11 else 32, dtype=torch.float64)
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(images), theirs.train(mode)(images), rtol=1e-6, atol=1e-6)


# The counts that implementations for 32 px give, in millions: 9.23, 9.42, 14.73 and 20.04.
@pytest.mark.parametrize(("depth", "count"), [(11, 9_231_114), (13, 9_416_010), (16, 14_728_266), (19, 20_040_522)])
def test_parameters(depth, count):
    with torch.device("meta"):
        assert parameters(VGG(depth=depth)) == count == parameters(torchvisions(depth))


@pytest.mark.parametrize("size", [28, 33, 8])
def test_something_is_left_of_images_that_32_does_not_divide(size):
    assert VGG(depth=11).eval()(torch.randn(2, 3, size, size)).shape == (2, 10)


def test_dropout_is_before_the_linear_layer():
    network = VGG(depth=11, dropout=1.0).train()
    logits = network(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(logits, network.head[-1].bias.expand(2, -1))


def test_another_depth_is_refused():
    with pytest.raises(UserError, match=r"model\.depth=12: must be one of 11, 13, 16, 19"):
        VGG(depth=12)
