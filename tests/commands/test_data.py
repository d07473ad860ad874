"""What the data check prints is true, and a planted copy is found."""

import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers.official_format import batch, coloured_noise, python2_pickle, write_cifar

from cifar_lightning.commands import data
from cifar_lightning.data.check import repeats
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.digits import load_digits
from cifar_lightning.data.stratified_split import stratified_split

FOLDER = "cifar-10-batches-py"


@pytest.fixture
def planted(tmp_path):
    """300 + 100 images: one training image twice more in training, another in the test set."""
    write_cifar(tmp_path / FOLDER)
    images, labels = coloured_noise(60, np.random.default_rng(5))
    tests, test_labels = coloured_noise(100, np.random.default_rng(6))
    images[[20, 40]] = images[3]
    tests[[7, 9]] = images[3], images[5]
    (tmp_path / FOLDER / "data_batch_1").write_bytes(python2_pickle(batch(images, labels)))
    (tmp_path / FOLDER / "test_batch").write_bytes(python2_pickle(batch(tests, test_labels)))
    return tmp_path, labels


def checked(capsys, *arguments):
    capsys.readouterr()
    code = data.main(arguments)
    return code, *capsys.readouterr()


def counts(out):
    return {
        where: int(n) for n, where in re.findall(r"^ +(\d+)  ((?:within|in) [a-z ]+?)(?:  \(|$)", out, re.MULTILINE)
    }


@pytest.mark.parametrize("seed", range(3))
def test_planted_copies_are_found_wherever_the_split_puts_them(planted, capsys, seed):
    root, _ = planted
    data = [f"data.root={root}", "data.verify=false", "data.val_size=60", f"data.split_seed={seed}"]
    code, out, err = checked(capsys, *data)
    assert (code, err) == (0, "")
    module = ImageDataModule(root=root, verify=False, val_size=60, split_seed=seed, batch_size=1)
    module.setup()
    in_val = {3, 20, 40} & set(module.val_indices.tolist())
    assert counts(out) == {
        "within training": max(0, 3 - len(in_val) - 1),
        "within validation": max(0, len(in_val) - 1),
        "in validation and in training": len(in_val) if len(in_val) < 3 else 0,
        "within test": 0,
        "in test and in training": (len(in_val) < 3) + (5 not in module.val_indices),
        "in test and in validation": (len(in_val) > 0) + (5 in module.val_indices),
    }
    assert "leaks of the split: none" in out


def test_repeats_are_those_of_a_comparison_pixel_by_pixel():
    rng = np.random.default_rng(0)
    parts = {name: rng.integers(0, 2, (n, 3, 1, 1), np.uint8) for name, n in (("a", 5), ("b", 6), ("c", 4))}
    found = repeats(parts)
    names = list(parts)
    for i, later in enumerate(names):
        for earlier in names[: i + 1]:
            expected = [
                n
                for n, image in enumerate(parts[later])
                if any((image == other).all() for other in parts[earlier][: n if earlier == later else None])
            ]
            assert found[earlier, later] == expected
    assert sum(map(len, found.values())) > 5


def test_sums_classes_and_channels_are_those_of_the_files(planted, capsys):
    root, _ = planted
    _, out, _ = checked(capsys, f"data.root={root}", "data.verify=false", "data.val_size=60")
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        md5 = hashlib.md5((root / FOLDER / name).read_bytes()).hexdigest()
        assert re.search(rf"{md5}  {name} +NOT the official file", out)
    module = ImageDataModule(root=root, verify=False, val_size=60, batch_size=1)
    module.setup()
    assert module.checksum in out
    for split in (module.train, module.val, module.test):
        assert f" {len(split)}" in out
    (cat,) = re.findall(r"^  cat +(\d+) +(\d+) +(\d+)$", out, re.MULTILINE)
    assert [int(n) for n in cat] == [int((s.labels == 3).sum()) for s in (module.train, module.val, module.test)]
    images = module.test.images.numpy() / 255
    for figures in (images.mean((0, 2, 3)), images.std((0, 2, 3))):
        assert ", ".join(f"{value:.4f}" for value in figures) in out


def test_the_digits_have_no_image_in_two_parts(capsys):
    code, out, _ = checked(capsys, "data=digits")
    assert code == 0
    assert set(counts(out).values()) == {0}
    digits = load_digits()
    train, val = stratified_split(digits.train.labels, 0.2, seed=42)
    parts = [{image.tobytes() for image in images} for images in
             (digits.train.images[train], digits.train.images[val], digits.test.images)]  # fmt: skip
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_without_validation_part_there_is_none_to_compare(capsys):
    code, out, _ = checked(capsys, "data=digits", "data.val_size=0")
    assert code == 0
    assert set(counts(out)) == {"within training", "within test", "in test and in training"}


def test_a_split_that_deals_an_image_twice_fails_the_check(capsys, monkeypatch):
    overlapping = lambda labels, *_, **__: (np.arange(100), np.arange(90, 110))  # noqa: E731
    monkeypatch.setattr("cifar_lightning.data.splits.stratified_split", overlapping)
    monkeypatch.setattr("cifar_lightning.data.splits._latest", None)
    code, _, err = checked(capsys, "data=digits")
    assert (code, err) == (1, "error: the split leaks: 10 images are in training and in validation\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=digit"], "did you mean digits?"),
        (["data.roott=x"], "did you mean data.root?"),
        (["digits"], "write key=value"),
        (["data.val_size=60000"], "cifar10 has only 50,000 training images"),
        (["data.val_size=x"], "must be a count"),
        (["data=digits", "data.root=/x"], "there is no key data.root"),
        (["model=resnet"], "there is no key model"),
    ],
)
def test_bad_input_ends_in_one_line(capsys, arguments, message):
    code, out, err = checked(capsys, *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert message in err


def test_it_is_a_command_whose_help_does_not_wait_for_torch(tmp_path):
    program = (
        "import sys; from cifar_lightning.commands import data; print(data.main(['--help']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "python -m cifar_lightning data data=digits" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 False"


def test_other_things_in_the_folder_are_passed_over(tmp_path, capsys):
    write_cifar(tmp_path / FOLDER)
    (tmp_path / FOLDER / "notes").mkdir()
    (tmp_path / FOLDER / "readme.html").touch()
    code, out, err = checked(capsys, f"data.root={tmp_path}", "data.verify=false", "data.val_size=60")
    assert (code, err) == (0, "")
    assert "readme" not in out
