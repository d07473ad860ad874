"""The score card: every part through the command, and what bad input is answered."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.checkpoints import DIGITS, whole_config, write_checkpoint
from sklearn.metrics import roc_auc_score

from cifar_lightning.api import load
from cifar_lightning.checkpoints.load import load_data
from cifar_lightning.commands.card import PARTS
from cifar_lightning.data.digits import load_digits
from cifar_lightning.evaluation import cost, people
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
        (["card=ood", "ood=[cifar1000]"], "ood=[cifar1000]: there is no data set cifar1000; did you mean cifar100?"),
        (["card=ood", "ood=[]"], "there is no data set (empty)"),
        (["card=ood", "ood=[digits]"], "ood=digits: the checkpoint was trained on it"),
        (["card=cost", "ood=[svhn]"], "ood has no effect without the part ood"),
        (["card=ood", "ood=[npz]"], "say where the images of npz are, ood=[npz:PATH]"),
        (["card=ood", "ood=[npz:a.ckpt]"], "a.ckpt"),
        (["ood=[svhn]"], "ood has no effect without card=true"),
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


SLIGHT = ("card_images=8", "ood=[digits]")


@pytest.fixture
def on_cifar(command, cifar_folder, monkeypatch):
    """A checkpoint of a small CIFAR-10 with everything beside it that others publish, in their formats."""
    root = command.folder / "data"
    shutil.copytree(cifar_folder, root)
    config = whole_config("data=cifar10", "data.val_size=60", "data.verify=false", f"data.root={root}")
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    path = write_checkpoint(command.folder / "a.ckpt", config=config, class_names=names)
    test = load_data(config).test
    pixels, labels = test.images.permute(0, 2, 3, 1).numpy(), test.labels.numpy()
    (root / "CIFAR-10-C").mkdir()
    for kind in ("fog", "frost"):
        np.save(root / "CIFAR-10-C" / f"{kind}.npy", np.concatenate([pixels // level for level in (1, 2, 3, 4, 5)]))
    np.save(root / "CIFAR-10-C" / "labels.npy", np.tile(labels, 5).astype(np.uint8))
    np.save(root / "cifar10.1_v6_data.npy", pixels[:40])
    np.save(root / "cifar10.1_v6_labels.npy", labels[:40].astype(np.int32))
    (root / "CIFAR-10.2").mkdir()
    np.savez(root / "CIFAR-10.2" / "cifar102_test.npz", images=pixels[40:], labels=labels[40:])
    np.save(root / people.FILE, np.eye(10, dtype=np.int64)[labels] * 51)
    monkeypatch.setattr(people, "TEST_SET", people.test_set(test))
    monkeypatch.setattr(cost, "SECONDS", 0)
    return path, test


def test_the_whole_card_has_every_part_and_its_numbers_agree_with_each_other(on_cifar, command):
    path, test = on_cifar
    card, out = card_of(command, "card=true", *SLIGHT)
    assert (list(card["parts"]), card["left_out"]) == (list(PARTS), {})
    value = {
        key: measure["value"] for part in reversed(card["parts"].values()) for key, measure in part["measures"].items()
    }
    hits = load(path).predict(test.images).classes == test.labels
    assert value["acc"] == value["acc_float32"] == value["acc_majority"] == pytest.approx(hits.double().mean().item())
    assert value["acc_cifar10_1"] == pytest.approx(hits[:40].double().mean().item())
    assert value["acc_cifar10_2"] == pytest.approx(hits[40:].double().mean().item())
    assert value["entropy_people"] == 0
    assert value["cross_entropy_people"] == pytest.approx(value["nll"])
    assert value["parameters"] == sum(p.numel() for p in load(path).module.network.parameters())
    assert value["acc_pgd_linf_8"] <= value["acc_pgd_linf_2"] <= value["acc_clean"]
    published = card["parts"]["test_sets"]
    assert set(published["details"]["accuracies"]) == {"fog", "frost"}
    assert published["details"]["accuracies"]["fog"][0] == published["measures"]["acc_clean"]["value"]
    assert published["measures"]["acc_clean"]["images"] == 8
    assert len(card["parts"]["corruptions"]["details"]["accuracies"]) == 14
    assert "left out" not in out
    page = (command.folder / "card" / "card.html").read_text()
    assert page.count("<img") == 5
    assert page.count("<section") == len(PARTS) + 1


def test_what_is_not_there_is_left_out_of_a_whole_card_and_refused_by_name(checkpoint, command):
    outcome = command("evaluate", "a.ckpt", "card=people", "out=card")
    assert outcome.err.startswith("error: card=people: there is no cifar10h-counts.npy (CIFAR-10H) in ")
    outcome = command("evaluate", "a.ckpt", "card=test_sets")
    assert (
        outcome.err == "error: card=test_sets: CIFAR-10.1, CIFAR-10.2 and CIFAR-10-C have the classes of cifar10 only\n"
    )
    outcome = command("evaluate", "a.ckpt", "card=ood", "data.root=nowhere")
    assert "name some with ood=[NAME], or ood=[NAME:FOLDER]" in outcome.err
    assert [path.name for path in command.folder.iterdir()] == ["a.ckpt"]


def test_other_data_are_told_from_the_own_at_another_folder_and_in_the_own_shape(checkpoint, command, cifar_folder):
    card, _ = card_of(command, "card=ood", f"ood=[cifar10:{cifar_folder}]")
    measures = card["parts"]["ood"]["measures"]
    classifier = load(checkpoint)
    own, other = (load_data(config).test for config in (CONFIG, cifar_config(cifar_folder)))
    scores = [classifier.predict(split.images).probabilities.amax(1) for split in (own, other)]
    truth = np.repeat([1, 0], [len(own), len(other)])
    expected = roc_auc_score(truth, torch.cat(scores))
    assert measures["auroc_max_softmax_cifar10"]["value"] == pytest.approx(expected, abs=1e-4)
    assert measures["auroc_max_softmax_cifar10"]["images"] == 460


def cifar_config(root):
    return whole_config("data=cifar10", "data.val_size=0", "data.verify=false", f"data.root={root}")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("CIFAR-10-C/fog.npy", b"not an array", "fog.npy can't be read"),
        ("CIFAR-10-C/fog.npy", np.zeros((499, 32, 32, 3), np.uint8), "not five times the test set"),
        ("CIFAR-10-C/labels.npy", np.full(500, 11, np.uint8), "labels from 11 to 11, not from 0 to 9"),
        ("cifar10.1_v6_data.npy", np.zeros((40, 32, 32), np.uint8), "not uint8 [N, 32, 32, 3]"),
        ("cifar10.1_v6_data.npy", np.array([{}], object), "cifar10.1_v6_data.npy can't be read"),
        ("CIFAR-10.2/cifar102_test.npz", b"PK", "cifar102_test.npz can't be read"),
    ],
)
def test_damaged_files_of_others_end_in_one_line(on_cifar, command, file, content, message):
    path = command.folder / "data" / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    outcome = command("evaluate", "a.ckpt", "card=test_sets", "card_images=8")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert message in outcome.err
    assert not (command.folder / "a_card").exists()


def test_a_card_is_one_look_at_the_test_set_and_a_seal_keeps_it_closed(command):
    path = write_checkpoint(command.folder / "a.ckpt", config=whole_config("data.val_size=0", "data.sealed=true"))
    outcome = command("evaluate", "a.ckpt", "card=selective")
    assert (outcome.code, outcome.out) == (1, "")
    assert "this run's test set is sealed" in outcome.err
    assert [file.name for file in command.folder.iterdir()] == [path.name]
    card, out = card_of(command, "card=selective", "unseal=why not")
    (line,) = (command.folder / "logs" / "test_ledger.jsonl").read_text().splitlines()
    look = json.loads(line)
    assert (look["hash"], look["unseal"], look["images"]) == (card["test_look"], "why not", 360)
    assert "Test set of digits: looked at once by 1 setting." in out
    assert "looked at once by 1 setting" in (command.folder / "card" / "card.html").read_text()
    card_of(command, "card=selective")
    assert len((command.folder / "logs" / "test_ledger.jsonl").read_text().splitlines()) == 2


def test_parts_that_are_all_right_still_have_an_interval(command, monkeypatch):
    labels = torch.from_numpy(load_digits().test.labels)
    sure = 9 * torch.nn.functional.one_hot(labels, 10).float()
    monkeypatch.setattr("cifar_lightning.evaluation.inference.Classifier.logits", lambda self, images: sure)
    write_checkpoint(command.folder / "a.ckpt", config=whole_config("data.val_size=0"))
    card, _ = card_of(command, "card=selective,accuracy")
    for part, key, n in (("accuracy", "acc", 360), ("selective", "acc_at_90", 324)):
        measure = card["parts"][part]["measures"][key]
        assert (measure["value"], measure["high"]) == (1, 1)
        assert measure["low"] == pytest.approx(n / (n + 1.959964**2))  # Wilson's, for n of n
