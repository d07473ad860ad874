"""Several checkpoints are one classifier: the mean of their probabilities, wherever a checkpoint can be given."""

import csv
import json
import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.checkpoints import checkpoint_of, whole_config, write_checkpoint
from scipy.spatial.distance import jensenshannon
from torch.nn.functional import cross_entropy

from cifar_lightning.api import load
from cifar_lightning.checkpoints.load import load_classifier, load_data
from cifar_lightning.config.compose import instantiate
from cifar_lightning.data.digits import load_digits
from cifar_lightning.errors import UserError

IMAGES = torch.from_numpy(load_digits().test.images[:40])
NAMES = ("a.ckpt", "b.ckpt", "c,d=1.ckpt")


def member(path, seed, mean=0.5, *overrides):
    """A checkpoint of its own weights and normalization, whose predictions differ from the others'."""
    config = whole_config("data.val_size=50", f"seed={seed}", *overrides)
    torch.manual_seed(seed)
    network = instantiate(config["model"])
    content = checkpoint_of(config, network)
    for tensor in content["state_dict"].values():
        tensor.mul_(1 + seed).add_(0.05 * torch.randn(tensor.shape))
    content["cifar_lightning"].update(mean=[mean] * 3, std=[0.1 + mean] * 3)
    torch.save(content, path)


@pytest.fixture
def members(command):
    for i, name in enumerate(NAMES):
        member(command.folder / name, i, 0.2 + 0.1 * i)
    return command


def probabilities(images, tta=False):
    """Each member's, [M, N, K], computed without the code under test."""
    found = []
    for name in NAMES:
        classifier = load_classifier(name)
        with torch.no_grad():
            mean, std = (torch.tensor(values)[:, None, None] for values in (classifier.mean, classifier.std))
            seen = (images / 255 - mean) / std
            logits = classifier.network(seen)
            if tta:
                logits = (logits + classifier.network(seen.flip(-1))) / 2
        found.append(logits.double().softmax(1))
    return torch.stack(found)


def test_a_list_of_checkpoints_predicts_the_mean_probabilities(members):
    ensemble = load(list(NAMES), accelerator="cpu")
    expected = probabilities(IMAGES)
    assert len(set(expected.argmax(2)[:, 0].tolist() + expected.argmax(2)[:, 1].tolist())) > 1  # they do differ
    torch.testing.assert_close(ensemble.predict(IMAGES).probabilities.double(), expected.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ensemble.logits(IMAGES).double(), expected.mean(0).log(), rtol=1e-3, atol=1e-4)
    assert ensemble.class_names == tuple("0123456789")


