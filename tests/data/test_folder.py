"""A folder of the user's own images trains, is cached, and is refused in one line where it can't be used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.image_folders import write_folder
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from cifar_lightning.data import folder as reader
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.errors import UserError

QUICK = ["data=folder", "data.root=photos", "data.batch_size=8", "model=cnn2", "augmentation=none", "logger=none"]


def module(root, **keys):
    built = ImageDataModule(name="folder", root=root, batch_size=2, **{"val_size": None} | keys)
    built.setup()
    return built


@pytest.mark.parametrize("size", [32, 48])
def test_images_labels_and_names_are_torchvisions(tmp_path, size):
    write_folder(tmp_path, {"train": 6, "val": 2, "test": 3}, size=size)
    data = module(tmp_path, image_size=size)
    for split, ours in (("train", data.train), ("val", data.val), ("test", data.test)):
        theirs = ImageFolder(str(tmp_path / split))
        assert list(data.class_names) == theirs.classes
        assert torch.equal(ours.images, torch.stack([pil_to_tensor(image) for image, _ in theirs]))
        assert ours.labels.tolist() == theirs.targets


def test_classes_are_in_natural_order(tmp_path):
    for name in ("b10", "b9", "a"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{i}.png")
    assert module(tmp_path).class_names == ("a", "b9", "b10")


@pytest.mark.parametrize("split", ["", "train"])
def test_without_test_and_val_a_fifth_of_each_class_is_taken_for_each(tmp_path, split):
    data = module(write_folder(tmp_path, {split: 20}))
    assert np.bincount(data.test.labels).tolist() == [4, 4, 4]
    assert (len(data.val), len(data.train)) == (10, 38)
    assert np.ptp(np.bincount(data.val.labels)) <= 1
    other = module(tmp_path, split_seed=1)
    assert torch.equal(data.test.images, other.test.images)
    assert not torch.equal(data.val.images, other.val.images)


def test_a_typed_val_size_splits_train_and_val_anew(tmp_path):
    write_folder(tmp_path, {"train": 10, "val": 10, "test": 2})
    assert len(module(tmp_path).val) == 30
    anew = module(tmp_path, val_size=6)
    assert (len(anew.val), len(anew.train)) == (6, 54)


def test_the_cache_is_read_as_long_as_the_files_are_the_same(tmp_path, monkeypatch):
    write_folder(tmp_path, {"train": 6, "test": 3})
    first = module(tmp_path)
    reads = []
    original = reader.read_images
    monkeypatch.setattr(
        reader, "read_images", lambda paths, *args, **keys: reads.append(1) or original(paths, *args, **keys)
    )
    monkeypatch.setattr("cifar_lightning.data.splits._latest", None)
    again = module(tmp_path)
    assert reads == []
    assert (again.checksum, torch.equal(again.train.images, first.train.images)) == (first.checksum, True)
    changed = next((tmp_path / "train" / "digit 0").iterdir())
    Image.new("RGB", (9, 9), "red").save(changed)
    assert module(tmp_path).checksum != first.checksum
    assert reads == [1]


@pytest.mark.parametrize("damage", ["cut short", "another array"])
def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch, damage):
    checksum = module(write_folder(tmp_path, {"train": 6, "test": 3})).checksum
    monkeypatch.setattr("cifar_lightning.data.splits._latest", None)
    cache = tmp_path / ".images-32-crop.npz"
    if damage == "cut short":
        cache.write_bytes(cache.read_bytes()[:-500])
    else:
        with np.load(cache) as saved:
            np.savez(cache, **{**saved, "images": saved["images"] + 1})
    assert module(tmp_path).checksum == checksum


def test_a_run_through_the_command_and_a_look_at_its_predictions(command):
    write_folder(Path("photos"), {"train": 40, "test": 10})
    outcome = command(*QUICK, "trainer.max_epochs=2", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "photos: 3 classes of 40 to 40 training images" in outcome.out
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert list(metrics["test/acc_per_class"]) == ["digit 0", "digit 1", "digit 2"]
    assert command("predict", "run", "index=test:0,1").code == 0
    assert command("evaluate", "run").code == 0
    assert command("data", "data=folder", "data.root=photos").code == 0


def test_broken_files_are_named_and_can_be_left_out(command):
    write_folder(Path("photos"), {"train": 40, "test": 10})
    Path("photos/train/digit 1/broken.png").write_bytes(b"no image")
    Path("photos/train/digit 2/empty.jpg").touch()
    outcome = command(*QUICK, "trainer.max_epochs=1")
    assert outcome.code == 1
    assert outcome.err.startswith(
        "error: 2 of 152 images in photos can't be read: mend or delete them, or go on without"
    )
    assert "train/digit 1/broken.png: not a PNG" in outcome.err
    assert "train/digit 2/empty.jpg: the file is empty" in outcome.err
    assert command.runs() == []
    assert command(*QUICK, "trainer.max_epochs=1", "data.unreadable=leave_out").code == 0
    assert command(*QUICK, "trainer.max_epochs=1").code == 1  # also from the cache


def no_images_of_a_class(root):
    (root / "train" / "digit 3").mkdir()


def a_class_in_test_only(root):
    shutil.copytree(root / "test" / "digit 0", root / "test" / "digit 7")


def no_train(root):
    shutil.rmtree(root / "train")


def images_without_classes(root):
    for folder in sorted((root / "train").iterdir()):
        for path in sorted(folder.iterdir()):
            path.rename(root / "train" / f"{folder.name}-{path.name}")
        folder.rmdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_images_of_a_class, "train/digit 3 has no images: fill or delete the folder of this class"),
        (a_class_in_test_only, "test has the class digit 7, which train/ lacks"),
        (no_train, "photos has test/, but no train/"),
        (images_without_classes, "is in no class: put the images of each class into a folder of its own"),
        (shutil.rmtree, "data.root=photos: no such folder; data=folder reads train/CLASS/*.png below it"),
    ],
)
def test_a_folder_that_cant_be_used_is_one_line(command, spoil, message):
    spoil(write_folder(Path("photos"), {"train": 4, "test": 2}))
    outcome = command(*QUICK)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert command.runs() == []


def test_the_root_has_to_be_given(command):
    assert "data.root is missing: say where the images of data=folder are" in command("data=folder").err
    assert "data.image_size=33: must be one of 32, 48, 64, 96" in command(*QUICK, "data.image_size=33").err


def test_a_single_image_of_a_class_is_no_split(tmp_path):
    write_folder(tmp_path, {"": 5})
    for path in list((tmp_path / "digit 0").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UserError, match=r"class digit 0 in .* has 1 readable training images: at least 2 are needed"):
        module(tmp_path)
