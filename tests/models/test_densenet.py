import pytest
import torch
import torchvision
from helpers.model_configs import parameters
from torch import nn

from cifar_lightning.errors import UserError
from cifar_lightning.models.densenet import DenseNet


def torchvisions(depth, growth_rate):
    """torchvision's DenseNet with the stem that the authors have for 32 px."""
    network = torchvision.models.DenseNet(growth_rate, ((depth - 4) // 6,) * 3, 2 * growth_rate, num_classes=10)
    network.features.conv0 = nn.Conv2d(3, 2 * growth_rate, 3, padding=1, bias=False)
    network.features.norm0 = network.features.relu0 = network.features.pool0 = nn.Identity()
    return network


@pytest.mark.parametrize(("depth", "growth_rate"), [(22, 12), (10, 5)])
def test_it_computes_what_torchvisions_does(depth, growth_rate):
    torch.manual_seed(0)
    ours = DenseNet(depth=depth, growth_rate=growth_rate, init="kaiming_normal").double()
    theirs = torchvisions(depth, growth_rate).double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(images), theirs.train(mode)(images), rtol=1e-6, atol=1e-6)


# Huang et al. 2017, table 2, in millions.
@pytest.mark.parametrize(("depth", "growth_rate", "published"), [(100, 12, 0.8), (250, 24, 15.3), (190, 40, 25.6)])
def test_parameters_are_the_papers(depth, growth_rate, published):
    with torch.device("meta"):
        count = parameters(DenseNet(depth=depth, growth_rate=growth_rate))
        assert count == parameters(torchvisions(depth, growth_rate))
    assert count / 1e6 == pytest.approx(published, abs=0.05)


def test_dropout_follows_every_convolution_but_the_first():
    network = DenseNet(depth=16, growth_rate=4, dropout=0.3)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Dropout)]
    assert [type(layer) for layer in layers] == [nn.Conv2d, *[nn.Conv2d, nn.Dropout] * (3 * 2 * 2 + 2)]
    assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {0.3}


def test_compression_is_of_the_channels_at_a_transition():
    network = DenseNet(depth=10, growth_rate=6, compression=1.0)
    assert network.head[-1].in_features == 12 + 3 * 6
    assert DenseNet(depth=10, growth_rate=6).head[-1].in_features == ((12 + 6) // 2 + 6) // 2 + 6


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"depth": 99}, r"model\.depth=99: must be 6 n \+ 4 for n layers per block, e\.g\. 100"),
        ({"depth": 4}, r"model\.depth=4: .*, e\.g\. 10"),
        ({"growth_rate": 0}, r"model\.growth_rate=0: must be at least 1"),
        ({"compression": 0}, r"model\.compression=0: must be a number above 0, up to 1"),
        ({"compression": 1.5}, r"model\.compression=1\.5: must be"),
    ],
)
def test_a_mistake_is_named_with_its_key(keys, message):
    with pytest.raises(UserError, match=message):
        DenseNet(**keys)
