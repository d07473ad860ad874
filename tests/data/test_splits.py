"""The runs of a process share one reading of the data, as long as it is the very same."""

import shutil

import pytest
import torch

from cifar_lightning.data import cifar, splits
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.official import CIFAR10

FOLDER, FILES = CIFAR10.folder, CIFAR10.files


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that were read."""
    names = []
    read_file = cifar.read_file
    monkeypatch.setattr("cifar_lightning.data.cifar.read_file", lambda path: names.append(path.name) or read_file(path))
    monkeypatch.setattr(splits, "_latest", None)
    return names


def module(root, **keys):
    built = ImageDataModule(root=root, verify=False, **{"val_size": 60, "batch_size": 20} | keys)
    built.setup()
    return built


def test_the_same_files_are_read_once_whatever_is_made_of_them(cifar_folder, reads, caplog):
    first = module(cifar_folder)
    second = module(cifar_folder / FOLDER / "..", normalize="half", batch_size=7, seed=3)
    assert sorted(reads) == sorted(FILES)
    assert second.train.images.data_ptr() == first.train.images.data_ptr()
    assert second.checksum == first.checksum
    assert caplog.text.count("differ from the official files") == 2  # said to each run


@pytest.mark.parametrize("change", [{"val_size": 61}, {"split_seed": 1}, {"val_size": 0}])
def test_another_split_is_another_reading(cifar_folder, reads, change):
    first, second = module(cifar_folder), module(cifar_folder, **change)
    assert len(reads) == 2 * len(FILES)
    assert second.train_indices.tolist() != first.train_indices.tolist()


def test_one_image_and_all_of_them_are_not_the_same_share():
    assert len(digits(val_size=10).val) == 10
    assert len(digits(val_size=10 / 1437).val) == 10
    sizes = {splits._key(splits.Source("digits", "pickle", ".", True, size, 42)) for size in (1, 1.0)}
    assert len(sizes) == 2


def digits(**keys):
    built = ImageDataModule(name="digits", batch_size=8, **keys)
    built.setup()
    return built


def test_changed_files_are_read_again(cifar_folder, tmp_path, reads):
    shutil.copytree(cifar_folder / FOLDER, tmp_path / FOLDER)
    before = module(tmp_path)
    file = tmp_path / FOLDER / "data_batch_1"
    shutil.copy(tmp_path / FOLDER / "data_batch_2", tmp_path / "new")
    (tmp_path / "new").replace(file)
    after = module(tmp_path)
    assert len(reads) == 2 * len(FILES)
    assert after.checksum != before.checksum
    assert not torch.equal(after.train.images, before.train.images)


def test_only_the_latest_is_kept(cifar_folder, reads):
    module(cifar_folder)
    digits(val_size=0.2)
    module(cifar_folder)
    assert len(reads) == 2 * len(FILES)


def test_what_one_run_writes_into_the_images_the_next_does_not_see(cifar_folder, reads):
    first = module(cifar_folder)
    before = first.test.images.clone()
    first.test.images[3].zero_()
    assert torch.equal(module(cifar_folder).test.images, before)
    assert len(reads) == 2 * len(FILES)
