"""timm's classifiers, fitted to small images, against timm itself."""

import pytest
import timm
import torch
from helpers.model_configs import build
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

from cifar_lightning.errors import UserError
from cifar_lightning.models.timm_networks import architectures
from cifar_lightning.models.timm_zoo import TimmClassifier
from cifar_lightning.optim.build import build_optimizer

# timm's own networks for tests, of a few hundred thousand weights: one of each kind that is fitted differently.
TINY = ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "test_nfnet")


@pytest.mark.parametrize("name", TINY)
def test_it_is_timms_network_with_a_head_for_the_classes(name):
    fixed = {"img_size": 32} if name == "test_vit" else {}
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=7, **fixed).eval()
    torch.manual_seed(0)
    ours = TimmClassifier(name=name, num_classes=7).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))


def test_images_are_enlarged_first_and_positions_are_made_for_that_size():
    network = build("timm", name="test_vit", image_size=64).eval()
    assert network.network.pos_embed.shape[1] == 1 + (64 // 16) ** 2
    images = torch.randn(2, 3, 32, 32)
    enlarged = torch.stack([resize(image, [64, 64]) for image in images])
    torch.testing.assert_close(network(images), network.network(enlarged))


def test_dropout_and_stochastic_depth_are_timms():
    theirs = timm.create_model("test_vit", drop_rate=0.3, drop_path_rate=0.2)
    ours = TimmClassifier(name="test_vit", dropout=0.3, stochastic_depth=0.2).network
    assert ours.head_drop.p == theirs.head_drop.p == 0.3
    found = [[m.drop_prob for m in n.modules() if hasattr(m, "drop_prob")] for n in (ours, theirs)]
    assert found[0] == found[1]
    assert max(found[0]) == pytest.approx(0.2)


def test_resnet18_with_the_small_stem_is_ours():
    theirs, ours = build("timm", name="resnet18", stem="cifar"), build("resnet18")
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(theirs(images), ours(images))


@pytest.mark.parametrize("name", [*TINY, "densenet121", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224"])
def test_the_small_stem_has_up_to_four_times_the_resolution(name):
    def first(stem):
        network = TimmClassifier(name=name, stem=stem)
        sizes = []
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
        network.eval()(torch.zeros(1, 3, 32, 32))
        return sizes[0]

    before, after = first("imagenet"), first("cifar")
    assert after == min(4 * before, 32)


@pytest.mark.parametrize("name", [*TINY, "deit_tiny_distilled_patch16_224"])
def test_what_is_trained_alone_is_what_depends_on_the_number_of_classes(name):
    frozen = TimmClassifier(name=name, freeze="all_but_head").network
    other = timm.create_model(name, num_classes=11, **({"img_size": 32} if "vit" in name or "deit" in name else {}))
    shapes = {key: tensor.shape for key, tensor in other.state_dict().items()}
    head = {key for key, tensor in frozen.state_dict().items() if tensor.shape != shapes[key]}
    assert {key for key, parameter in frozen.named_parameters() if parameter.requires_grad} == head != set()


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("test_vit", ("blocks.5.", "norm.", "head.")),
        ("resnet18", ("layer4.", "fc.")),
        ("test_convnext", ("stages.3.", "head.")),
        ("test_efficientnet", ("blocks.4.", "conv_head.", "bn2.", "classifier.")),
    ],
)
def test_the_last_stage_is_timms_last_group(name, stage):
    network = TimmClassifier(name=name, freeze="all_but_last_stage").network
    for key, parameter in network.named_parameters():
        assert parameter.requires_grad == key.startswith(stage), key


def test_frozen_layers_stay_as_they_are():
    network = build("timm", name="test_resnet", freeze="all_but_head")
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network.eval().train()
    F.cross_entropy(network(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    optimizer.step()
    changed = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {"network.fc.weight", "network.fc.bias"}


@pytest.mark.parametrize("name", TINY)
def test_layer_wise_rates_are_timms(name):
    network = TimmClassifier(name=name)
    config = {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.05, "decay_norms_and_biases": False}
    ours = build_optimizer(network, config | {"layer_decay": 0.6}).param_groups
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in ours for p in group["params"]}
    for group in param_groups_layer_decay(network.network, weight_decay=0.05, layer_decay=0.6):
        for parameter in group["params"]:
            assert rates[id(parameter)] == pytest.approx((1e-3 * group["lr_scale"], group["weight_decay"]))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "resnet81"}, r"model\.name=resnet81: timm has no such network; did you mean resnet18\?"),
        ({"name": "zzzz"}, r"timm has no such network\. `python -m cifar_lightning models timm=WORD` lists"),
        ({"name": "hf-hub:some/one"}, r"timm has no such network"),
        ({"name": "resnet18.tv_in2k"}, r"timm has no such weights of resnet18; did you mean resnet18\.tv_in1k\?"),
        ({"name": "inception_v3"}, r"inception_v3 can't take images of 32 px \(.*\): give another model\.image_size"),
        ({"name": "gemma4_vit_167m_enc"}, r"gemma4_vit_167m_enc: this network is no classifier"),
        ({"name": "vgg11", "stem": "cifar"}, r"model\.stem=cifar: vgg11 has no such stem"),
        ({"name": "mixer_s32_224", "stem": "cifar"}, r"model\.stem=cifar: timm's mixer_s32_224 does not take it"),
        ({"name": "vgg11", "stochastic_depth": 0.1}, r"model\.stochastic_depth: timm's vgg11 does not take it"),
        ({"name": "test_vit", "dropout": 1.0}, r"model\.dropout=1\.0: must be"),
        ({"name": "csatv2", "image_size": 64, "freeze": "all_but_last_stage"}, r"CSATv2 has no order of layers"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(keys, message):
    with pytest.raises(UserError, match=message) as caught:
        TimmClassifier(**keys)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_extra_is_named(command, monkeypatch):
    monkeypatch.setattr("cifar_lightning.models.timm_networks.find_spec", lambda name: None)
    outcome = command("data=digits", "model=timm", "trainer.max_epochs=1")
    assert outcome.code == 1
    assert outcome.err == "error: model=timm needs the package timm: pip install 'cifar-lightning[timm]'\n"
    assert not list(command.folder.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_network_of_each_of_timms_files_runs_at_32_px_or_says_what_it_needs():
    by_file = {}
    for name in architectures():
        by_file.setdefault(timm.models._registry._model_to_module[name], name)
    ran, refused = [], {}
    for name in by_file.values():
        with torch.device("meta"):
            if sum(p.numel() for p in timm.create_model(name).parameters()) > 100e6:
                continue
        try:
            with torch.no_grad():
                assert TimmClassifier(name=name)(torch.zeros(2, 3, 32, 32)).shape == (2, 10), name
            ran.append(name)
        except UserError as error:
            refused[name] = str(error)
    assert len(ran) > 60, refused
    assert all("model.image_size" in message or "no classifier" in message for message in refused.values()), refused
