"""Files to arrays, from both sources."""

import hashlib
import logging
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torchvision.datasets import CIFAR10

from cifar_lightning.data import cifar
from cifar_lightning.data.arrays import Source
from cifar_lightning.data.cifar import LAYOUTS
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.official import CIFAR10 as OFFICIAL
from cifar_lightning.data.official import checksum
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError

FOLDER, TRAIN = OFFICIAL.folder, LAYOUTS["cifar10"].train


def load_cifar10(root, source="pickle", verify=True):
    return cifar.read(Source("cifar10", source, root, verify, 0, 0), SETS["cifar10"].official)


@pytest.fixture
def root(cifar_folder, tmp_path):
    """A copy of the small files, to be spoilt."""
    return shutil.copytree(cifar_folder, tmp_path / "data")


@pytest.fixture
def as_if_official(cifar_folder, monkeypatch):
    """The small files' checksums in the place of the official ones, in torchvision too."""
    sums = {name: checksum(cifar_folder / FOLDER / name) for name in OFFICIAL.files}
    small = replace(SETS["cifar10"], official=replace(OFFICIAL, files=sums))
    monkeypatch.setitem(SETS, "cifar10", small)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name].md5] for name in TRAIN])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"].md5]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"].md5})


def test_arrays_are_what_pythons_own_unpickler_reads(cifar_folder):
    arrays = load_cifar10(cifar_folder, verify=False)
    batches = [pickle.loads((cifar_folder / FOLDER / name).read_bytes(), encoding="bytes") for name in TRAIN]
    assert_array_equal(arrays.train.images.reshape(300, 3072), np.concatenate([batch[b"data"] for batch in batches]))
    assert_array_equal(arrays.train.labels, np.concatenate([batch[b"labels"] for batch in batches]))
    assert arrays.test.images.shape == (100, 3, 32, 32)
    assert (arrays.train.images.dtype, arrays.train.labels.dtype) == (np.uint8, np.int64)
    assert arrays.class_names[3] == "cat"


def test_checksum_is_of_all_four_arrays(cifar_folder):
    arrays = load_cifar10(cifar_folder, verify=False)
    four = (arrays.train.images, arrays.train.labels, arrays.test.images, arrays.test.labels)
    assert arrays.checksum == hashlib.sha256(b"".join(array.tobytes() for array in four)).hexdigest()[:16]


@pytest.mark.usefixtures("as_if_official")
def test_both_sources_give_the_same_arrays(cifar_folder):
    ours, torchvisions = (load_cifar10(cifar_folder, source) for source in ("pickle", "torchvision"))
    for part in ("train", "test"):
        for kind in ("images", "labels"):
            one, other = getattr(getattr(ours, part), kind), getattr(getattr(torchvisions, part), kind)
            assert_array_equal(one, other, strict=True)
            assert one.flags.c_contiguous
            assert other.flags.c_contiguous
    assert (ours.class_names, ours.checksum) == (torchvisions.class_names, torchvisions.checksum)


@pytest.mark.usefixtures("as_if_official")
@pytest.mark.parametrize("pipeline", ["device", "worker"])
def test_both_sources_give_the_same_batches_in_the_same_order(cifar_folder, pipeline):
    def everything(source):
        keys = {"pipeline": pipeline, "num_workers": 0, "batch_size": 32, "val_size": 60, "seed": 3}
        data = ImageDataModule(root=cifar_folder, source=source, **keys)
        data.setup()
        batches = [*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]
        return batches, (data.mean, data.std, data.class_names, data.checksum)

    (ours, facts), (theirs, their_facts) = everything("pickle"), everything("torchvision")
    assert facts == their_facts
    for one, other in zip(ours, theirs, strict=True):
        assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.usefixtures("as_if_official")
def test_both_sources_give_the_same_results(cifar_folder, command):
    small = ["model=cnn2", "data.val_size=60", "data.batch_size=32", "trainer.max_epochs=1", "logger=none"]
    results = []
    for source in ("pickle", "torchvision"):
        outcome = command(*small, f"data.root={cifar_folder}", f"data.source={source}", f"task_name={source}")
        assert outcome.code == 0, outcome.err
        (run,) = command.runs(source)
        weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        results.append((weights, (run / "predictions.csv").read_text()))
    (weights, predictions), (their_weights, their_predictions) = results
    assert all(torch.equal(weights[name], their_weights[name]) for name in weights)
    assert predictions == their_predictions


def test_folder_itself_may_be_given_as_root(cifar_folder):
    assert (
        load_cifar10(cifar_folder / FOLDER, verify=False).checksum == load_cifar10(cifar_folder, verify=False).checksum
    )


def test_other_sums_are_refused_unless_allowed_and_then_named_once_in_the_log(cifar_folder, caplog):
    with pytest.raises(UserError, match=r"data_batch_1 is cut short \(.* of 31,035,704 bytes\).*data\.verify=false"):
        load_cifar10(cifar_folder)
    with caplog.at_level(logging.INFO):
        load_cifar10(cifar_folder, verify=False)
    assert len(caplog.records) == 1
    assert "data_batch_1, data_batch_2" in caplog.text


@pytest.mark.usefixtures("as_if_official")
def test_one_changed_byte_is_found(root):
    file = root / FOLDER / "data_batch_4"
    file.write_bytes(file.read_bytes()[:-2] + b"x.")
    with pytest.raises(UserError, match=r"data_batch_4 differs from the official file.*Delete the folder"):
        load_cifar10(root)


@pytest.mark.usefixtures("as_if_official")
@pytest.mark.parametrize("verify", [True, False])
def test_torchvision_never_unpickles_a_changed_file(root, verify):
    trap = root / "trap"
    (root / FOLDER / "test_batch").write_bytes(b"cos\nmkdir\n(V%s\ntR." % str(trap).encode())
    with pytest.raises(UserError, match=r"test_batch is not the official .*data\.source=pickle data\.verify=false"):
        load_cifar10(root, "torchvision", verify)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
@pytest.mark.parametrize("source", ["pickle", "torchvision"])
def test_missing_file_is_named_and_nothing_is_downloaded(root, name, source):
    (root / FOLDER / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing. Delete the folder .* or give another one with data.root"):
        load_cifar10(root, source, verify=False)


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle", b"\x80\x02.", b"\x80\x02}."])
def test_foreign_file_is_named(root, content):
    (root / FOLDER / "data_batch_3").write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_3 .*Delete the folder .* or give another one with data.root"):
        load_cifar10(root, verify=False)


def test_folder_in_the_place_of_a_file_is_named(root):
    (root / FOLDER / "test_batch").unlink()
    (root / FOLDER / "test_batch").mkdir()
    with pytest.raises(UserError, match="test_batch can't be read: Is a directory"):
        load_cifar10(root, verify=False)


def test_the_official_sums_are_torchvisions():
    theirs = dict(CIFAR10.train_list + CIFAR10.test_list) | {CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}
    assert theirs == {name: expected.md5 for name, expected in OFFICIAL.files.items()}
    assert (OFFICIAL.archive, OFFICIAL.archive_checksum.md5) == (CIFAR10.filename, CIFAR10.tgz_md5)
    assert Path(CIFAR10.base_folder).name == FOLDER
