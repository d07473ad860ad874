"""Every file in conf/experiment: it says what it is, has the parameters it names, and trains."""

import json
import re

import pytest
from helpers.official_format import write_cifar100

from cifar_lightning.config.compose import compose, conf_dir, instantiate, plain
from cifar_lightning.config.hints import choices
from cifar_lightning.data.official import CIFAR100

EXPERIMENTS = choices("experiment")
# Parameters and test accuracy (%) as the recipes' authors have them.
CLASSIC = {
    "cnn_relu": (69_402, 58.98),
    "cnn_tanh": (31_098, 55.20),
    "lenet": (657_080, 69.42),
    "lenet3": (541_094, 70.69),
    "lenet3_augmented": (541_094, 70.75),
    "cnn_batchnorm_dropout": (43_626, 64.86),
    "resnet": (175_258, 73.14),
    "torchvision_resnet18": (11_181_642, 70.31),
    "alexnet": (4_510_794, {"best": 86.9, "last": 86.5}),
    "tutorial_net": (62_006, 53),
}

# What would take a minute on a CPU.
SMALLER = {
    "strong/wide_resnet28_10": ["model.depth=10", "model.widen_factor=1", "data.num_workers=0"],
    "speed/cifar96": ["model.widths=[16,32,32]"],
    # Of the 300 images.
    "longtail/cross_entropy": ["data.imbalance=10"],
    "longtail/logit_adjusted": ["data.imbalance=10"],
    "fewshot/4000": ["data.train_size=40", "data.batch_size=32"],
    # Without downloads; with weights of ImageNet: tests/models/test_finetuning.py.
    "finetune/vit": ["model.pretrained=false", "model.name=test_vit"],
    "finetune/linear_probe": ["model.pretrained=false", "model.image_size=64"],
}


def header(experiment: str) -> str:
    text = (conf_dir() / "experiment" / f"{experiment}.yaml").read_text()
    lines = text.splitlines()
    assert lines[0] == "# @package _global_"
    return "\n".join(line for line in lines[1:] if line.startswith("#"))


def parameters(experiment: str) -> int:
    config = compose([f"experiment={experiment}", "paths.output_dir=here"])
    keys = {"num_classes": 100} if config.data.name == "cifar100" else {}
    keys |= {"pretrained": False} if "pretrained" in config.model else {}  # no downloads
    return sum(p.numel() for p in instantiate(plain(config.model) | keys).parameters())


def test_the_ten_classic_recipes_are_there():
    assert {name.removeprefix("classic/") for name in EXPERIMENTS if name.startswith("classic/")} == set(CLASSIC)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_its_header_states_command_parameters_and_what_was_measured(experiment):
    text = header(experiment)
    assert f"#   python -m cifar_lightning experiment={experiment}\n" in text
    (stated,) = re.findall(r"^# ([\d,]+) parameters", text, flags=re.MULTILINE)
    assert int(stated.replace(",", "")) == parameters(experiment)
    measured = r"^# Measured: \d+\.\d+( ± \d+\.\d+)? % .*\(n = \d+\)"
    assert re.search(rf"{measured}|^# Not yet measured on a GPU; |^# Not measured: ", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", CLASSIC)
def test_a_classic_recipe_has_its_authors_parameters_and_figure(name):
    config = compose([f"experiment=classic/{name}", "paths.output_dir=here"])
    assert parameters(f"classic/{name}") == CLASSIC[name][0]
    assert plain(config.published_test_acc) == CLASSIC[name][1]


# One of each kind in the fast tests: no validation, early stopping with two checkpoints, torchvision, speed, long tail.
KINDS = {
    "classic/lenet",
    "classic/alexnet",
    "classic/torchvision_resnet18",
    "speed/cifar94",
    "longtail/logit_adjusted",
}


@pytest.mark.filterwarnings("ignore:scheduler.warmup_epochs")  # one epoch is all warm-up
@pytest.mark.parametrize(
    "experiment", [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS]
)
def test_it_trains_on_small_data_of_its_kind(command, cifar_folder, tmp_path, experiment):
    small = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=none", "callbacks=none"]
    config = compose([f"experiment={experiment}", "paths.output_dir=here"])
    root = cifar_folder
    if config.data.name == "cifar100":
        root = tmp_path / "cifar100"
        write_cifar100(root / CIFAR100.folder)
    if config.data.name != "digits":
        small += [
            f"data.root={root}",
            "data.verify=false",
            f"data.val_size={60 if config.data.val_size else 0}",
        ]
        if config.data.batch_size > 100:  # of the 300 images
            small.append("data.batch_size=32")
    small += SMALLER.get(experiment, [])
    if config.callbacks.get("early_stopping"):
        small[3] = "callbacks=early_stopping"
    outcome = command(f"experiment={experiment}", "hydra.run.dir=here", *small)
    assert outcome.code == 0, outcome.err
    metrics = json.loads((command.folder / "here" / "metrics.json").read_text())
    assert metrics["experiment"] == experiment
    assert metrics["epochs"] == 1
