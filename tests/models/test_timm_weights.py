"""Pretrained weights for timm's networks: from a file or a cache, saved here, as there is no network in tests."""

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from cifar_lightning.errors import UserError
from cifar_lightning.models.timm_zoo import TimmClassifier


def save_weights(path, name, **keys):
    """The weights that someone might have trained for 1,000 classes, or for `num_classes`."""
    torch.manual_seed(1)
    network = timm.create_model(name, **keys)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    (save_file if path.suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    return network


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("classes", [1000, 21])
def test_all_but_the_head_is_the_files(tmp_path, suffix, classes):
    file = tmp_path / f"weights{suffix}"
    theirs = save_weights(file, "test_resnet", num_classes=classes).state_dict()
    ours = TimmClassifier(name="test_resnet", pretrained=str(file)).network.state_dict()
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert torch.equal(tensor, theirs[key]) != key.startswith("fc."), key
    assert ours["fc.weight"].shape == (10, theirs["fc.weight"].shape[1])


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_positions_and_patches_are_interpolated_as_timm_does(tmp_path, stem):
    file = tmp_path / "weights.pth"
    save_weights(file, "test_vit")
    small = {"patch_size": 4} if stem == "cifar" else {}
    theirs = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"file": str(file)}, img_size=32, num_classes=10, **small
    ).state_dict()
    ours = TimmClassifier(name="test_vit", pretrained=str(file), stem=stem).network.state_dict()
    for key, tensor in ours.items():
        assert key.startswith("head.") or torch.equal(tensor, theirs[key]), key


def test_grey_images_get_the_sum_over_the_colours(tmp_path):
    file = tmp_path / "weights.pth"
    theirs = save_weights(file, "resnet18")
    ours = TimmClassifier(name="resnet18", pretrained=str(file), in_channels=1).eval().network
    grey = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(ours.conv1(grey), theirs.conv1(grey.expand(-1, 3, -1, -1)))


def test_a_new_stem_is_trained_even_if_the_rest_is_frozen(tmp_path):
    file = tmp_path / "weights.pth"
    theirs = save_weights(file, "resnet18")
    network = TimmClassifier(name="resnet18", pretrained=str(file), stem="cifar", freeze="all_but_head").network
    trained = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"conv1.weight", "fc.weight", "fc.bias"}
    assert torch.equal(network.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: None, "there is no such file"),
        (lambda file: file.write_bytes(b"<html>not found</html>"), "is not a file of weights"),
        (lambda file: torch.save([1, 2], file), "is not a file of weights"),
        (lambda file: torch.save({"fc.weight": Trap()}, file), "is not a file of weights"),
        (lambda file: save_weights(file, "test_vit"), "does not fit test_resnet: "),
        (lambda file: save_weights(file, "resnet18"), "does not fit test_resnet: "),
        (lambda file: torch.save({}, file), "is not a file of weights"),
    ],
    ids=["none", "page", "list", "code", "another", "larger", "empty"],
)
def test_a_foreign_file_is_named(tmp_path, monkeypatch, write, message):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    write(file)
    with pytest.raises(UserError, match=f"model.pretrained={re.escape(str(file))}:? {message}") as caught:
        TimmClassifier(name="test_resnet", pretrained=str(file))
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of downloads, and no network to fill it from."""

    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("cifar_lightning.models.timm_networks.urlopen", no_network)
    return tmp_path / "hub"


def test_timms_weights_come_from_its_cache(cache):
    repository = cache / "models--timm--test_resnet.r160_in1k"
    file = repository / "snapshots" / "abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    theirs = save_weights(file, "test_resnet")
    ours = TimmClassifier(name="test_resnet", pretrained=True).network
    assert torch.equal(ours.conv1[0].weight, theirs.conv1[0].weight)


def test_without_a_network_the_message_says_what_to_get_from_where(cache):
    with pytest.raises(UserError) as caught:
        TimmClassifier(name="resnet18.tv_in1k", pretrained=True)
    assert str(caught.value) == (
        "can't download the weights of timm's resnet18.tv_in1k (no route to host): get model.safetensors from "
        "https://huggingface.co/timm/resnet18.tv_in1k in another way and give it, model.pretrained=FILE"
    )
    with pytest.raises(UserError, match="timm has no weights of test_mambaout; give a file"):
        TimmClassifier(name="test_mambaout", pretrained=True)


@pytest.mark.slow
def test_a_run_needs_its_weights_only_once(command, tmp_path):
    """Trained with layer-wise rates, resumed, tested again and used after the file has gone."""
    file = tmp_path / "my weights=1.pth"
    theirs = save_weights(file, "test_vit")
    small = ["data=digits", "model=timm", "model.name=test_vit", f"model.pretrained={file}", "model.stem=cifar"]
    small += ["model.freeze=all_but_last_stage", "optimizer.layer_decay=0.75", "trainer.limit_train_batches=2"]
    first = command(*small, "data.normalize=half", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run")
    assert first.code == 0, first.err
    file.unlink()
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(state["network.network.blocks.0.attn.qkv.weight"], theirs.blocks[0].attn.qkv.weight)
    assert not torch.equal(state["network.network.blocks.5.attn.qkv.weight"], theirs.blocks[5].attn.qkv.weight)
    for typed in (["ckpt_path=run", "trainer.max_epochs=2"], ["ckpt_path=run", "train=false"], ["evaluate", "run"]):
        outcome = command(*typed)
        assert outcome.code == 0, outcome.err
