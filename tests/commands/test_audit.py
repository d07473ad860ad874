"""The audit of the data finds planted copies and wrong labels, and what it writes can be used."""

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.checkpoints import whole_config, write_checkpoint

from cifar_lightning.data.arrays import LabeledImages
from cifar_lightning.data.digits import load_digits
from cifar_lightning.data.variants import noisy
from cifar_lightning.reporting.files import read_csv

AUDIT = ("data", "audit", "data=digits")
QUICK = ["data=digits", "model=cnn2", "augmentation=none", "optimizer=adam", "optimizer.lr=0.003", "scheduler=none"]
COPIES = {3: 7, 50: 8, 51: 9}  # training images, and the test images that are copies of them


def replaced(monkeypatch, arrays):
    """Let `data=digits` be these."""
    monkeypatch.setattr("cifar_lightning.data.digits.load_digits", lambda: arrays)
    monkeypatch.setattr("cifar_lightning.data.splits._latest", None)


@pytest.fixture
def planted(monkeypatch):
    """150 training and 40 test images in colours of their own, of which three are moved, lighter or mirrored copies."""
    digits = load_digits()
    rng = np.random.default_rng(0)

    def coloured(images):
        noise = np.repeat(np.repeat(rng.integers(0, 120, (len(images), 3, 8, 8)), 4, axis=2), 4, axis=3)
        return (images // 2 + noise).astype(np.uint8)

    train = LabeledImages(coloured(digits.train.images[:150]), digits.train.labels[:150])
    test = LabeledImages(coloured(digits.test.images[:40]), digits.test.labels[:40])
    changes = (lambda x: np.roll(x, (2, -3), (1, 2)), lambda x: x // 2 + 90, lambda x: x[..., ::-1])
    for (source, copy), change in zip(COPIES.items(), changes, strict=True):
        test.images[copy] = change(train.images[source])
    train.images[120] = train.images[60]
    replaced(monkeypatch, replace(digits, train=train, test=test))
    return train, test


class Page(HTMLParser):
    """The pictures of a page, and whatever it would load from elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.pictures, self.loaded = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "img":
            self.pictures.append(given["src"])
        if tag in ("script", "link", "iframe") or not str(given.get("src", "data:")).startswith("data:"):
            self.loaded.append(given)


def test_planted_copies_are_listed_shown_and_left_out_of_a_test(planted, command):
    train, test = planted
    outcome = command(*AUDIT, "output=found")
    assert (outcome.code, outcome.err) == (0, "")
    assert "4 pairs; 3 of 40 test images have a copy in training" in outcome.out
    folder = command.folder / "found"
    rows = read_csv(folder / "pairs.csv")
    assert [row["similarity"] for row in rows] == sorted((row["similarity"] for row in rows), reverse=True)
    ends = {(r["split_a"], r["index_a"], r["split_b"], r["index_b"]): r for r in rows}
    assert set(ends) == {("test", c, "train", s) for s, c in COPIES.items()} | {("train", 60, "train", 120)}
    assert [key[1] for key, row in ends.items() if row["mirrored"] == "True"] == [9]
    row = ends["test", 8, "train", 50]
    assert (row["class_a"], row["class_b"]) == (test.labels[8], train.labels[50])
    page = Page(folder / "report.html")
    assert (len(page.pictures), page.loaded) == (2 * len(rows), [])

    index = folder / "test_near_duplicates.json"
    assert json.loads(index.read_text()) == {"data": "digits", "split": "test", "indices": sorted(COPIES.values())}
    write_checkpoint(command.folder / "a.ckpt", config=whole_config("data.val_size=20"))
    assert command("evaluate", "a.ckpt").code == 0
    outcome = command("evaluate", "a.ckpt", f"exclude={index}")
    assert outcome.code == 0, outcome.err
    assert "37 images of the test set, 3 left out" in outcome.out
    whole = read_csv("a_test/predictions.csv")
    left = read_csv("a_test_excluding/predictions.csv")
    assert left == [row for row in whole if row["index"] not in COPIES.values()]
    evaluation = json.loads((command.folder / "a_test_excluding" / "evaluation.json").read_text())
    right = [row["label"] == row["prediction"] for row in left]
    assert evaluation["test/acc"] == pytest.approx(sum(right) / 37)
    assert (evaluation["images"], evaluation["excluded"]) == (37, 3)
    before = json.loads((command.folder / "a_test" / "evaluation.json").read_text())
    assert evaluation["test/acc_with_excluded"] == pytest.approx(before["test/acc"])


def test_embeddings_add_pairs_to_look_at_and_results_have_a_new_folder_each_time(planted, command):
    write_checkpoint(command.folder / "a.ckpt", config=whole_config())
    for _ in range(2):
        outcome = command(*AUDIT, "ckpt_path=a.ckpt", "embedding_threshold=0.4")
        assert outcome.code == 0, outcome.err
    folders = sorted((command.folder / "logs" / "audit").iterdir())
    assert len(folders) == 2
    tables = [(folder / "pairs.csv").read_text() for folder in folders]
    assert tables[0] == tables[1]
    same = next(row for row in read_csv(folders[0] / "pairs.csv") if (row["index_a"], row["index_b"]) == (60, 120))
    assert (same["similarity"], same["embedding"]) == (1, 1)
    by_pixels = [row for row in read_csv(folders[0] / "pairs.csv") if row["similarity"] is not None]
    assert len(by_pixels) == 4 < len(read_csv(folders[0] / "pairs.csv"))
    index = json.loads((folders[0] / "test_near_duplicates.json").read_text())
    assert index["indices"] == sorted(COPIES.values())  # those by embeddings alone are only to be looked at


def test_the_check_is_what_the_command_does_without_another_word(command):
    checked, plain = command("data", "check", "data=digits"), command("data", "data=digits")
    assert checked == plain
    assert "leaks of the split: none" in checked.out
    assert "data audit" in command("data", "audit", "--help").out


@pytest.fixture
def sweep(monkeypatch, command):
    """A sweep over three folds of 600 digits, a tenth of them with a wrong label; the indices of those."""
    digits = load_digits()
    images, true = digits.train.images[:600], digits.train.labels[:600]
    given = noisy(true, 0.1, None, 10, seed=1)
    replaced(monkeypatch, replace(digits, train=LabeledImages(images, given)))
    sweep = ["data.folds=3", "data.fold=0,1,2", "hydra.sweep.dir=cv", "logger=none", "trainer.max_epochs=5"]
    outcome = command("-m", *QUICK, *sweep, "data.batch_size=32", "test=false")
    assert outcome.code == 0, outcome.err
    return np.flatnonzero(given != true), given


@pytest.mark.slow
def test_wrong_labels_are_found_from_the_folds_of_a_sweep(sweep, command):
    wrong, given = sweep
    outcome = command("data", "audit", "runs=cv", "output=labels")
    assert (outcome.code, outcome.err) == (0, "")
    rows = read_csv("labels/label_errors.csv")
    found = [row["index"] for row in rows]
    assert [row["margin"] for row in rows] == sorted(row["margin"] for row in rows)
    assert all(row["label"] == given[row["index"]] != row["likely"] for row in rows)
    assert len(set(found) & set(wrong)) > 0.7 * len(wrong)
    assert np.isin(found[:30], wrong).mean() > 0.9
    index = json.loads((command.folder / "labels" / "label_errors.json").read_text())
    assert index == {"data": "digits", "split": "train", "indices": sorted(found)}
    page = Page(command.folder / "labels" / "report.html")
    assert (len(page.pictures), page.loaded) == (len(found), [])

    write_checkpoint(command.folder / "a.ckpt", config=whole_config())
    outcome = command("evaluate", "a.ckpt", "exclude=labels/label_errors.json")
    assert "is not a list of test images of digits" in outcome.err

    for run in (command.folder / "cv").glob("*fold=1*"):
        shutil.rmtree(run)
    outcome = command("data", "audit", "runs=cv", "output=again")
    expected = "no run has fold 1 of 3: train what is missing with -m data.folds=3 data.fold=1"
    assert (outcome.code, outcome.err) == (1, f"error: {expected}\n")
    assert not (command.folder / "again").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=digit"], "did you mean digits?"),
        (["thresold=0.9"], "did you mean threshold?"),
        (["data=digits", "threshold=2"], "threshold=2: must be a number above 0, at most 1"),
        (["data=digits", "threshold=high"], "threshold=high: must be a number"),
        (["data=digits", "embedding_threshold=0.9"], "no effect without ckpt_path"),
        (["data=digits", "ckpt_path=gone.ckpt"], "there is no such file"),
        (["data=digits", "ckpt_path=other.ckpt"], "was trained on cifar10, but the audit is of data=digits"),
        (["data=digits", "ckpt_path=text.ckpt"], "can't be read as a checkpoint"),
        (["data=digits", "output=text.ckpt"], "output=text.ckpt is a file"),
        (["runs=nowhere"], "there is no such folder"),
        (["runs=."], "there is no checkpoints/best.ckpt below it"),
        (["runs=single"], "its run has no folds"),
        (["runs=mixed"], "give the folder of one sweep"),
        (["runs=.", "data=digits"], "data has no effect with runs=FOLDER"),
        (["runs=.", "threshold=0.9"], "threshold has no effect with runs=FOLDER"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(command, arguments, message):
    write_checkpoint(command.folder / "other.ckpt", config=whole_config("data=cifar10"))
    (command.folder / "text.ckpt").write_text("not a checkpoint")
    folds = {"single": [[]], "mixed": [["data.folds=2"], ["data.folds=3", "data.fold=1"]]}
    for sweep, runs in folds.items():
        for number, overrides in enumerate(runs):
            path = command.folder / sweep / str(number) / "checkpoints" / "best.ckpt"
            if arguments[0] == f"runs={sweep}":
                path.parent.mkdir(parents=True)
                write_checkpoint(path, config=whole_config(*overrides))
    before = set(command.folder.rglob("*"))
    outcome = command("data", "audit", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert set(command.folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("1\n2\n", "not a JSON file"),
        ("[1, 2]", "is not a list of test images of digits, such as"),
        ('{"data": "cifar10", "split": "test", "indices": [1]}', "is not a list of test images of digits"),
        (
            '{"data": "digits", "split": "test", "indices": [1, 360]}',
            "360 is not one of the 360 images",
        ),
        ('{"data": "digits", "split": "test", "indices": [true]}', "True is not one of the"),
        ('{"data": "digits", "split": "test", "indices": ["1"]}', "1 is not one of the"),
        (json.dumps({"data": "digits", "split": "test", "indices": list(range(360))}), "leaves no image to test"),
    ],
)
def test_a_file_that_is_no_list_of_test_images_is_one_line(command, content, message):
    write_checkpoint(command.folder / "a.ckpt", config=whole_config())
    if content is not None:
        (command.folder / "list.json").write_text(content)
    outcome = command("evaluate", "a.ckpt", "exclude=list.json")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert outcome.err.startswith("error: exclude=list.json")
    assert message in outcome.err
    assert not (command.folder / "a_test_excluding").exists()


def test_an_empty_list_leaves_nothing_out_and_only_test_images_can_be(command):
    write_checkpoint(command.folder / "a.ckpt", config=whole_config())
    (command.folder / "list.json").write_text('{"data": "digits", "split": "test", "indices": []}')
    outcome = command("evaluate", "a.ckpt", "exclude=list.json")
    assert outcome.code == 0, outcome.err
    assert "360 images of the test set, 0 left out" in outcome.out
    assert "is for the test set" in command("evaluate", "a.ckpt", "exclude=list.json", "split=val").err
