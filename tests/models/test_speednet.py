import pytest
import torch
from helpers.model_configs import parameters
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from cifar_lightning.models.speednet import SpeedNet
from cifar_lightning.models.whitening import whitening_filters


def by_formula(network, images, convolutions):
    """The network in training mode, from its tensors in order, as the published code reads: no modules."""
    tensors = iter([p for name, p in network.named_parameters() if ".weight" not in name or p.ndim > 1])

    def conv(x):
        return F.conv2d(x, next(tensors), padding=1)

    def norm(x):
        return F.batch_norm(x, None, None, None, next(tensors), training=True, eps=1e-12)

    weight, bias = next(tensors), next(tensors)
    x = F.gelu(F.conv2d(images, weight, bias))
    for _ in range(3):
        x = entry = F.gelu(norm(F.max_pool2d(conv(x), 2)))
        for i in range(convolutions - 1):
            x = norm(conv(x))
            x = F.gelu(x + entry if convolutions > 2 and i == convolutions - 2 else x)
    head = next(tensors)
    return F.max_pool2d(x, 3).flatten(1) @ head.T / head.shape[1]


@pytest.mark.parametrize("convolutions", [2, 3])
def test_it_computes_the_formula(convolutions):
    torch.manual_seed(0)
    network = SpeedNet(widths=[16, 24, 32], convolutions=convolutions).double()
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim == 1 and p.requires_grad:
                p.normal_()
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    assert_close(network(images), by_formula(network, images, convolutions))


def test_parameters_are_the_published_ones():
    # 1.97 M with the weights of norms, which are fixed at 1 (airbench94_muon); a 10 times larger one for 96 %.
    assert parameters(SpeedNet()) == 1_972_792
    frozen = {name for name, p in SpeedNet().named_parameters() if not p.requires_grad}
    norms = {name + ".weight" for name, m in SpeedNet().named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert frozen == {"whitening.weight"} | norms
    assert parameters(SpeedNet(widths=[128, 384, 512], convolutions=3)) == 9_918_776


def test_running_statistics_take_four_tenths_of_the_latest_batch():
    network = SpeedNet(widths=[8, 8, 8])
    x = torch.randn(4, 24, 31, 31)
    entry = network.groups[0].entry
    pooled = F.max_pool2d(F.conv2d(x, entry[0].weight, padding=1), 2)
    entry(x)
    assert_close(entry[2].running_mean, 0.4 * pooled.mean((0, 2, 3)))


def test_it_begins_with_identities_and_a_head_of_deviation_one():
    network = SpeedNet()
    x = torch.randn(2, 24, 9, 9)
    assert_close(network.groups[0].entry[0](x)[:, :24], x, rtol=0, atol=1e-6)
    assert network.groups[0].entry[0](x)[:, 24:].std() > 0.1
    assert network.head.weight.std().item() == pytest.approx(1)
    # As published: torch's own, uniform within 1 / sqrt(inputs of a filter).
    assert 0.1 < network.whitening.bias.abs().max().item() < 12**-0.5


def test_the_first_layer_is_computed_from_images():
    network = SpeedNet(widths=[8, 8, 8])
    images = torch.randn(20, 3, 32, 32)
    network.initialize_from(images)
    assert_close(network.whitening.weight.detach(), whitening_filters(images))
    assert not network.whitening.weight.requires_grad


def test_filters_for_what_never_varies_get_no_bias():
    network = SpeedNet(widths=[8, 8, 8])
    biases = network.whitening.bias.detach().clone()
    grey = torch.randn(20, 1, 32, 32).expand(-1, 3, -1, -1)
    network.initialize_from(grey)
    varies = F.conv2d(grey, network.whitening.weight).std((0, 2, 3)) > 0.9
    assert varies.sum() == 2 * 4  # the patches of one channel, and their negatives
    assert_close(network.whitening.bias.detach(), biases * varies)
