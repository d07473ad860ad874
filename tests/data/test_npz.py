"""The user's own arrays train, in either order of axes, and are refused in one line where they can't be used."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.digits import load_digits

QUICK = ["data=npz", "data.root=own.npz", "model=cnn2", "augmentation=none", "logger=none", "trainer.max_epochs=1"]
DIGITS = load_digits()
TRAIN, TEST = DIGITS.train, DIGITS.test
ARRAYS = {
    "train_images": TRAIN.images[:300],
    "train_labels": TRAIN.labels[:300],
    "test_images": TEST.images[:50],
    "test_labels": TEST.labels[:50],
}


def module(path, **keys):
    built = ImageDataModule(name="npz", root=path, batch_size=2, **{"val_size": None} | keys)
    built.setup()
    return built


@pytest.mark.parametrize(
    ("change", "channels"),
    [
        (lambda images: images, 3),
        (lambda images: images.transpose(0, 2, 3, 1), 3),
        (lambda images: images[:, :1], 1),
        (lambda images: images[:, 0], 1),
        (lambda images: images[:, 0, :, :, None], 1),
    ],
    ids=["NCHW", "NHWC", "N1HW", "NHW", "NHW1"],
)
def test_any_order_of_axes(tmp_path, change, channels):
    path = tmp_path / "own.npz"
    np.savez(path, **{key: change(array) if "images" in key else array for key, array in ARRAYS.items()})
    data = module(path, val_size=0)
    assert torch.equal(data.train.images, torch.from_numpy(ARRAYS["train_images"][:, :channels]))
    assert data.train.labels.tolist() == ARRAYS["train_labels"].tolist()
    assert data.class_names == tuple("0123456789")


def test_validation_images_and_class_names_of_the_file_are_used(tmp_path):
    names = [f"number {i}" for i in range(10)]
    own = {"val_images": TRAIN.images[300:400], "val_labels": TRAIN.labels[300:400, None], "class_names": names}
    np.savez(tmp_path / "own.npz", **ARRAYS, **own)
    data = module(tmp_path / "own.npz")
    assert torch.equal(data.val.images, torch.from_numpy(own["val_images"]))
    assert data.class_names == tuple(names)


def test_a_run_through_the_command(command):
    np.savez("own.npz", **ARRAYS)
    outcome = command(*QUICK, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert command("evaluate", "run").code == 0


WRONG = {
    "has no array test_labels, only test_images, train_images": {"train_labels": None, "test_labels": None},
    "train_images are float32; give uint8": {"train_images": ARRAYS["train_images"].astype(np.float32)},
    "300 train_images, but 299 train_labels": {"train_labels": ARRAYS["train_labels"][:299]},
    "train_labels must be integers [N], got float64 [300]": {"train_labels": ARRAYS["train_labels"] / 2},
    "test_labels hold 10, but there are 10 classes, from 0": {"test_labels": ARRAYS["test_labels"] + 1},
    "train_images have the shape [300, 3, 32, 16]": {"train_images": ARRAYS["train_images"][..., :16]},
    "the splits' images differ in shape (train [3, 32, 32], test [3, 16, 16])": {
        "test_images": ARRAYS["test_images"][..., :16, :16]
    },
    "it has an array of Python objects, such as images of different sizes": {
        "train_images": np.array([np.zeros((i, i, 3)) for i in range(300)], dtype=object)
    },
    "class 3 has no training images": {
        "train_labels": np.where(ARRAYS["train_labels"] == 3, 4, ARRAYS["train_labels"])
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_arrays_that_cant_be_used_are_one_line(command, message):
    arrays = {key: array for key, array in (ARRAYS | WRONG[message]).items() if array is not None}
    if "has no array" in message:
        arrays["train_labels"] = ARRAYS["train_labels"]
        message = "has no array test_labels, only test_images, train_images"
    np.savez("own.npz", **arrays)
    refused(command(*QUICK), message)
    assert command.runs() == []


def refused(outcome, message):
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_another_file_is_one_line(command):
    Path("own.npz").write_text("no archive")
    refused(command(*QUICK), "own.npz is not an .npz file of plain arrays")
    np.save("own.npy", ARRAYS["train_images"])
    refused(command(*QUICK, "data.root=own.npy"), "own.npy holds one array: it must be an .npz file of several")
    refused(command(*QUICK, "data.root=none.npz"), "data.root=none.npz: no such file; data=npz reads an .npz file")