def test_a_list_of_one_is_that_checkpoint(members):
    assert torch.equal(load(["a.ckpt"]).logits(IMAGES), load("a.ckpt").logits(IMAGES))
    with pytest.raises(UserError, match="name a checkpoint or more"):
        load([])


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_evaluate_has_the_figures_of_each_member_and_of_the_whole(members, tta):
    outcome = members("evaluate", f"ckpt_path=[{','.join(NAMES)}]", "split=val", f"tta={tta}", "out=here")
    assert outcome.code == 0, outcome.err
    part = load_data(whole_config("data.val_size=50")).val
    each = probabilities(part.images, tta == "flip")
    whole = each.mean(0)
    record = json.loads((members.folder / "here" / "evaluation.json").read_text())
    for found, expected in zip([*record["members"], record], [*each, whole], strict=True):
        assert found["val/acc"] == (expected.argmax(1) == part.labels).double().mean().item()
        assert found["val/loss"] == pytest.approx(cross_entropy(expected.log(), part.labels).item(), rel=1e-4)
    assert record["checkpoint"] == list(NAMES) == [m["checkpoint"] for m in record["members"]]
    assert [m["seed"] for m in record["members"]] == [0, 1, 2]
    assert record["parameters"] == sum(m["parameters"] for m in record["members"])
    shown = [line for line in outcome.out.splitlines() if line.startswith(" ensemble ")]
    assert [f"{100 * record['val/acc']:.2f} %" in line for line in shown] == [True]

    classes = each.argmax(2).numpy()
    pairs = [(classes[i] != classes[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert record["disagreement"] == pytest.approx(np.mean(pairs))
    assert record["disagreement_of_pairs"][0][2] == record["disagreement_of_pairs"][2][0] == pairs[1]

    with (members.folder / "here" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction"] for row in rows] == [str(i) for i in whole.argmax(1).tolist()]
    assert [float(row["confidence"]) for row in rows] == pytest.approx(whole.amax(1).tolist(), rel=1e-3, abs=1e-6)


def test_the_divergence_is_scipys(members):
    for name in NAMES[2:]:
        (members.folder / name).unlink()
    assert members("evaluate", "a.ckpt", "b.ckpt", "split=val", "out=here").code == 0
    record = json.loads((members.folder / "here" / "evaluation.json").read_text())
    images = load_data(whole_config("data.val_size=50")).val.images
    first, second = (load(name, accelerator="cpu").predict(images).probabilities.double() for name in NAMES[:2])
    expected = jensenshannon(first.numpy(), second.numpy(), axis=1) ** 2  # scipy gives the square root
    assert 0 < record["js_divergence"] <= math.log(2)
    assert record["js_divergence"] == pytest.approx(expected.mean(), rel=1e-3)


def test_predict_shows_the_mean_probabilities(members):
    outcome = members("predict", *NAMES, "index=test:0,1,2", "out=here.json")
    assert outcome.code == 0, outcome.err
    found = [i["probabilities"] for i in json.loads((members.folder / "here.json").read_text())["images"]]
    expected = probabilities(IMAGES[:3]).mean(0)
    np.testing.assert_allclose([list(p.values()) for p in found], expected, atol=1e-5)
    assert (members.folder / "ensemble_of_3_predictions.png").is_file()


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
@pytest.mark.parametrize("dtype", ["uint8", pytest.param("float", marks=pytest.mark.slow)])
def test_export_writes_one_file_that_averages_the_members(members, format, dtype):
    outcome = members("export", f"ckpt_path=['a.ckpt', b.ckpt, {NAMES[2]}]", f"format={format}", f"input={dtype}")
    assert outcome.code == 0, outcome.err
    assert "their softmax are the mean probabilities of 3 networks" in outcome.out
    assert "from the ensemble's" in outcome.out
    given = IMAGES if dtype == "uint8" else IMAGES / 255
    if format == "onnx":
        session = onnxruntime.InferenceSession("ensemble_of_3.onnx", providers=["CPUExecutionProvider"])
        logits = torch.from_numpy(session.run(["logits"], {"images": given.numpy()})[0])
        notes = {entry.key: entry.value for entry in onnx.load("ensemble_of_3.onnx").metadata_props}
        assert json.loads(notes["checkpoint"]) == list(NAMES)
        assert notes["normalization"].count("mean") == 3
    else:
        logits = torch.export.load("ensemble_of_3.pt2").module()(given)
    torch.testing.assert_close(logits.double().softmax(1), probabilities(IMAGES).mean(0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["0", "1", "two", *"3456789"]}, "other classes, such as two and 2"),
        ({"class_names": ["0", "1"]}, "2 classes and 10"),
        ({"image_shape": [3, 28, 28]}, "images of shape (3, 28, 28) and (3, 32, 32)"),
        ({"data_checksum": "abc"}, "other files of data digits (checksums abc and def)"),
    ],
)
def test_members_that_can_not_be_averaged_are_refused_by_name(members, change, message):
    for name, changed in (("a.ckpt", {"data_checksum": "def"}), ("b.ckpt", change)):
        content = torch.load(name, weights_only=True)
        content["cifar_lightning"].update(changed)
        torch.save(content, name)
    for words in (["evaluate"], ["predict", "index=test:0"], ["export", "format=torch_export"]):
        outcome = members(*words, "ckpt_path=[a.ckpt,b.ckpt]")
        assert outcome.code == 1
        assert outcome.err == f"error: b.ckpt and a.ckpt can't be averaged: they have {message}\n"
    assert sorted(path.name for path in members.folder.iterdir()) == sorted(NAMES)


def test_members_of_other_data_are_refused(members):
    config = whole_config("data=cifar10")
    write_checkpoint(members.folder / "b.ckpt", config=config)
    outcome = members("evaluate", "ckpt_path=[a.ckpt,b.ckpt]")
    assert outcome.err == "error: b.ckpt and a.ckpt can't be averaged: they have data cifar10 and digits\n"


def test_members_of_other_splits_share_the_test_set_only(members):
    member(members.folder / "b.ckpt", 5, 0.5, "data.split_seed=7")
    outcome = members("evaluate", "ckpt_path=[a.ckpt,b.ckpt]", "split=val")
    assert outcome.code == 1
    assert "b.ckpt was trained with data.split_seed=7, a.ckpt with data.split_seed=42" in outcome.err
    assert members("evaluate", "ckpt_path=[a.ckpt,b.ckpt]").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "ckpt_path=[a.ckpt,a.ckpt]"], "a.ckpt is named twice"),
        (["evaluate", "ckpt_path=[a.ckpt,gone.ckpt]"], "ckpt_path=gone.ckpt: there is no such file"),
        (["evaluate", "ckpt_path=[a.ckpt,]"], "a path is missing; write ckpt_path=[A,B]"),
        (["evaluate", "ckpt_path=[]"], "a path is missing"),
        (["export", "a.ckpt", "b.ckpt", "format=state_dict"], "format=state_dict is for one checkpoint"),
        (["export", "a.ckpt", "b.ckpt", "out=b.ckpt"], "is the checkpoint itself"),
        (["data", "audit", "data=digits", "ckpt_path=[a.ckpt,b.ckpt]"], "takes one checkpoint"),
    ],
)
def test_bad_lists_end_in_one_line_and_leave_nothing(members, words, message):
    outcome = members(*words)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert message in outcome.err
    assert sorted(path.name for path in members.folder.iterdir()) == sorted(NAMES)
