import pytest
import torch
import torchvision
from helpers.model_configs import build
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model, list_models
from torchvision.transforms.v2.functional import resize

from cifar_lightning.errors import UserError
from cifar_lightning.models.torchvision_families import FAMILIES, NAMES, family_of
from cifar_lightning.models.torchvision_zoo import TorchvisionClassifier

# One small network of each family for the fast selection, all of them for the slow one.
FEW = ("alexnet", "vgg11_bn", "resnet18", "squeezenet1_1", "densenet121", "googlenet", "inception_v3")
FEW += ("shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0")
FEW += ("efficientnet_v2_s", "regnet_x_400mf", "convnext_tiny", "swin_t", "vit_b_32", "maxvit_t")
EACH = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
WITH_STEM = [p for p in EACH if family_of(p if isinstance(p, str) else p.values[0]).stem]


def size_for(name):
    family = family_of(name)
    return None if family.min_size <= 32 and not family.exact_size else family.made_for


@pytest.fixture
def uninitialized(monkeypatch):
    """Networks without the time it takes to draw their weights, for tests of their shapes alone."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_", "normal_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


def test_the_table_has_every_classifier_once():
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) == set(list_models(module=torchvision.models))
    assert all(any(name in family.names for name in FEW) for family in FAMILIES)


@pytest.mark.parametrize("name", EACH)
def test_sizes_are_the_smallest_that_work(name, uninitialized):
    family = family_of(name)
    network = TorchvisionClassifier(name=name, image_size=size_for(name)).network.to("meta")

    def works(size, training):
        try:
            network.train(training)(torch.zeros(2, 3, size, size, device="meta"))
        except (RuntimeError, AssertionError, ValueError):
            return False
        return True

    if family.exact_size:
        assert works(family.made_for, training=True)
        assert not works(family.made_for + 32, training=False)
        with pytest.raises(UserError, match=f"give model.image_size={family.made_for}"):
            TorchvisionClassifier(name=name)
        return
    assert works(family.min_size, training=False)
    assert works(max(family.min_size, family.aux_min_size), training=True)
    # Of kin with different limits (squeezenet1_0 and 1_1) the table has the larger one.
    assert name == "squeezenet1_1" or not works(family.min_size - 1, training=False)
    assert not family.aux_min_size or not works(family.aux_min_size - 1, training=True)


@pytest.mark.parametrize("name", EACH)
def test_what_is_new_is_what_depends_on_the_number_of_classes(name, uninitialized):
    frozen = TorchvisionClassifier(name=name, image_size=size_for(name), freeze="all_but_head").network
    aux = {"aux_logits": True, "init_weights": False} if family_of(name).aux_weight else {}
    other = get_model(name, num_classes=11, **aux).state_dict()
    head = {key for key, tensor in frozen.state_dict().items() if tensor.shape != other[key].shape}
    assert {key for key, parameter in frozen.named_parameters() if parameter.requires_grad} == head
    assert head


@pytest.mark.parametrize("name", EACH)
def test_the_last_stage_is_the_end_of_the_network_at_its_lowest_resolution(name, uninitialized):
    family = family_of(name)
    network = TorchvisionClassifier(name=name, image_size=size_for(name), freeze="all_but_last_stage").network
    trained = [parameter.requires_grad for key, parameter in network.named_parameters() if "aux" not in key.lower()]
    assert trained == sorted(trained)  # first frozen, then trained
    assert not trained[0]
    if family.exact_size or name.startswith(("swin", "alexnet", "vgg")):
        return  # one resolution throughout, permuted axes, or fully connected layers
    sizes = {True: set(), False: set()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) and module.out_channels > 10:
            trains = module.weight.requires_grad
            module.register_forward_hook(lambda m, i, out, trains=trains: sizes[trains].add(out.shape[-1]))
    network.to("meta").eval()(torch.zeros(1, 3, 320, 320, device="meta"))
    assert max(sizes[True]) < 3 * min(sizes[True])  # a convolution at its start may be what halves the image
    assert min(sizes[True]) < min(sizes[False]) or name.startswith("squeezenet")


@pytest.mark.parametrize("name", WITH_STEM)
def test_the_small_stem_keeps_the_resolution_in_front_of_the_first_stage(name, uninitialized):
    network = TorchvisionClassifier(name=name, stem="cifar").network
    path, *pool = family_of(name).stem
    conv = network.get_submodule(path)
    assert (conv.in_channels, conv.kernel_size, conv.stride, conv.padding) == (3, (3, 3), (1, 1), (1, 1))
    assert next(m for m in network.modules() if isinstance(m, nn.Conv2d)) is conv
    shapes = []
    for kept in (path, *pool):
        network.get_submodule(kept).register_forward_hook(lambda m, i, out: shapes.append(out.shape[-2:]))
    network.to("meta").eval()(torch.zeros(1, 3, 32, 32, device="meta"))
    assert shapes == [(32, 32)] * (1 + len(pool))


def test_resnet18_with_the_small_stem_is_ours():
    theirs, ours = build("torchvision", name="resnet18", stem="cifar"), build("resnet18")
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(theirs(images), ours(images))


HEAVY = ("vgg16", "wide_resnet50_2")
NAMED = ["resnet18", "alexnet", "vgg16", "squeezenet1_0", "densenet161", "inception_v3", "googlenet"]
NAMED += ["shufflenet_v2_x1_0", "mobilenet_v2", "resnext50_32x4d", "wide_resnet50_2", "mnasnet1_0"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in NAMED])
def test_logits_and_gradients(name):
    torch.manual_seed(0)
    network = TorchvisionClassifier(name=name, image_size={"alexnet": 64, "inception_v3": 75}.get(name))
    images = torch.randn(2, 3, 32, 32)
    assert network.eval()(images[:1]).shape == (1, 10)
    sum(weight * logits.square().sum() for weight, logits in network.train().weighted_heads(images)).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vit_b_16", "swin_t", "maxvit_t", "convnext_tiny", "regnet_x_400mf", "efficientnet_b0"]
)
def test_logits_of_the_families_with_no_network_above(name):
    network = TorchvisionClassifier(name=name, image_size=size_for(name))
    assert network.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_images_are_enlarged_first():
    network = build("torchvision", name="squeezenet1_1", image_size=48).eval()
    images = torch.randn(2, 3, 32, 32)
    enlarged = torch.stack([resize(image, [48, 48]) for image in images])
    torch.testing.assert_close(network(images), network.network(enlarged))


@pytest.mark.parametrize(
    ("name", "image_size", "weights"),
    [
        ("resnet18", None, [1.0]),
        ("googlenet", None, [1.0, 0.3, 0.3]),
        ("inception_v3", 75, [1.0]),
        pytest.param("inception_v3", 299, [1.0, 0.4], marks=pytest.mark.slow),
    ],
)
def test_auxiliary_heads_enter_the_loss_in_training_only(name, image_size, weights):
    network = build("torchvision", name=name, image_size=image_size, dropout=None if name == "resnet18" else 0.0)
    images = torch.randn(2, 3, 32, 32)
    heads = network.train().weighted_heads(images)
    assert [weight for weight, _ in heads] == weights
    assert all(logits.shape == (2, 10) for _, logits in heads)
    torch.testing.assert_close(network(images), heads[0][1])
    assert [weight for weight, _ in network.eval().weighted_heads(images)] == [1.0]


def test_dropout_is_set_in_every_layer_that_has_it():
    network = TorchvisionClassifier(name="squeezenet1_0", dropout=0.0)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.train()(images), network(images))
    with pytest.raises(UserError, match=r"model\.dropout=0\.1: resnet18 has no dropout"):
        TorchvisionClassifier(name="resnet18", dropout=0.1)


def test_compiling_reaches_training_and_keeps_the_names():
    network = TorchvisionClassifier(name="squeezenet1_0")
    names, graphs = list(network.state_dict()), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    network.compile(backend=backend)
    network.weighted_heads(torch.randn(2, 3, 32, 32))
    assert len(graphs) == 1
    assert list(network.state_dict()) == names


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "resnet81"}, r"model\.name=resnet81: .*did you mean resnet18\?"),
        ({"name": "transformer"}, r"model\.name=transformer: .*choose from: alexnet, .*, wide_resnet50_2"),
        (
            {"name": "alexnet"},
            r"alexnet can't take images of 32 px: give model\.image_size, at least 63; it was designed for 224",
        ),
        ({"name": "inception_v3"}, r"give model\.image_size, at least 75; it was designed for 299"),
        ({"name": "vit_b_16"}, r"vit_b_16 takes images of 224 px only: give model\.image_size=224"),
        ({"name": "vit_b_16", "image_size": 64}, r"vit_b_16 takes images of 224 px only"),
        ({"name": "vgg11", "stem": "cifar"}, r"model\.stem=cifar: vgg11 has no such stem; .*: resnet18, squeezenet1_0"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(keys, message):
    with pytest.raises(UserError, match=message):
        TorchvisionClassifier(**keys)


@pytest.mark.parametrize(("freeze", "modules"), [("all_but_head", ("fc",)), ("all_but_last_stage", ("layer4", "fc"))])
def test_frozen_layers_stay_as_they_are(freeze, modules):
    network = build("torchvision", name="resnet18", freeze=freeze)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.eval().train()
    F.cross_entropy(network(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    optimizer.step()
    changed = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key in before if key.split(".")[1] in modules}


def test_a_new_stem_is_trained_even_if_the_rest_is_frozen():
    network = TorchvisionClassifier(name="resnet18", stem="cifar", freeze="all_but_head")
    trained = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"network.conv1.weight", "network.fc.weight", "network.fc.bias"}
    kept = TorchvisionClassifier(name="mobilenet_v2", stem="cifar", freeze="all_but_head")  # its kernel was 3x3 before
    assert not kept.network.features[0][0].weight.requires_grad
