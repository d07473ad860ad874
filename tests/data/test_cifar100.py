"""CIFAR-100 is read as torchvision reads it, with fine or coarse labels, and trains through the command."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.official_format import write_cifar100
from numpy.testing import assert_array_equal
from torchvision.datasets import CIFAR100 as Torchvision

from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.official import CIFAR100, checksum
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cifar100")
    write_cifar100(root / CIFAR100.folder)
    return root


def module(root, **keys):
    built = ImageDataModule(name="cifar100", root=root, val_size=0, batch_size=8, **{"verify": False} | keys)
    built.setup()
    return built


@pytest.mark.parametrize(("labels", "classes"), [("fine", 100), ("coarse", 20)])
def test_arrays_are_what_pythons_own_unpickler_reads(root, labels, classes):
    data = module(root, labels=labels)
    for split, name in ((data.train, "train"), (data.test, "test")):
        content = pickle.loads((root / CIFAR100.folder / name).read_bytes(), encoding="bytes")
        assert_array_equal(split.images.reshape(len(split), 3072), content[b"data"])
        assert_array_equal(split.labels, content[f"{labels}_labels".encode()])
    assert (len(data.class_names), data.class_names[3]) == (classes, f"{labels}_3")


def test_both_sources_give_the_same(root, monkeypatch):
    sums = {name: checksum(root / CIFAR100.folder / name) for name in CIFAR100.files}
    monkeypatch.setitem(SETS, "cifar100", replace(SETS["cifar100"], official=replace(CIFAR100, files=sums)))
    monkeypatch.setattr(Torchvision, "train_list", [["train", sums["train"].md5]])
    monkeypatch.setattr(Torchvision, "test_list", [["test", sums["test"].md5]])
    monkeypatch.setattr(Torchvision, "meta", Torchvision.meta | {"md5": sums["meta"].md5})
    ours, theirs = (module(root, source=source, verify=True) for source in ("pickle", "torchvision"))
    assert ours.checksum == theirs.checksum
    assert ours.class_names == theirs.class_names
    with pytest.raises(UserError, match=r"data\.labels=coarse: torchvision reads fine labels only"):
        module(root, source="torchvision", labels="coarse", verify=True)


def test_the_official_checksums_are_torchvisions():
    theirs = dict(Torchvision.train_list + Torchvision.test_list) | {
        Torchvision.meta["filename"]: Torchvision.meta["md5"]
    }
    assert theirs == {name: expected.md5 for name, expected in CIFAR100.files.items()}
    assert (CIFAR100.archive, CIFAR100.archive_checksum.md5) == (Torchvision.filename, Torchvision.tgz_md5)
    assert CIFAR100.folder == Torchvision.base_folder


def test_other_files_are_refused_unless_allowed(root):
    with pytest.raises(UserError, match=r"train differs from the official file.*data\.verify=false"):
        module(root, verify=True)


def test_a_run_trains_resumes_and_is_evaluated(command, root):
    small = [f"data.root={root}", "data.verify=false", "data.val_size=100", "data.batch_size=32", "model=cnn2"]
    outcome = command("data=cifar100", "data.labels=coarse", *small, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert len(metrics["test/acc_per_class"]) == 20
    assert np.shape(metrics["test/confusion_matrix"]) == (20, 20)
    outcome = command("ckpt_path=run", "trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    outcome = command("evaluate", "run")
    assert outcome.code == 0, outcome.err
    tested = json.loads(Path("run/checkpoints/best_test/evaluation.json").read_text())
    assert tested["test/acc"] == json.loads(Path("run/metrics.json").read_text())["test/acc"]
    outcome = command("data", "data=cifar100", f"data.root={root}", "data.verify=false", "data.val_size=100")
    assert outcome.code == 0, outcome.err
    assert "fine_99" in outcome.out


@pytest.mark.parametrize("typed", ["data=cifar100 data.labels=medium", "data=digits data.labels=fine"])
def test_labels_that_do_not_exist_are_one_line(command, typed):
    outcome = command(*typed.split())
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "data.labels" in outcome.err
    assert list(command.folder.iterdir()) == []


def test_cifar10_has_no_coarse_labels(cifar_folder):
    with pytest.raises(UserError, match=r"data\.labels=coarse: cifar10 has no such labels"):
        ImageDataModule(root=cifar_folder, verify=False, labels="coarse").setup()
