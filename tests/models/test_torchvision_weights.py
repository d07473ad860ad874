import pickle
import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from helpers.model_configs import build
from torchvision.models import get_model, get_model_weights

from cifar_lightning.errors import UserError
from cifar_lightning.models.torchvision_families import FAMILIES
from cifar_lightning.models.torchvision_zoo import TorchvisionClassifier


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty download cache, and no network to fill it from."""

    def no_network(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def file_for(name, cache):
    return cache / Path(get_model_weights(name).DEFAULT.url).name


def put_weights(name, cache, **keys):
    """What torchvision would have downloaded: random weights for 1,000 classes, here with batch statistics too."""
    torch.manual_seed(1)
    network = get_model(name, **keys)
    for buffer in network.buffers():
        if buffer.dtype == torch.float32:
            buffer.uniform_(0.5, 2)
    torch.save(network.state_dict(), file_for(name, cache))
    return network


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "mnasnet0_5", "googlenet"]
    + [pytest.param(n, marks=pytest.mark.slow) for n in ("vgg11", "vit_b_32", "inception_v3", "swin_t", "maxvit_t")],
)
def test_all_but_the_head_is_torchvisions(name, cache):
    size = {"vit_b_32": 224, "maxvit_t": 224, "inception_v3": 75}.get(name)
    aux = {"aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    theirs = put_weights(name, cache, **aux).state_dict()
    ours = build("torchvision", name=name, image_size=size, pretrained=True)
    untrained = build("torchvision", name=name, image_size=size)
    heads = [k for k, tensor in ours.network.state_dict().items() if tensor.shape != theirs[k].shape]
    assert heads
    for key, tensor in ours.network.state_dict().items():
        expected = untrained.network.state_dict()[key] if key in heads else theirs[key]
        assert torch.equal(tensor, expected), key


def test_networks_for_one_size_have_weights_for_it():
    for family in FAMILIES:
        for name in family.names if family.exact_size else ():
            assert (family.made_for, family.made_for) in [v.meta["min_size"] for v in get_model_weights(name)]


def test_densenets_old_names_are_understood(cache):
    path = file_for("densenet121", cache)
    theirs = put_weights("densenet121", cache).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])", r"\1.\2", key): value for key, value in theirs.items()}
    assert len(old.keys() - theirs.keys()) == 58 * 12  # two norms of 5 tensors and two convolutions in each layer
    torch.save({key: value for key, value in old.items() if "num_batches" not in key}, path)
    ours = TorchvisionClassifier(name="densenet121", pretrained=True).network.state_dict()
    for key in ours.keys() - {"classifier.weight", "classifier.bias"}:
        assert torch.equal(ours[key], theirs[key]) or "num_batches" in key, key


def test_a_new_stem_keeps_its_own_weights(cache):
    theirs = put_weights("resnet18", cache)
    network = TorchvisionClassifier(name="resnet18", stem="cifar", pretrained=True).network
    assert network.conv1.weight.shape == (64, 3, 3, 3)
    assert torch.equal(network.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)
    kept = put_weights("mobilenet_v3_small", cache)
    network = TorchvisionClassifier(name="mobilenet_v3_small", stem="cifar", pretrained=True).network
    assert torch.equal(network.features[0][0].weight, kept.features[0][0].weight)  # 3x3 before, 3x3 after


def test_without_a_network_the_message_names_the_file_and_its_place(cache):
    with pytest.raises(UserError) as caught:
        TorchvisionClassifier(name="resnet18", pretrained=True)
    assert get_model_weights("resnet18").DEFAULT.url in str(caught.value)
    assert f"put that file at {file_for('resnet18', cache)}" in str(caught.value)
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>not found</html>", "is not a file of weights"),
        (b"", "is not a file of weights"),
        (pickle.dumps([1, 2], protocol=2), "is not a file of weights"),
    ],
    ids=["page", "empty", "list"],
)
def test_a_foreign_file_is_named(content, reason, cache):
    path = file_for("resnet18", cache)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(path))} {reason}"):
        TorchvisionClassifier(name="resnet18", pretrained=True)


def test_another_networks_weights_are_refused(cache):
    put_weights("resnet34", cache)
    file_for("resnet34", cache).rename(file_for("resnet50", cache))
    with pytest.raises(UserError, match="does not hold the weights of resnet50"):
        TorchvisionClassifier(name="resnet50", pretrained=True)


def test_weights_that_would_run_code_are_refused(cache, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"fc.weight": Trap()}, file_for("resnet18", cache))
    with pytest.raises(UserError, match="is not a file of weights"):
        TorchvisionClassifier(name="resnet18", pretrained=True)
    assert not (tmp_path / "ran").exists()
