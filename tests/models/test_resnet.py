import pytest
import torch
import torchvision
from helpers.model_configs import build
from torch import nn

from cifar_lightning.models.resnet import ResNet


def torchvision_resnet18():
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def test_resnet18_is_torchvisions_but_for_the_stem():
    ours, theirs = build("resnet18"), torchvision_resnet18()
    weights = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
    theirs.load_state_dict(weights)  # fails where a shape differs
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images))
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_every_stage_but_the_first_halves_the_image():
    network = build("resnet")
    sizes = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    network(torch.randn(2, 3, 32, 32))
    assert sizes == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2


@pytest.mark.parametrize(
    ("blocks", "published"), [(3, 0.27), (5, 0.46), (7, 0.66), (9, 0.85)], ids=["20", "32", "44", "56"]
)
def test_parameters_are_those_of_he_et_al(blocks, published):
    # Table 6 of the paper, in millions, without projections: 2,752 parameters more here.
    with torch.device("meta"):
        network = ResNet(stem_width=16, widths=[16, 32, 64], blocks=blocks)
    projections = sum(p.numel() for block in network.blocks for p in block.shortcut.parameters())
    assert projections == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    count = sum(p.numel() for p in network.parameters()) - projections
    assert count / 1e6 == pytest.approx(published, abs=0.006)
