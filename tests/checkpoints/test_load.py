"""A checkpoint may come from anyone: what is whole is loaded, what is doctored is refused before anything is built."""

import os

import pytest
import torch
from helpers.checkpoints import checkpoint_of, whole_config, write_checkpoint
from torch import nn

from cifar_lightning.checkpoints.load import find_root, load_classifier, load_data
from cifar_lightning.checkpoints.trust import admitted, is_admitted
from cifar_lightning.config.compose import instantiate
from cifar_lightning.errors import UserError
from cifar_lightning.models import torchvision_zoo


@pytest.fixture
def spy(tmp_path, monkeypatch):
    """A module on the path that leaves a file behind when it is imported."""
    (tmp_path / "spy_models.py").write_text(
        "import pathlib, torch\n"
        f"pathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(3, 10)\n"
        "    def forward(self, images):\n"
        "        return self.head(images.mean((2, 3)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "imported"


def test_a_regnet_whose_widths_are_computed_by_torch_is_loaded(tmp_path):
    config = whole_config("model=torchvision", "model.name=regnet_x_400mf")
    network = instantiate(config["model"]).eval()
    classifier = load_classifier(write_checkpoint(tmp_path / "a.ckpt", config=config, network=network))
    for key, tensor in network.state_dict().items():
        assert torch.equal(classifier.network.state_dict()[key], tensor), key


def test_a_network_of_timm_is_loaded_without_its_weights_for_imagenet_and_only_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_lightning.models.timm_zoo.with_weights", None)  # calling it would be a download
    config = whole_config("model=timm", "model.name=test_vit", "model.stem=cifar", "model.freeze=all_but_head")
    network = instantiate(config["model"]).eval()
    config["model"]["pretrained"] = "/no/such/file.pth"
    path = write_checkpoint(tmp_path / "a.ckpt", config=config, network=network)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]))
    with torch.no_grad():
        torch.testing.assert_close(load_classifier(path)(images), network((images / 255 - mean) / std))
    config["model"]["name"] = "hf-hub:someone/something"
    checkpoint = checkpoint_of(config, network)
    assert "timm has no such network" in refused(tmp_path / "b.ckpt", checkpoint)


def with_model(**keys):
    config = whole_config()
    config["model"] |= keys
    return config


def refused(path, checkpoint):
    torch.save(checkpoint, path)
    with pytest.raises(UserError) as caught:
        load_classifier(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_network_has_the_saved_weights_and_is_ready_for_use(tmp_path):
    config = whole_config("activation=tanh", "model.channels=[4,6]", "model.dropout=0.5")
    torch.manual_seed(3)
    network = instantiate(config["model"]).eval()
    classifier = load_classifier(write_checkpoint(tmp_path / "a.ckpt", config=config, network=network))
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]))
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), network((images / 255 - mean) / std))
    assert not any(module.training for module in classifier.modules())
    assert classifier.class_names == tuple("0123456789")


def test_loading_leaves_the_random_state_alone(tmp_path):
    path = write_checkpoint(tmp_path / "a.ckpt")
    before = torch.get_rng_state()
    load_classifier(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.ReLU",
        "torch.nn.Hardswish",
        "cifar_lightning.models.convnet.ConvNet",
        "cifar_lightning.models.torchvision_zoo.TorchvisionClassifier",
    ],
)
def test_layers_of_torch_and_networks_of_this_package_may_be_built(target):
    assert is_admitted(target)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "spy_models.Net",
        "torch.load",
        "torch.hub.load",
        "torch.nn.functional.relu",
        "torch.nn.init.torch.hub.load",
        "torch.nn.modules.linear.torch.hub.load",
        "torch.nn.DataParallel.module",
        "torch.nn.Linear.forward",
        "torch.nn.Upsample",
        "torch.nn.LazyLinear",
        "torch.nn.Parameter",
        "torch.nnn.ReLU",
        "torch.nn.",
        "torch.nn",
        "cifar_lightning.models.convnet.Callable",
        "cifar_lightning.models.convnet.UserError",
        "cifar_lightning.models.torchvision_weights.pickle.loads",
        "cifar_lightning.models.torchvision_weights.load_pretrained",
        "cifar_lightning.models.torchvision_zoo.torchvision.models.get_model",
        "cifar_lightning.models.convnet.nn.Linear",
        "cifar_lightning.models.no_such_module.Net",
        "cifar_lightning.models..convnet.ConvNet",
        "cifar_lightning.data.download.find_or_download",
        "hydra.utils.instantiate",
        "",
        None,
        7,
        ["torch.nn.ReLU"],
    ],
)
def test_nothing_else_may_be_built(target):
    assert not is_admitted(target)


