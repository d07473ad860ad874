"""What lies in the place of the official files is recognised, before anything is downloaded next to it."""

import tarfile
from pathlib import Path

import pytest
from helpers.image_folders import write_folder

WORDS = ["data.root=data", "model=cnn2", "logger=none"]


def refused(outcome, message):
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr("cifar_lightning.data.download._reachable", lambda urls, faults: [])


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "cifar-10-batches-mat", "cifar-100-binary"])
@pytest.mark.parametrize("packed", [False, True])
def test_another_version(command, folder, packed):
    inside = Path("data", folder)
    inside.mkdir(parents=True)
    (inside / "data_batch_1.bin").write_bytes(b"0" * 3073)
    if packed:
        with tarfile.open("data/cifar-10-python.tar.gz", "w:gz") as tar:
            tar.add(inside, arcname=folder)
    version = "Matlab" if folder.endswith("mat") else "binary"
    of = "CIFAR-100" if "100" in folder else "CIFAR-10"
    path = "data/cifar-10-python.tar.gz" if packed else f"data/{folder}"
    refused(command(*WORDS), f"{path} is the {version} version of {of}: the Python version is needed")


@pytest.mark.parametrize(
    ("data", "there", "meant"),
    [("cifar10", "cifar-100-python", "cifar100"), ("cifar100", "cifar-10-batches-py", "cifar10")],
)
def test_the_other_data_set(command, data, there, meant):
    Path("data", there).mkdir(parents=True)
    for root in ("data", f"data/{there}"):
        refused(command(f"data={data}", *WORDS, f"data.root={root}"), f"data/{there} is CIFAR-1")
        refused(command(f"data={data}", *WORDS, f"data.root={root}"), f"use data={meant}")


def test_image_files(command):
    write_folder(Path("data"), {"train": 2})
    refused(command(*WORDS), "data holds images in folders: use data=folder")
    Path("other/train/logs").mkdir(parents=True)
    refused(command(*WORDS, "data.root=other"), "CIFAR-10 was not found and can't be downloaded")
    Path("kaggle").mkdir()
    Path("kaggle/trainLabels.csv").touch()
    refused(
        command(*WORDS, "data.root=kaggle"), "kaggle is Kaggle's version, of PNG files: sort them into train/CLASS/"
    )
