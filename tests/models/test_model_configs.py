import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from helpers.model_configs import ACTIVATIONS, MODELS, NARROW, OURS, build, model_config, parameters
from helpers.sampling import sampled
from torch import nn
from torch.nn.functional import cross_entropy

from cifar_lightning.config.compose import conf_dir, instantiate, plain
from cifar_lightning.runs.build import fitted


# What the recipes' authors, and for resnet18 and wide_resnet the papers and their code, have.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("cnn2", 69_402),
        ("cnn4", 31_098),
        ("cnn4_bn", 43_626),
        ("lenet", 657_080),
        ("lenet3", 541_094),
        ("tutorial_net", 62_006),
        ("alexnet", 4_510_794),
        ("resnet", 175_258),
        ("resnet18", 11_173_962),
        ("preact_resnet", 1_703_258),
        ("vgg", 14_728_266),
        ("densenet", 769_162),
        ("convmixer", 594_186),
        ("vit", 2_738_134),
        ("wide_resnet", 36_479_194),
        ("speednet", 1_972_792),
        ("torchvision", 11_181_642),
        ("timm", 11_181_642),
    ],
)
def test_parameter_count(name, count):
    assert parameters(build(name)) == count
    assert f"{count:,} parameters" in (conf_dir() / "model" / f"{name}.yaml").read_text().partition("_target_")[0]


@pytest.mark.parametrize("name", MODELS)
def test_logits_do_not_depend_on_the_rest_of_the_batch(name):
    network = build(name, **NARROW.get(name, {})).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        both, first = network(images), network(images[:1])
    assert both.shape == (2, 10)
    torch.testing.assert_close(first, both[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], both[1])


@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 10), (64, 3, 200)])
@pytest.mark.parametrize("name", sorted({*MODELS} - {"cnn4", "cnn4_bn"}))  # nothing is left of 28 px in these
def test_a_network_takes_its_sizes_from_the_data(name, size, channels, classes):
    data = SimpleNamespace(image_shape=(channels, size, size), class_names=[str(label) for label in range(classes)])
    torch.manual_seed(0)
    network = instantiate(fitted(plain(model_config(name, **NARROW.get(name, {}))), data)).eval()
    assert network(torch.randn(2, channels, size, size)).shape == (2, classes)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_every_parameter(name):
    network = build(name, **NARROW.get(name, {}))
    cross_entropy(network(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    for key, parameter in network.named_parameters():
        if not parameter.requires_grad:  # what is computed, or fixed
            continue
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.count_nonzero() > 0, key


@pytest.mark.parametrize("name", sampled(OURS, every=3))
def test_a_network_can_learn_a_few_images_by_heart(name):
    network = build(name, **NARROW.get(name, {}))
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(1, 201):
        optimizer.zero_grad()
        cross_entropy(network.train()(images), labels).backward()
        optimizer.step()
        # In eval mode: dropout off, and batch norms with the statistics they have gathered.
        if step % 20 == 0 and (network.eval()(images).argmax(1) == labels).all():
            return
    pytest.fail("8 images not learned in 200 steps")


@pytest.mark.parametrize(
    ("name", "activation"), [*((name, "gelu") for name in OURS), *(("cnn4_bn", name) for name in ACTIVATIONS)]
)
def test_the_chosen_activation_takes_the_place_of_relu(name, activation):
    config = model_config(name, activation, **NARROW.get(name, {}))
    network, with_relu = build(name, activation, **NARROW.get(name, {})), build(name, **NARROW.get(name, {}))
    kept = len(config.hidden) if "hidden_activation" in config else 0
    chosen = type(instantiate(plain(model_config(name, activation).activation))())
    modules = list(network.modules())
    relus = [module for module in modules if isinstance(module, nn.ReLU)]
    replaced = [] if chosen is nn.ReLU else [module for module in modules if type(module) is chosen]
    if chosen is nn.ReLU:
        assert list(map(type, modules)) == list(map(type, with_relu.modules()))
    else:
        assert len(relus) == kept
        # The same layers otherwise; an activation that may fall stands before the pooling, ReLU behind it.
        expected = Counter(map(type, with_relu.modules()))
        expected.update({chosen: expected[nn.ReLU] - kept, nn.ReLU: kept - expected[nn.ReLU]})
        assert Counter(map(type, modules)) == +expected
    calls = []
    for module in [*replaced, *relus]:
        module.register_forward_hook(lambda module, inputs, output: calls.append(module))
    assert network.eval()(torch.randn(1, 3, 32, 32)).isfinite().all()
    assert sorted(map(id, calls)) == sorted(map(id, [*replaced, *relus]))


# That each file names the function which its header describes.
FORMULAS = {
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "selu": lambda x: 1.0507010 * (x if x > 0 else 1.6732632 * math.expm1(x)),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "hardswish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("activation", FORMULAS)
def test_activation_is_the_function_in_its_header(activation):
    module = instantiate(plain(model_config("cnn2", activation).activation))()
    for x in (-4.0, -0.5, 0.3, 2.0):
        assert module(torch.tensor(x)).item() == pytest.approx(FORMULAS[activation](x), abs=1e-6)
