"""The recipes in conf/experiment/finetune, with weights that are saved here instead of those of ImageNet."""

import pytest
import timm
import torch
import torchvision
from torch.nn.functional import interpolate

from cifar_lightning.api import load
from cifar_lightning.config.compose import compose, plain
from cifar_lightning.data.digits import load_digits

SMALL = ["data=digits", "trainer.max_epochs=2", "trainer.limit_train_batches=3", "logger=none", "hydra.run.dir=run"]


def saved(network, path):
    torch.save(network.state_dict(), path)
    return network.eval()


def test_linear_probing_trains_one_layer_on_what_the_weights_see(command, tmp_path):
    torch.manual_seed(1)
    theirs = saved(torchvision.models.squeezenet1_1(), tmp_path / "weights.pth")
    typed = ["experiment=finetune/linear_probe", "model.name=squeezenet1_1", "model.image_size=64"]
    # Digits are grey: three equal channels.
    outcome = command(*typed, "model.pretrained=weights.pth", "data.normalize=half", *SMALL)
    assert outcome.code == 0, outcome.err
    trained = load("run", accelerator="cpu")
    images = torch.from_numpy(load_digits().test.images[:4])
    normalized = interpolate((images / 255 - 0.5) / 0.5, size=64, mode="bilinear").expand(-1, 3, -1, -1)
    state = torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    head = {key.rpartition(".")[2]: tensor for key, tensor in state.items() if "classifier.1." in key}
    with torch.no_grad():
        features = theirs.features(normalized)
        expected = torch.nn.functional.conv2d(features, **head).relu().mean((2, 3))
    torch.testing.assert_close(trained.logits(images), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(head["weight"], theirs.classifier[1].weight[:10])


def test_fine_tuning_moves_the_layers_near_the_images_the_least(command, tmp_path):
    """With plain SGD and no schedule a layer moves by its learning rate times its gradients."""
    torch.manual_seed(1)
    saved(timm.create_model("test_vit"), tmp_path / "weights.pth")
    typed = ["experiment=finetune/vit", "model.name=test_vit", "model.image_size=32", "model.stochastic_depth=0"]
    typed += ["model.pretrained=weights.pth", *SMALL, "trainer.limit_train_batches=1", "trainer.max_epochs=1"]
    typed += ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "scheduler=none"]
    typed += ["optimizer.weight_decay=0", "augmentation=none", "trainer.gradient_clip_val=null", "test=false"]
    moved = {}
    for decay in ("1.0", "0.5"):
        outcome = command(*typed, f"optimizer.layer_decay={decay}", f"hydra.run.dir=run{decay}")
        assert outcome.code == 0, outcome.err
        before = torch.load("weights.pth", weights_only=True)
        after = torch.load(f"run{decay}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        moved[decay] = {
            key: (after[f"network.network.{key}"] - before[key]).norm().item()
            for key in before
            if key.startswith("blocks.") and key.endswith("mlp.fc2.weight")
        }
    assert len(moved["1.0"]) == 6
    for key, whole in moved["1.0"].items():
        block = int(key.split(".")[1])
        assert moved["0.5"][key] == pytest.approx(whole * 0.5 ** (6 - block), rel=1e-3)


@pytest.mark.parametrize("recipe", ["vit", "linear_probe"])
def test_a_recipe_asks_for_weights_as_they_were_trained(recipe):
    config = plain(compose([f"experiment=finetune/{recipe}", "paths.output_dir=here"]))
    assert config["model"]["pretrained"] is True
    assert config["model"]["image_size"] == 224
    if recipe == "vit":
        weights = timm.get_pretrained_cfg(config["model"]["name"])
        assert weights.input_size[-1] == 224
        assert (weights.mean, config["data"]["normalize"]) == ((0.5, 0.5, 0.5), "half")
    else:
        transforms = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
        assert (transforms.mean, config["data"]["normalize"]) == ([0.485, 0.456, 0.406], "imagenet")
