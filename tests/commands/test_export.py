"""Exported files compute what the checkpoint computes, and say what they take and give."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.checkpoints import checkpoint_of, whole_config, write_checkpoint
from helpers.command import Outcome

from cifar_lightning.api import load
from cifar_lightning.commands import export, predict
from cifar_lightning.config.compose import conf_dir, instantiate
from cifar_lightning.data.digits import load_digits
from cifar_lightning.evaluation import export as exporting

IMAGES = torch.from_numpy(load_digits().test.images[100:105])
MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
# The same plans with fewer channels.
NARROW = {
    "resnet18": ["model.stem_width=8", "model.widths=[8,16,32,64]"],
    "wide_resnet": ["model.depth=10", "model.widen_factor=1"],
    "preact_resnet": ["model.blocks=1"],
    "vgg": ["model.depth=11"],
    "densenet": ["model.depth=16"],
    "convmixer": ["model.width=32", "model.depth=2"],
    "vit": ["model.width=48", "model.depth=2", "model.heads=4"],
    "torchvision": ["model.name=squeezenet1_1"],
    "timm": ["model.name=test_vit"],
}
KINDS = {"cnn4_bn", "resnet", "speednet", "timm", "torchvision", "vit"}  # in the fast tests; the others add no operator
SLOW = {name: pytest.mark.slow for name in MODELS if name not in KINDS}
ZOO = {
    "resnet18": [],
    "alexnet": ["model.image_size=63"],
    "vgg16": [],
    "squeezenet1_0": [],
    "densenet161": [],
    "inception_v3": ["model.image_size=75"],
    "googlenet": [],
    "shufflenet_v2_x1_0": [],
    "mobilenet_v2": [],
    "resnext50_32x4d": [],
    "wide_resnet50_2": [],
    "mnasnet1_0": [],
    "swin_t": [],
    "vit_b_16": ["model.image_size=224"],
}


def trained(*overrides: str):
    """A checkpoint whose network tells images apart: first weights, but batch norms and head as after a training."""
    config = whole_config(*overrides)
    torch.manual_seed(0)
    network = instantiate(config["model"])
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)][-1]
    torch.nn.init.normal_(last.weight, std=0.1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # statistics are those of the one batch
        network.train()(torch.randn(16, 3, 32, 32))
    return checkpoint_of(config, network.eval())


@pytest.fixture
def exported(tmp_path, monkeypatch, capsys):
    """`exported("format=…")` is the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        return Outcome(export.main(["ckpt_path=a.ckpt", *arguments]), *capsys.readouterr())

    return call


def logits_of(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images.numpy()})[0]


def check(exported, tmp_path, name, overrides, format):
    torch.save(trained(f"model={name}", *overrides), tmp_path / "a.ckpt")
    outcome = exported(f"format={format}")
    assert outcome.code == 0, outcome.err
    expected = load(tmp_path / "a.ckpt", accelerator="cpu").logits(IMAGES).numpy()
    assert expected.std() > 1e-3  # a network that gives the same for all images would prove nothing
    if format == "onnx":
        found = logits_of(tmp_path / "a.onnx", IMAGES)
    else:
        found = torch.export.load(tmp_path / "a.pt2").module()(IMAGES).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("cnn2", "resnet", "timm") else pytest.mark.slow) for name in MODELS],
)
def test_every_model_exports_to_onnx(exported, tmp_path, name):
    check(exported, tmp_path, name, NARROW.get(name, []), "onnx")


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in MODELS])
def test_every_model_exports_to_torch_export(exported, tmp_path, name):
    check(exported, tmp_path, name, NARROW.get(name, []), "torch_export")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch_export"])
@pytest.mark.parametrize("name", ZOO)
def test_torchvisions_classifiers_export(exported, tmp_path, name, format):
    check(exported, tmp_path, "torchvision", [f"model.name={name}", *ZOO[name]], format)


