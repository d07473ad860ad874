import pytest
import torch
import torchvision
from helpers.model_configs import build, parameters
from torch import nn
from torch.nn import functional as F

from cifar_lightning.errors import UserError
from cifar_lightning.models.resnet import ResNet
from cifar_lightning.models.wide_resnet import WideResNet


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


def test_bottlenecks_are_torchvisions_but_for_the_stem():
    torch.manual_seed(0)
    ours = ResNet(stem_width=64, widths=[64, 128, 256, 512], blocks=[2, 1, 1, 1], block="bottleneck").double()
    theirs = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [2, 1, 1, 1], num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs = theirs.double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(images), theirs.train(mode)(images), rtol=1e-6, atol=1e-6)


def by_formula(tensors, images, block, stages):
    """The network with pre-activation in training mode, from its tensors in order: no modules."""
    tensors = iter(tensors)

    def norm_relu(x):
        return F.relu(F.batch_norm(x, None, None, next(tensors), next(tensors), training=True))

    def conv(x, stride=1):
        weight = next(tensors)
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = conv(images)
    for stage, blocks in enumerate(stages):
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            activated = norm_relu(x)
            if block == "preact":
                y = conv(norm_relu(conv(activated, stride)))
            else:
                y = conv(norm_relu(conv(norm_relu(conv(activated)), stride)))
            x = y + (x if y.shape == x.shape else conv(activated, stride))
    return F.linear(norm_relu(x).mean((2, 3)), next(tensors), next(tensors))


@pytest.mark.parametrize("block", ["preact", "preact_bottleneck"])
def test_preactivation_computes_the_formula(block):
    torch.manual_seed(0)
    network = ResNet(stem_width=8, widths=[8, 12, 16], blocks=[1, 2, 1], block=block, in_channels=1).double()
    images = torch.randn(4, 1, 32, 32, dtype=torch.float64)
    expected = by_formula(network.parameters(), images, block, [1, 2, 1])
    torch.testing.assert_close(network(images), expected, rtol=1e-6, atol=1e-6)


def test_with_the_widths_of_a_wide_resnet_preactivation_is_a_wide_resnet():
    wide = WideResNet(depth=16, widen_factor=2).eval()
    ours = ResNet(stem_width=16, widths=[32, 64, 128], blocks=2, block="preact").eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), wide.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), wide(images))


# In millions: He et al. 2016 and, for 18 and 50 layers at 32 px, github.com/kuangliu/pytorch-cifar.
@pytest.mark.parametrize(
    ("keys", "published"),
    [
        ({"stem_width": 16, "widths": [16, 32, 64], "blocks": 18, "block": "preact"}, 1.7),  # 110 layers
        ({"stem_width": 16, "widths": [16, 32, 64], "blocks": 18, "block": "preact_bottleneck"}, 1.7),  # 164
        ({"stem_width": 64, "widths": [64, 128, 256, 512], "block": "preact"}, 11.17),
        (
            {"stem_width": 64, "widths": [64, 128, 256, 512], "blocks": [3, 4, 6, 3], "block": "bottleneck"},
            23.52,
        ),
    ],
    ids=["110", "164", "18", "50"],
)
def test_parameters_of_the_other_blocks_are_the_published_ones(keys, published):
    with torch.device("meta"):
        network = ResNet(**keys)
    assert parameters(network) / 1e6 == pytest.approx(published, abs=0.05 if published < 2 else 0.005)


def test_weights_have_the_names_that_earlier_checkpoints_have():
    names = list(build("resnet").state_dict())
    of_a_norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    stem = ["stem.0.weight", *(f"stem.1.{key}" for key in of_a_norm)]
    assert names[:6] == stem
    block = ["residual.0.weight", *(f"residual.1.{key}" for key in of_a_norm)]
    block += ["residual.3.weight", *(f"residual.4.{key}" for key in of_a_norm)]
    projection = ["shortcut.0.weight", *(f"shortcut.1.{key}" for key in of_a_norm)]
    expected = [f"blocks.{i}.{key}" for i in range(6) for key in [*block, *(projection if i in (2, 4) else [])]]
    assert names[6:] == [*expected, "head.2.weight", "head.2.bias"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"blocks": [2, 2]}, r"model\.blocks has 2 entries for 3 model\.widths: give one number, or one for each"),
        ({"blocks": [2, 0, 2]}, r"model\.blocks: give numbers of at least 1"),
        ({"stem_width": 0}, r"model\.stem_width, model\.widths"),
    ],
)
def test_a_mistake_is_named_with_its_key(keys, message):
    with pytest.raises(UserError, match=message):
        ResNet(**{"stem_width": 16, "widths": [16, 32, 64], **keys})
