"""MNIST, Fashion-MNIST and SVHN are what torchvision reads, and every network takes them."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from cifar_lightning import api
from cifar_lightning.data.arrays import with_channels
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.torchvision_sets import CLASSES

TRAIN, TEST = 120, 40


def idx(array: np.ndarray) -> bytes:
    """An IDX file, as http://yann.lecun.com/exdb/mnist describes it."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(root: Path, title: str) -> Path:
    raw = root / title / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", TRAIN), ("t10k", TEST)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (n, 28, 28), np.uint8)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(n).astype(np.uint8) % 10))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("grey")
    return write_mnist(write_mnist(root, "MNIST"), "FashionMNIST")


def module(root, name, **keys):
    built = ImageDataModule(name=name, root=root, val_size=0, batch_size=2, **keys)
    built.setup()
    return built


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("size", [28, 32])
def test_arrays_are_torchvisions(root, name, channels, size):
    data = module(root, name, channels=channels, image_size=size)
    for train, ours in ((True, data.train), (False, data.test)):
        theirs = getattr(torchvision.datasets, CLASSES[name])(root, train=train)
        padded = torch.nn.functional.pad(theirs.data, [(size - 28) // 2] * 4)
        assert torch.equal(ours.images, padded[:, None].expand(-1, channels or 1, -1, -1))
        assert torch.equal(ours.labels, theirs.targets)
    assert data.class_names[1] == {"mnist": "1", "fashion_mnist": "Trouser"}[name]


def test_svhn_is_torchvisions(tmp_path, monkeypatch):
    scipy_io = pytest.importorskip("scipy.io")
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), np.uint8)
    for split in ("train", "test"):
        scipy_io.savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": np.arange(20)[:, None] % 10 + 1})
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda *_: True)
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda *_: True)
    data = module(tmp_path, "svhn")
    assert torch.equal(data.test.images, torch.from_numpy(images.transpose(3, 2, 0, 1)))
    assert data.test.labels[9].item() == 0  # the files call zero 10
    assert data.class_names == tuple("0123456789")


def test_colours_become_grey_as_in_pillow():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), np.uint8)
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in images]
    assert np.array_equal(with_channels(images, 1)[:, 0], expected)
    assert with_channels(images, 3) is images


@pytest.mark.parametrize("keys", [["data.image_size=28"], ["data.channels=3"]], ids=["28 px, grey", "32 px, colour"])
@pytest.mark.parametrize("model", ["cnn2", "resnet", "speednet"])  # tests/models has the others
def test_networks_follow_the_data(command, root, model, keys):
    small = [*("data=fashion_mnist", f"data.root={root}", "data.val_size=0", "logger=none", "data.batch_size=60")]
    outcome = command(*small, *keys, f"model={model}", "trainer.fast_dev_run=true", "callbacks.model_summary=null")
    assert outcome.code == 0, outcome.err


def test_torchvisions_networks_take_grey_images(command, root):
    small = [*("data=mnist", f"data.root={root}", "data.val_size=0", "logger=none", "trainer.fast_dev_run=true")]
    outcome = command(*small, "model=torchvision", "model.name=squeezenet1_1", "data.batch_size=60")
    assert outcome.code == 0, outcome.err


def test_what_cant_be_had_is_one_line_and_leaves_nothing(command, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    for name, folder in (("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"), ("svhn", "")):
        outcome = command(f"data={name}", "data.root=none", "model=cnn2", "logger=none")
        assert outcome.code == 1
        assert f"can't be read from {Path('none', folder)}, nor downloaded" in outcome.err
        assert outcome.err.count("\n") == 1
        assert list(Path().iterdir()) in ([], [Path("logs")])
        assert not Path("none").exists()


def test_damaged_files_are_one_line(command, root, tmp_path):
    broken = write_mnist(tmp_path / "broken", "MNIST")
    path = broken / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    outcome = command("data=mnist", f"data.root={broken}", "model=cnn2", "logger=none")
    assert outcome.code == 1
    assert "MNIST can't be read from" in outcome.err
    assert path.exists()


def test_normalizing_as_imagenet_needs_colours(command, root):
    outcome = command(
        "data=mnist",
        f"data.root={root}",
        "data.normalize=imagenet",
        "model=cnn2",
        "data.val_size=0",
        "data.batch_size=9",
    )
    assert "data.normalize=imagenet needs colour images: add data.channels=3" in outcome.err


@pytest.mark.parametrize("augmentation", ["affine_jitter", "flip_crop_cutout", "trivial_augment"])
def test_augmentations_take_grey_images(command, augmentation):
    words = [*("data=digits", "data.channels=1", "model=cnn2", "logger=none", "data.num_workers=0")]
    outcome = command(*words, f"augmentation={augmentation}", "trainer.fast_dev_run=true")
    assert outcome.code == 0, outcome.err


def test_a_network_for_grey_images_takes_any_photo_and_can_be_exported(command):
    words = [*("data=digits", "data.channels=1", "model=cnn2", "logger=none", "augmentation=none")]
    assert command(*words, "trainer.max_epochs=1", "hydra.run.dir=run").code == 0
    Image.new("RGB", (40, 30), "red").save("photo.png")
    for arguments in (
        ["predict", "run", "images=photo.png"],
        ["evaluate", "run"],
        ["export", "run", "format=state_dict"],
    ):
        outcome = command(*arguments)
        assert outcome.code == 0, outcome.err
    classifier = api.load("run")
    assert classifier.predict("photo.png").names == classifier.predict(Image.open("photo.png")).names