@pytest.mark.parametrize(
    "model",
    [
        {"_target_": "spy_models.Net"},
        {"activation": {"_target_": "spy_models.Net"}},
        {"hidden": [{"_target_": "spy_models.Net"}]},
        {"hidden": [[{"deeper": {"_target_": "spy_models.Net"}}]]},
        {"activation": {"_target_": "torch.nn.ReLU", "inplace": {"_target_": "spy_models.Net", "_partial_": True}}},
    ],
)
def test_a_doctored_target_is_refused_at_any_depth_before_it_is_imported(tmp_path, spy, model):
    message = refused(tmp_path / "a.ckpt", checkpoint_of(with_model(**model), nn.ReLU()))
    assert "'spy_models.Net'" in message
    assert "trust=" in message
    assert not spy.exists()


def test_a_trusted_module_is_loaded_and_one_that_only_begins_like_it_is_not(tmp_path, spy):
    checkpoint = checkpoint_of({**whole_config(), "model": {"_target_": "spy_models.Net"}}, nn.ReLU())
    checkpoint["state_dict"] = {"network.head.weight": torch.ones(10, 3), "network.head.bias": torch.zeros(10)}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="which is not a network"):
        load_classifier(tmp_path / "a.ckpt", trusted=["spy"])
    assert not spy.exists()
    assert load_classifier(tmp_path / "a.ckpt", trusted=["spy_models"]).network.head.weight.sum() == 30
    assert spy.exists()


def test_code_in_the_pickle_is_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hacked"),)

    message = refused(tmp_path / "a.ckpt", checkpoint_of() | {"more": Code()})
    assert "can't be read as a checkpoint" in message
    assert not (tmp_path / "hacked").exists()


def test_an_interpolation_is_refused_instead_of_resolved(tmp_path):
    made = tmp_path / "made"
    message = refused(tmp_path / "a.ckpt", checkpoint_of(with_model(init=f"${{run_folder:{made},x}}"), nn.ReLU()))
    assert "interpolation" in message
    assert not made.exists()


def test_a_config_nested_without_end_is_refused(tmp_path):
    nested: list = []
    for _ in range(200):
        nested = [nested]
    assert "levels deep" in refused(tmp_path / "a.ckpt", checkpoint_of(with_model(hidden=nested), nn.ReLU()))
    endless: dict = {}
    endless["again"] = endless
    with pytest.raises(UserError, match="levels deep"):
        admitted(endless)


def test_a_network_of_terabytes_is_refused_without_being_built(tmp_path):
    checkpoint = checkpoint_of()
    checkpoint["cifar_lightning"]["config"]["model"]["channels"] = [1_000_000, 1_000_000]
    assert "weights don't fit" in refused(tmp_path / "a.ckpt", checkpoint)


def test_pretrained_weights_are_never_downloaded(tmp_path, monkeypatch):
    downloads = []
    monkeypatch.setattr(torchvision_zoo, "load_pretrained", lambda *args: downloads.append(args))
    zoo = {"_target_": "cifar_lightning.models.torchvision_zoo.TorchvisionClassifier", "name": "shufflenet_v2_x0_5"}
    checkpoint = checkpoint_of({**whole_config(), "model": dict(zoo)})
    checkpoint["cifar_lightning"]["config"]["model"]["pretrained"] = True
    torch.save(checkpoint, tmp_path / "a.ckpt")
    load_classifier(tmp_path / "a.ckpt")
    refused(tmp_path / "b.ckpt", checkpoint_of(with_model(activation={**zoo, "pretrained": True}), nn.ReLU()))
    assert downloads == []


