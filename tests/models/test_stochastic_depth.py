"""Stochastic depth, in every network that has it."""

import pytest
import torch
from helpers.model_configs import OURS, build, model_config
from helpers.sampling import sampled
from torch import nn
from torchvision.ops import StochasticDepth

from cifar_lightning.errors import UserError
from cifar_lightning.models.convmixer import Mixer
from cifar_lightning.models.resnet import PreactivationBlock, ResidualBlock
from cifar_lightning.models.stochastic_depth import stochastic_depths
from cifar_lightning.models.vit import Branch
from cifar_lightning.models.wide_resnet import WideBlock

SMALL = {
    "convmixer": {"width": 32, "depth": 3},
    "preact_resnet": {"blocks": 1},
    "resnet": {"blocks": 1},
    "resnet18": {"stem_width": 8, "widths": [8, 16, 32], "blocks": 1},
    "vit": {"width": 48, "depth": 2, "heads": 4, "hidden": 96},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
}
BRANCHES = {name: 4 if name == "vit" else 3 for name in SMALL}  # attention and linear layers are two
# What is left of a block without its residual branch.
REST = {
    ResidualBlock: lambda block, x: block.activation(block.shortcut(x)),
    PreactivationBlock: lambda block, x: x if block.shortcut is None else block.shortcut(block.preactivation(x)),
    WideBlock: lambda block, x: x if block.shortcut is None else block.shortcut(block.preactivation(x)),
    Mixer: lambda block, x: block.channels(x),
    Branch: lambda block, x: x,
}


def blocks(network):
    return [module for module in network.modules() if isinstance(getattr(module, "stochastic_depth", None), nn.Module)]


def test_every_network_with_the_key_is_tested_and_has_it_off():
    with_key = {name for name in OURS if "stochastic_depth" in model_config(name)}
    assert with_key == set(SMALL)
    assert all(model_config(name).stochastic_depth == 0 for name in with_key)


@pytest.mark.parametrize("name", SMALL)
def test_it_is_the_identity_in_eval_and_adds_no_weights(name):
    usual = build(name, **SMALL[name]).eval()
    network = build(name, stochastic_depth=0.5, **SMALL[name]).eval()
    assert list(network.state_dict()) == list(usual.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(images), usual(images))


@pytest.mark.parametrize("name", SMALL)
def test_off_it_draws_nothing_in_training(name):
    network = build(name, **SMALL[name]).train()
    state = torch.get_rng_state()
    network(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", SMALL)
def test_the_probability_grows_linearly_from_branch_to_branch(name):
    found = [module.p for module in build(name, stochastic_depth=0.6, **SMALL[name]).modules()
             if isinstance(module, StochasticDepth)]  # fmt: skip
    number = BRANCHES[name]
    assert found == pytest.approx([0.6 * (branch + 1) / number for branch in range(number)])


@pytest.mark.parametrize("name", sampled(SMALL, every=3))
def test_each_image_loses_the_branch_or_has_it_scaled_so_that_its_mean_stays(name):
    network = build(name, stochastic_depth=0.75, **SMALL[name]).eval()  # one block after the other is put into training
    for block in blocks(network):
        depth = block.stochastic_depth.train()
        seen = []
        handles = [
            block.register_forward_hook(lambda module, given, output, seen=seen: seen.extend([given[0], output])),
            depth.register_forward_hook(lambda module, given, output, seen=seen: seen.extend([given[0], output])),
        ]
        torch.manual_seed(0)
        network(torch.randn(1, 3, 32, 32).expand(400, -1, -1, -1))
        for handle in handles:
            handle.remove()
        depth.eval()
        branch, kept, x, out = seen
        lost = (kept.flatten(1) == 0).all(1)
        deviation = (depth.p * (1 - depth.p) / 400) ** 0.5
        assert lost.float().mean().item() == pytest.approx(depth.p, abs=4 * deviation)
        torch.testing.assert_close(kept[~lost], branch[~lost] / (1 - depth.p))
        torch.testing.assert_close(out[lost], REST[type(block)](block, x)[lost])


def test_draws_come_from_torchs_generator_which_checkpoints_hold():
    network = build("resnet", stochastic_depth=0.5, **SMALL["resnet"]).train()
    images, state = torch.randn(16, 3, 32, 32), torch.get_rng_state()
    first, second = network(images), network(images)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(network(images), first)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan")])
def test_an_impossible_probability_is_refused(value):
    with pytest.raises(UserError, match=rf"model\.stochastic_depth={value}: must be a number from 0 to below 1"):
        stochastic_depths(value, 3)
