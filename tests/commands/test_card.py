"""The score card: every part through the command, and what bad input is answered."""

import json

import numpy as np
import pytest
import torch
from helpers.checkpoints import DIGITS, whole_config, write_checkpoint

from cifar_lightning.api import load
from cifar_lightning.checkpoints.load import load_data
from cifar_lightning.data.digits import load_digits
from cifar_lightning.reporting.card_page import value
from cifar_lightning.training.metrics import calibration_error

CONFIG = whole_config("data.val_size=100")


@pytest.fixture
def checkpoint(command):
    return write_checkpoint(command.folder / "a.ckpt", config=CONFIG)


def card_of(command, *arguments):
    """The card.json that the command writes."""
    outcome = command("evaluate", "a.ckpt", "out=card", *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    return json.loads((command.folder / "card" / "card.json").read_text()), outcome.out


def test_parts_by_name_are_written_printed_and_drawn(checkpoint, command):
    card, out = card_of(command, "card=[selective,calibration]")
    assert list(card["parts"]) == ["calibration", "selective"]
    folder = command.folder / "card"
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert figures == {"reliability", "reliability_scaled", "risk_coverage"}
    page, short = (folder / "card.html").read_text(), (folder / "card.md").read_text()
    assert page.count("<img") == 3
    for part in card["parts"].values():
        for measure in part["measures"].values():
            assert measure["low"] <= measure["value"] <= measure["high"]
            assert measure["images"] == 360
            assert measure["words"] in page.replace("\N{NO-BREAK SPACE}", " ")
            assert measure["words"] in short
            assert value(measure) in out, out


def test_calibration_is_that_of_the_logits_and_the_temperature_is_kept_on_request(checkpoint, command):
    before = load(checkpoint)
    data = load_data(CONFIG)
    card, _ = card_of(command, "card=calibration", "keep_temperature=true")
    logits = before.logits(data.test.images).double()
    measured, divisor = card["parts"]["calibration"]["measures"], card["parts"]["calibration"]["details"]["temperature"]
    for key, scale in (("ece", 1.0), ("ece_scaled", divisor)):
        confidence, predicted = (logits / scale).softmax(1).max(1)
        assert measured[key]["value"] == pytest.approx(calibration_error(confidence, predicted == data.test.labels))
    after = load(checkpoint)
    images = data.test.images[:8]
    expected = (before.logits(images).double() / divisor).softmax(1).float()
    assert torch.allclose(after.predict(images).probabilities, expected)
    assert torch.equal(after.logits(images), before.logits(images))


def test_accuracy_without_excluded_images_and_by_corrected_labels(checkpoint, command):
    labels, predicted = (
        torch.from_numpy(load_digits().test.labels), load(checkpoint).predict(load_data(CONFIG).test.images).classes
    )  # fmt: skip
    index, wrong = {"data": "digits", "split": "test"}, (predicted != labels).nonzero()[:, 0].tolist()
    (command.folder / "leave.json").write_text(json.dumps(index | {"indices": wrong[:20]}))
    new = {str(i): DIGITS[predicted[i]] for i in wrong[:30]}
    (command.folder / "new.json").write_text(json.dumps(index | {"labels": new}))
    card, _ = card_of(command, "card=accuracy", "exclude=leave.json", "corrected=new.json")
    found = {key: (m["value"], m["images"]) for key, m in card["parts"]["accuracy"]["measures"].items()}
    right = 360 - len(wrong)
    assert found == {
        "acc": (pytest.approx(right / 360), 360),
        "acc_without_excluded": (pytest.approx(right / 340), 340),
        "acc_corrected": (pytest.approx((right + 30) / 360), 360),
    }
    np.save(command.folder / "all.npy", predicted.numpy())
    card, _ = card_of(command, "card=accuracy", "corrected=all.npy")
    assert card["parts"]["accuracy"]["measures"]["acc_corrected"]["value"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["card=[calibrtion]"], "there is no part calibrtion; did you mean calibration?"),
        (["card=ture"], "did you mean true?"),
        (["card=[]"], "there is no part (empty)"),
        (["card=true", "split=val"], "split has no effect with card"),
        (["card=true", "tta=flip"], "tta has no effect with card"),
        (["card=true", "card_images=1"], "card_images=1: must be an integer of at least 2, or all"),
        (["card=true", "card_images=many"], "must be an integer of at least 2"),
        (["card_images=10"], "card_images has no effect without card=true"),
        (["card=accuracy", "corrected=gone.json"], "corrected=gone.json: there is no such file"),
        (["card=accuracy", "corrected=a.ckpt"], "corrected=a.ckpt: "),
        (["card=accuracy", "corrected=three.npy"], "give one integer for each of the 360 images"),
        (["card=accuracy", "corrected=class.json"], "zebra is none of the 10 classes"),
        (["card=accuracy", "corrected=image.json"], "360 is not one of the 360 images"),
        (["card=accuracy", "corrected=other.json"], "has no labels of test images of digits"),
        (["card=selective", "keep_temperature=true"], "keep_temperature=true needs the part calibration"),
        (["card=calibration", "keep_temperature=true"], "has no validation split"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(command, arguments, message):
    folder = command.folder
    write_checkpoint(folder / "a.ckpt", config=whole_config("data.val_size=0"))
    np.save(folder / "three.npy", np.arange(3))
    index = {"data": "digits", "split": "test"}
    for name, content in (
        ("class", index | {"labels": {"0": "zebra"}}), ("image", index | {"labels": {"360": 1}}),
        ("other", {"data": "cifar10", "split": "test", "labels": {}}),
    ):  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(content))
    before = set(folder.iterdir())
    outcome = command("evaluate", "a.ckpt", *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert set(folder.iterdir()) == before
