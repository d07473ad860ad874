import math
from typing import get_args

import pytest
import torch
from helpers.model_configs import NARROW, OURS, build
from torch import nn

from cifar_lightning.models.initialization import Init, initialize

INITS = get_args(Init)

FAN_IN, FAN_OUT = 64 * 9, 128 * 9


def conv_after(init):
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 128, 3)
    initialize(conv, init)
    return conv


# Glorot and Bengio 2010, eq. 16 and 12; He et al. 2015, eq. 10; Klambauer et al. 2017, section 3.
@pytest.mark.parametrize(
    ("init", "variance", "uniform"),
    [
        ("xavier_uniform", 2 / (FAN_IN + FAN_OUT), True),
        ("xavier_normal", 2 / (FAN_IN + FAN_OUT), False),
        ("kaiming_uniform", 2 / FAN_IN, True),
        ("kaiming_normal", 2 / FAN_IN, False),
        ("lecun_normal", 1 / FAN_IN, False),
        ("tutorial", 2 / (FAN_IN + FAN_OUT), True),
        ("default", 1 / (3 * FAN_IN), True),  # torch/nn/modules/conv.py: U(-1/sqrt(fan_in), 1/sqrt(fan_in))
    ],
)
def test_weights_have_the_variance_and_shape_of_their_formula(init, variance, uniform):
    weight = conv_after(init).weight.detach()
    n = weight.numel()
    assert weight.mean().abs() < 4 * math.sqrt(variance / n)
    assert weight.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    bound = math.sqrt(3 * variance)
    inside = (weight.abs() <= bound * (1 + 1e-6)).float().mean().item()
    assert inside == 1 if uniform else inside == pytest.approx(math.erf(math.sqrt(1.5)), abs=0.01)


def test_orthogonal_rows_are_orthonormal():
    rows = conv_after("orthogonal").weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(128), atol=1e-5, rtol=0)


@pytest.mark.parametrize("init", sorted(set(INITS) - {"default", "tutorial"}))
def test_biases_are_zero_and_norms_untouched(init):
    network = build("cnn4_bn", init=init)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias.count_nonzero() == 0
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_dirac_passes_the_input_on_beside_filters_of_torchs_own():
    conv = conv_after("dirac")
    x = torch.randn(2, 64, 7, 7)
    torch.testing.assert_close(conv(x)[:, :64], x[..., 1:-1, 1:-1])
    torch.manual_seed(0)
    assert torch.equal(conv.weight[64:], nn.Conv2d(64, 128, 3).weight[64:])


def test_tutorial_mixture():
    network = nn.Sequential(nn.Conv2d(3, 5000, 1), nn.BatchNorm2d(5000), nn.Linear(3, 5000))
    torch.manual_seed(0)
    initialize(network, "tutorial")
    for layer in (network[0], network[2]):
        assert layer.bias.mean().item() == pytest.approx(0, abs=0.05)
        assert layer.bias.std().item() == pytest.approx(1, rel=0.05)
    assert network[1].weight.mean().item() == pytest.approx(1, abs=0.001)
    assert network[1].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert (network[1].bias == 0).all()


def test_default_is_what_torch_gives():
    torch.manual_seed(0)
    assert torch.equal(nn.Conv2d(64, 128, 3).weight, conv_after("default").weight)


@pytest.mark.parametrize(("name", "init"), [*((name, "orthogonal") for name in OURS), *(("cnn4_bn", i) for i in INITS)])
def test_every_network_takes_an_initialisation_and_one_takes_all(name, init):
    network = build(name, init=init, **NARROW.get(name, {})).eval()
    assert network(torch.randn(1, 3, 32, 32)).isfinite().all()
