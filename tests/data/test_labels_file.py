"""Other labels for the training images are read without running code, and refused where they can't be used."""

import csv
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.digits import load_digits

QUICK = [
    *("data=digits", "model=cnn2", "augmentation=none", "logger=none", "trainer.max_epochs=1", "hydra.run.dir=run"),
    "data.labels_file=labels.npy",
]
OFFICIAL = load_digits().train.labels
OTHERS = OFFICIAL.copy()
OTHERS[::4] = (OTHERS[::4] + 1) % 10


def module(path, **keys):
    built = ImageDataModule(name="digits", val_size=0.2, batch_size=8, labels_file=path, **keys)
    built.setup()
    return built


def as_npy(path, **arrays):
    np.save(path, arrays["others"])


def as_csv(path, **arrays):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(arrays)
        writer.writerows(zip(*arrays.values(), strict=True))


def as_pt(path, **arrays):
    """As torch.save wrote CIFAR-10N's: NumPy arrays within a pickle of protocol 2."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(arrays, protocol=2))
        file.writestr("archive/version", "3\n")


@pytest.mark.parametrize(("write", "suffix"), [(as_npy, "npy"), (as_csv, "csv"), (as_pt, "pt")])
def test_the_training_split_gets_them_and_the_others_keep_their_own(tmp_path, write, suffix):
    path = tmp_path / f"labels.{suffix}"
    write(path, clean_label=OFFICIAL, others=OTHERS)
    data = module(path, labels_key=None if suffix == "npy" else "others")
    assert np.array_equal(data.train.labels, OTHERS[data.train_indices])
    assert np.array_equal(data.true_labels, OFFICIAL[data.train_indices])
    assert np.array_equal(data.val.labels, OFFICIAL[data.val_indices])
    assert data.checksum != module(None).checksum


def test_a_run_says_how_many_differ_and_what_was_learnt_of_them(command):
    np.save("labels.npy", OTHERS)
    outcome = command(*QUICK)
    assert outcome.code == 0, outcome.err
    assert "data.labels_file: 25.05 % of the labels differ from the data's own" in outcome.out
    assert "wrong labels learnt by heart" in outcome.out
    assert "train/memorized" in json.loads(Path("run/metrics.json").read_text())
    Path("labels.npy").unlink()  # is for training only
    assert command("evaluate", "run").code == 0


WRONG = {
    "give one integer for each of the 1,437 training images": OTHERS[:-1],
    "has the label 10: there are 10 classes, from 0": OTHERS + 1,
    "is of other images, or in another order: only": np.random.default_rng(0).permutation(OTHERS),
    "has float64 [1437]: give one integer for each": OTHERS / 2,
}


@pytest.mark.parametrize("message", WRONG)
def test_labels_that_cant_be_used_are_one_line(command, message):
    np.save("labels.npy", WRONG[message])
    refused(command(*QUICK), message)


def refused(outcome, message):
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("run").exists()


def test_which_of_several_is_asked_and_the_nearest_name_is_given(command):
    as_csv(Path("labels.csv"), clean_label=OFFICIAL, worse_label=OTHERS)
    words = [*QUICK, "data.labels_file=labels.csv"]
    refused(command(*words), "has several arrays: choose one, data.labels_key=clean_label|worse_label")
    refused(command(*words, "data.labels_key=worse"), "has no such array; did you mean worse_label?")
    as_csv(Path("labels.csv"), clean_label=OFFICIAL[::-1], worse_label=OTHERS)
    refused(command(*words, "data.labels_key=worse_label"), "of its clean_label agree with the data's own")


class Calls:
    def __reduce__(self):
        return print, ("ran",)


def test_no_code_of_a_file_runs(command, capsys):
    as_pt(Path("labels.pt"), others=Calls())
    refused(command(*QUICK, "data.labels_file=labels.pt"), "labels.pt asks for __builtin__.print: refused")
    np.save("labels.npy", np.array([Calls()], dtype=object))
    refused(command(*QUICK), "Object arrays cannot be loaded when allow_pickle=False")
    Path("labels.csv").write_text("label\none\ntwo\n")
    refused(
        command(*QUICK, "data.labels_file=labels.csv"), "data.labels_file=labels.csv can't be read: invalid literal"
    )
    Path("labels.pt").write_text("nothing")
    refused(
        command(*QUICK, "data.labels_file=labels.pt"), "data.labels_file=labels.pt can't be read: File is not a zip"
    )
    refused(command(*QUICK, "data.labels_file=labels.txt"), "data.labels_file=labels.txt: ")
    assert "ran" not in capsys.readouterr().out
