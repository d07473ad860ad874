"""Variants of the training split reach runs, resumes, tables and checksums, and leave validation and test alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.run_files import load_runs
from cifar_lightning.reporting.summary import summarize

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "logger=none", "trainer.max_epochs=1"]


def digits(**keys):
    built = ImageDataModule(name="digits", val_size=0.2, batch_size=8, **keys)
    built.setup()
    return built


@pytest.mark.parametrize(
    "keys",
    [
        {"train_size": 200},
        {"train_size": 0.5},
        {"imbalance": 10},
        {"label_noise": 0.4},
        {"train_size": 400, "imbalance": 5, "label_noise": 0.2},
    ],
    ids=str,
)
def test_only_the_training_split_changes(keys):
    whole, varied = digits(), digits(**keys)
    for name in ("val", "test"):
        assert np.array_equal(getattr(whole, name).images, getattr(varied, name).images)
        assert np.array_equal(getattr(whole, name).labels, getattr(varied, name).labels)
    rows = [whole.train_indices.tolist().index(i) for i in varied.train_indices]
    assert np.array_equal(varied.train.images, whole.train.images[rows])
    wrong = float((varied.train.labels != whole.train.labels[rows]).float().mean())
    assert wrong == pytest.approx(keys.get("label_noise", 0.0), abs=0.01)
    assert varied.checksum != whole.checksum
    assert digits(**keys).checksum == varied.checksum
    assert digits(**keys, variant_seed=1).checksum != varied.checksum


def test_the_counts_are_those_asked_for():
    assert len(digits(train_size=200).train) == 200
    assert set(digits(train_size=100).train_indices) < set(digits(train_size=300).train_indices)
    counts = np.bincount(digits(imbalance=10).train.labels)
    assert counts[9] == counts.max() // 10


def test_folds_take_the_place_of_the_validation_split():
    folds = [digits(folds=4, fold=fold) for fold in range(4)]
    assert sorted(np.concatenate([data.val_indices for data in folds])) == list(range(1437))
    assert all(set(data.val_indices).isdisjoint(data.train_indices) for data in folds)


def test_a_run_keeps_its_variant_when_it_resumes_and_is_evaluated(command):
    outcome = command(*QUICK, "data.train_size=200", "data.label_noise=0.3", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    first = json.loads(Path("run/metrics.json").read_text())
    assert {"data.train_size=200", "data.label_noise=0.3"} < set(first["overrides"])
    outcome = command("ckpt_path=run", "trainer.max_epochs=2", "data.train_size=150")
    assert outcome.code == 1
    assert "data.train_size=150: the checkpoint's run has 200" in outcome.err
    assert command("ckpt_path=run", "trainer.max_epochs=2").code == 0
    second = json.loads(Path("run/metrics.json").read_text())
    assert second["data_checksum"] == first["data_checksum"]
    assert command("evaluate", "run", "split=val").code == 0


@pytest.mark.slow
def test_cross_validation_is_one_row(command):
    outcome = command("-m", *QUICK, "data.folds=3", "data.fold=0,1,2", "hydra.sweep.dir=cv")
    assert outcome.code == 0, outcome.err
    (setting,) = summarize(load_runs(["cv"])[0]).settings
    assert len(setting.runs) == 3


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("data.label_noise=1.2", "data.label_noise=1.2: must be a number from 0 to 1"),
        ("data.imbalance=0.5", "data.imbalance=0.5: must be a number of at least 1"),
        ("data.imbalance=5000", "data.imbalance=5000 leaves a class without images"),
        ("data.train_size=5000", "data.train_size=5000: the training split has only 1,150 images"),
        ("data.train_size=5 data.batch_size=2", "at least one for each of the 10 classes"),
        ("data.folds=3 data.fold=3", "data.fold=3: with data.folds=3 it must be from 0 to 2"),
        ("data.folds=500", "data.folds=500: the smallest class has only"),
        ("data.label_noise=0.2 data.label_noise_type=asymmetric", "not defined for this data set"),
        ("data.imbalance=2 data.imbalance_type=linear", "data.imbalance_type=linear: must be one of exp, step"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_one_line_and_leaves_no_folder(command, typed, message):
    outcome = command(*QUICK, *typed.split())
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert message in outcome.err
    assert list(command.folder.iterdir()) == []


def test_asymmetric_noise_of_cifar10_flips_look_alikes(cifar_folder):
    def module(**keys):
        built = ImageDataModule(root=cifar_folder, verify=False, val_size=0, batch_size=8, **keys)
        built.setup()
        return built

    true = module().train.labels
    given = module(label_noise=0.5, label_noise_type="asymmetric").train.labels
    names = module().class_names
    pairs = {(names[a], names[b]) for a, b in zip(true[true != given], given[true != given], strict=True)}
    assert pairs == {("truck", "automobile"), ("bird", "airplane"), ("deer", "horse"), ("cat", "dog"), ("dog", "cat")}
    with pytest.raises(UserError, match="not defined for this data set"):
        digits(label_noise=0.5, label_noise_type="asymmetric")


def test_unequal_classes_are_tested_apart(command):
    words = [*QUICK, "data.imbalance=20", "data.val_size=0", "hydra.run.dir=run"]
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    metrics = json.loads(Path("run/metrics.json").read_text())
    accuracies = list(metrics["test/acc_per_class"].values())
    counts = list(metrics["train_images_per_class"].values())
    assert (counts[0], counts[9]) == (142, 7)
    many = [accuracy for accuracy, count in zip(accuracies, counts, strict=True) if count > 100]
    assert metrics["test/acc_many"] == pytest.approx(sum(many) / len(many))
    for out in (outcome.out, command("evaluate", "run").out):
        assert "few-shot classes" in out
        assert "training images" in out
