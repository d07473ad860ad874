"""`python -m cifar_lightning models`: sizes and costs, against numbers that others have counted."""

import pytest
import timm
import torchvision
from helpers.model_configs import MODELS, build, parameters
from omegaconf import OmegaConf

from cifar_lightning.commands.models import cost, header, main
from cifar_lightning.config.compose import conf_dir


def test_multiply_adds_of_the_tutorial_net_are_those_counted_by_hand():
    convolutions = 28 * 28 * 6 * (3 * 5 * 5) + 10 * 10 * 16 * (6 * 5 * 5)
    linear = 400 * 120 + 120 * 84 + 84 * 10
    assert cost(_model("tutorial_net")) == (62_006, convolutions + linear)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet18", torchvision.models.ResNet18_Weights.IMAGENET1K_V1),
        ("regnet_x_400mf", torchvision.models.RegNet_X_400MF_Weights.IMAGENET1K_V1),
        ("mobilenet_v2", torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1),  # grouped convolutions
        ("vit_b_16", torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1),  # attention
    ],
)
def test_costs_are_those_that_torchvision_publishes_at_224_px(name, weights):
    _, operations = cost({**_model("torchvision"), "name": name, "num_classes": 1000, "image_size": 224})
    assert operations / 1e9 == pytest.approx(weights.meta["_ops"], abs=0.0006)


def test_parameters_are_those_of_the_network():
    for name in ("cnn4_bn", "resnet"):
        assert cost(_model(name))[0] == parameters(build(name))


def test_every_model_is_listed_with_what_its_file_says(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(" ") and line.split()}
    for name in MODELS:
        assert rows[name][1].replace(",", "").isdigit()
        assert int(rows[name][2].replace(",", "")) > 1000
        assert header(name)[:30] in out
    assert rows["resnet18"][1:3] == ["11,173,962", "555,422,720"]  # 0.56 G in other repositories


def test_a_single_classifier_of_torchvision_can_be_asked_for_and_says_at_which_size(capsys):
    assert main(["vgg11", "alexnet", "vit_b_16"]) == 0
    out = capsys.readouterr().out
    assert "vgg11" in out
    assert "image enlarged to 224 px" in out


def test_timms_networks_are_listed_with_what_their_weights_expect(capsys):
    assert main(["timm=test_resnet"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(" test_")]
    assert row.split()[1] == f"{parameters(timm.create_model('test_resnet', num_classes=10)):,}"
    assert "weights: r160_in1k, 160 px, data.normalize=half" in row
    assert main(["vit_tiny_patch16_224", "inception_v4"]) == 0
    out = capsys.readouterr().out
    assert "224 px, data.normalize=half" in out
    assert "enlarged to 299 px" in out
    assert main(["timm=zzzz"]) == 1
    assert capsys.readouterr().err == "error: timm=zzzz: no network of timm has this in its name\n"
    assert main(["vit_tiny_patch16_225"]) == 1
    assert capsys.readouterr().err.endswith("did you mean vit_tiny_patch16_224?\n")


def test_an_unknown_model_is_answered_with_the_nearest(capsys):
    assert main(["resnet81"]) == 1
    assert capsys.readouterr() == ("", "error: resnet81: there is no such model; did you mean resnet18?\n")
    assert main(["nothing_like_it"]) == 1  # and a hundred names are no answer
    assert capsys.readouterr().err.endswith("no such model. `python -m cifar_lightning models all=true` lists all\n")


def _model(name):
    files = {group: OmegaConf.load(conf_dir() / group / f"{choice}.yaml") for group, choice in
             (("model", name), ("activation", "relu"))}  # fmt: skip
    return OmegaConf.to_container(OmegaConf.create(files), resolve=True)["model"]