DAMAGE = {
    "no description": lambda c: c.update(cifar_lightning=7),
    "no config": lambda c: c["cifar_lightning"].update(config=None),
    "no model": lambda c: c["cifar_lightning"]["config"].update(model="resnet"),
    "no data": lambda c: c["cifar_lightning"]["config"].pop("data"),
    "no class names": lambda c: c["cifar_lightning"].update(class_names=[]),
    "numbers for class names": lambda c: c["cifar_lightning"].update(class_names=[0, 1]),
    "an instruction to the terminal for a name": lambda c: c["cifar_lightning"].update(
        class_names=["\x1b]0;x\x07"] * 10
    ),
    "text for the trainer": lambda c: c["cifar_lightning"]["config"].update(trainer="cpu"),
    "text for the choices": lambda c: c["cifar_lightning"]["config"].update(choices="none"),
    "text for the mean": lambda c: c["cifar_lightning"].update(mean="0.5"),
    "no deviation": lambda c: c["cifar_lightning"].update(std=[0.0, 1.0, 1.0]),
    "a deviation that is no number": lambda c: c["cifar_lightning"].update(std=[1.0, 1.0, float("nan")]),
    "no target": lambda c: c["cifar_lightning"]["config"]["model"].pop("_target_"),
    "half a network": lambda c: c["cifar_lightning"]["config"]["model"].update(_partial_=True),
    "unknown key": lambda c: c["cifar_lightning"]["config"]["model"].update(no_such_key=1),
    "a layer for a network": lambda c: c["cifar_lightning"]["config"].update(model={"_target_": "torch.nn.LazyLinear"}),
    "a tensor as a setting": lambda c: c["cifar_lightning"]["config"]["model"].update(dropout=torch.zeros(1)),
    "a missing value": lambda c: c["cifar_lightning"]["config"]["model"].update(init="???"),
    "thousands of layers": lambda c: c["cifar_lightning"]["config"].update(
        model={"_target_": "cifar_lightning.models.wide_resnet.WideResNet", "depth": 60_004}
    ),
    "images of gigabytes": lambda c: c["cifar_lightning"]["config"]["model"].update(image_size=100_000),
    "a layer that enlarges images": lambda c: c["cifar_lightning"]["config"]["model"].update(
        activation={"_target_": "torch.nn.Upsample", "scale_factor": 1_000}
    ),
    "padding without end": lambda c: c["cifar_lightning"]["config"]["model"].update(
        activation={"_target_": "torch.nn.ZeroPad2d", "padding": 100_000}
    ),
    "names that are double": lambda c: c["cifar_lightning"].update(class_names=["a"] * 10),
    "a weight less": lambda c: c["state_dict"].popitem(),
    "a weight more": lambda c: c["state_dict"].update(other=torch.zeros(1)),
    "another shape": lambda c: c["state_dict"].update({"network.features.0.weight": torch.zeros(1)}),
    "text for a weight": lambda c: c["state_dict"].update({"network.features.0.weight": "0.5"}),
    "no weights": lambda c: c.update(state_dict=[]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_one_line_with_its_name(tmp_path, damage):
    checkpoint = checkpoint_of()
    damage(checkpoint)
    assert refused(tmp_path / "a.ckpt", checkpoint).startswith(f"{tmp_path / 'a.ckpt'}")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(tmp_path, keep):
    content = write_checkpoint(tmp_path / "whole.ckpt").read_bytes()
    path = tmp_path / "a.ckpt"
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(UserError, match="truncated"):
        load_classifier(path)


def test_the_data_are_those_of_the_checkpoints_config():
    config = whole_config("data.val_size=100", "data.split_seed=7")
    data = load_data(config)
    assert (data.name, len(data.val), len(data.test)) == ("digits", 100, 360)
    other = load_data(whole_config("data.val_size=100", "data.split_seed=8"))
    assert set(data.val_indices) != set(other.val_indices)


def test_another_root_takes_the_place_of_the_saved_one(cifar_folder):
    config = {"data": {"name": "cifar10", "root": "/nowhere", "verify": False, "val_size": 60, "batch_size": 4096}}
    assert len(load_data(config, str(cifar_folder)).val) == 60


@pytest.mark.parametrize("place", ["here", "above the checkpoint", "environment", "nowhere"])
def test_the_data_are_found_where_training_left_them(tmp_path, monkeypatch, place):
    run = tmp_path / "project" / "logs" / "train" / "runs" / "a"
    run.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    roots = {
        "here": tmp_path / "elsewhere" / "data",
        "above the checkpoint": tmp_path / "project" / "data",
        "environment": tmp_path / "env",
    }
    names = list(roots)
    for name in names[names.index(place) :] if place in names else ():  # an earlier place goes before a later one
        (roots[name] / "cifar-10-batches-py").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("CIFAR10_ROOT", str(tmp_path / "env"))
    found = find_root({"data": {"name": "cifar10", "root": "data"}}, run / "checkpoints" / "best.ckpt")
    assert (found and (tmp_path / "elsewhere" / found)) == roots.get(place)


@pytest.mark.parametrize("data", [{"name": "mnist"}, {"val_size": "many"}, {"eval_batch_size": None}, {"name": []}])
def test_doctored_settings_of_the_data_are_one_line(data):
    with pytest.raises(UserError) as caught:
        load_data({"data": {"name": "digits", **data}})
    assert "\n" not in str(caught.value)