@pytest.mark.parametrize("dtype", ["uint8", "float"])
def test_an_onnx_file_is_one_file_for_any_number_of_images(exported, tmp_path, dtype):
    write_checkpoint(tmp_path / "a.ckpt")
    outcome = exported(f"input={dtype}", "out=net.onnx")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert {path.name for path in tmp_path.iterdir()} == {"a.ckpt", "net.onnx"}
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model)
    (given,) = model.graph.input
    kinds = {"uint8": onnx.TensorProto.UINT8, "float": onnx.TensorProto.FLOAT}
    assert given.type.tensor_type.elem_type == kinds[dtype]
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(notes["class_names"]) == [str(digit) for digit in range(10)]
    assert notes["input"].startswith(f"images: {'uint8' if dtype == 'uint8' else 'float32'} [batch, 3, 32, 32], RGB")

    expected = load(tmp_path / "a.ckpt", accelerator="cpu").logits(IMAGES).numpy()
    inputs = IMAGES if dtype == "uint8" else IMAGES / 255
    for n in (1, 2, 5):
        np.testing.assert_allclose(logits_of("net.onnx", inputs[:n]), expected[:n], atol=1e-5)


def test_a_torch_export_file_carries_its_description(exported, tmp_path):
    write_checkpoint(tmp_path / "a.ckpt")
    assert exported("format=torch_export", "input=float").code == 0
    extra = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"])["class_names"] == [str(digit) for digit in range(10)]
    expected = load(tmp_path / "a.ckpt", accelerator="cpu").logits(IMAGES)
    for n in (1, 2, 5):
        torch.testing.assert_close(program.module()(IMAGES[:n] / 255), expected[:n], rtol=1e-5, atol=1e-5)


def test_a_state_dict_is_the_checkpoint_without_what_training_needs(exported, tmp_path, capsys):
    write_checkpoint(tmp_path / "a.ckpt")
    assert exported("format=state_dict").code == 0
    content = torch.load(tmp_path / "a.weights.ckpt", weights_only=True)
    assert "optimizer_states" not in content
    assert "resume" not in content["cifar_lightning"]
    assert content["metadata"]["class_names"] == [str(digit) for digit in range(10)]
    assert (tmp_path / "a.weights.ckpt").stat().st_size < (tmp_path / "a.ckpt").stat().st_size
    logits = [load(tmp_path / name, accelerator="cpu").logits(IMAGES) for name in ("a.ckpt", "a.weights.ckpt")]
    assert torch.equal(*logits)
    assert predict.main(["ckpt_path=a.weights.ckpt", "index=test:0"]) == 0


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_a_file_that_differs_from_the_checkpoint_is_not_kept(exported, tmp_path, monkeypatch, format):
    class Wrong(exporting.Deployed):
        def forward(self, images):
            return super().forward(images) + 0.01

    monkeypatch.setattr(exporting, "Deployed", Wrong)
    write_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "old").write_text("what was there before")
    outcome = exported(f"format={format}", "out=old")
    assert outcome.code == 1
    assert "old is not written: its logits differ by up to 0.01 from the checkpoint's" in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"a.ckpt", "old"}
    assert (tmp_path / "old").read_text() == "what was there before"


def test_it_is_checked_on_the_checkpoints_own_data_where_they_are(exported, tmp_path, cifar_folder):
    write_checkpoint(tmp_path / "a.ckpt", config=whole_config("data=cifar10", "data.val_size=0", "data.verify=false"))
    outcome = exported("format=state_dict", f"data.root={cifar_folder}")
    assert "checked on 32 images of CIFAR-10's test set: logits differ by at most " in outcome.out
    assert "checked on 32 images of handwritten digits" in exported("format=state_dict", "data.root=gone").out
    assert not (tmp_path / "gone").exists()


def test_a_network_that_can_not_be_traced_is_one_line(exported, tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, images):\n"
        "        return torch.zeros(len(images), 10) if images.sum().item() > 0 else torch.ones(len(images), 10)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {**whole_config(), "model": {"_target_": "my_models.Net"}}
    write_checkpoint(tmp_path / "a.ckpt", config=config)
    outcome = exported("format=torch_export", "trust=my_models")
    assert outcome.code == 1
    assert outcome.err.startswith("error: format=torch_export: can't export this network: ")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["format=onx"], "did you mean onnx?"),
        (["input=int8"], "did you mean uint8?"),
        (["output=a.onnx"], "did you mean out?"),
        (["out=."], "is a folder"),
        (["out=a.ckpt"], "is the checkpoint itself"),
        (["out=a.ckpt/b.onnx"], "can't be written"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(exported, tmp_path, arguments, message):
    write_checkpoint(tmp_path / "a.ckpt")
    outcome = exported(*arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_the_way_to_get_it(exported, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    write_checkpoint(tmp_path / "a.ckpt")
    outcome = exported()
    assert outcome == Outcome(1, "", f"error: format=onnx needs {package}: pip install 'cifar-lightning[export]'\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
