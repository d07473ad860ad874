"""A person's own images: whatever can be read is predicted, and what can't is named."""

import csv
import json

import numpy as np
import pytest
from helpers.checkpoints import whole_config, write_checkpoint
from helpers.command import Outcome
from PIL import Image

from cifar_lightning.checkpoints.load import load_data
from cifar_lightning.commands import predict
from cifar_lightning.data.digits import load_digits
from cifar_lightning.reporting import figures
from cifar_lightning.reporting.predictions import MOST_IMAGES

save = figures.save_figure

DIGITS = load_digits().test


@pytest.fixture
def predicted(tmp_path, monkeypatch, capsys):
    """`predicted("images=…")` is the command with a checkpoint, in a folder with two images of it."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "a.ckpt", config=whole_config("data.val_size=50"))
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for number, name in ((10, "photos/b.png"), (11, "photos/sub/a [1].bmp")):
        Image.fromarray(DIGITS.images[number].transpose(1, 2, 0)).save(tmp_path / name)

    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        return Outcome(predict.main(["ckpt_path=a.ckpt", *arguments]), *capsys.readouterr())

    return call


def table(out):
    """The cells of a printed table, row by row."""
    lines = [line for line in out.partition("images with predictions")[0].splitlines() if line.strip()]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def probabilities(path):
    return [image["probabilities"] for image in json.loads(path.read_text())["images"]]


def test_a_file_of_an_image_is_predicted_like_the_image_of_the_data_set(predicted, tmp_path):
    assert predicted("images=photos", "out=files.json").code == 0
    assert predicted("index=test:10,11", "out=index.json").code == 0
    assert probabilities(tmp_path / "files.json") == probabilities(tmp_path / "index.json")
    assert [sum(p.values()) for p in probabilities(tmp_path / "files.json")] == pytest.approx([1, 1], abs=1e-5)


def test_images_of_the_data_set_are_shown_with_their_labels(predicted, tmp_path):
    outcome = predicted("index=val:3,0,3", "out=index.csv")
    assert outcome.code == 0, outcome.err
    labels = load_data(whole_config("data.val_size=50")).val.labels[[3, 0, 3]].tolist()
    header, _, *rows = table(outcome.out)
    assert header == ["image", "label", "prediction", "second", "third"]
    assert [row[:2] for row in rows] == [[f"val:{i}", str(label)] for i, label in zip((3, 0, 3), labels, strict=True)]
    with (tmp_path / "index.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == list(map(str, labels))


def test_the_table_shows_the_three_most_probable_classes(predicted, tmp_path):
    outcome = predicted("images=photos/*.png", "out=b.json")
    (by_class,) = probabilities(tmp_path / "b.json")
    best = sorted(by_class, key=lambda name: -by_class[name])[:3]
    assert table(outcome.out)[2] == ["photos/b.png", *(f"{name} {100 * by_class[name]:.1f} %" for name in best)]


def test_what_can_not_be_read_is_named_and_the_rest_is_predicted(predicted, tmp_path):
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff not much of an image")
    (tmp_path / "photos" / "empty.png").touch()
    outcome = predicted("images=photos", "out=out.csv")
    assert outcome.code == 1
    first, *others = outcome.err.splitlines()
    assert first == "error: 2 of 4 images can't be read:"
    assert [line.split(":")[0].strip() for line in others] == ["photos/broken.jpg", "photos/empty.png"]
    assert [row[0] for row in table(outcome.out)[2:]] == ["photos/b.png", "photos/sub/a [1].bmp"]
    with (tmp_path / "out.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_where_nothing_can_be_read_nothing_is_written(predicted, tmp_path):
    (tmp_path / "empty.png").touch()
    outcome = predicted("images=empty.png", "out=out.csv")
    assert (outcome.code, outcome.out) == (1, "")
    assert not (tmp_path / "out.csv").exists()


def test_background_and_fit_change_what_the_network_sees(predicted, tmp_path):
    pixels = np.zeros((32, 64, 4), np.uint8)
    pixels[:, 32:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "photos" / "half.png")
    seen = []
    for more in ([], ["background=black"], ["fit=squash"]):
        assert predicted("images=photos/half.png", "out=a.json", *more).code == 0
        seen.append(str(probabilities(tmp_path / "a.json")))
    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either images=PATH or index="),
        (["images=photos", "index=test:1"], "give either images=PATH or index="),
        (["images=nowhere"], "images=nowhere: no such file"),
        (["images=photos/*.webp"], "no such file"),
        (["photos"], "ckpt_path=photos: no checkpoints/best.ckpt or last.ckpt in this folder"),
        (["image=photos"], "did you mean images?"),
        (["images=photos", "fit=corp"], "did you mean crop?"),
        (["images=photos", "background=whit"], "background=whit: not a colour"),
        (["images=photos", "out=a.txt"], "must end in .csv or .json"),
        (["images=photos", "out=photos"], "is a folder"),
        (["images=photos", "figure=photos"], "must end in .png"),
        (["images=photos", "figure=photos/b.png/a.png"], "can't be written"),
        (["images=photos", "out=photos/b.png/a.csv"], "can't be written"),
        (["index=test"], "e.g. index=test:10,11"),
        (["index=tset:1"], "e.g. index=test:10,11"),
        (["index=test:1,"], "e.g. index=test:10,11"),
        (["index=test:-1"], "e.g. index=test:10,11"),
        (["index=test:360"], "there are 360 images, numbered from 0"),
        (["index=val:50"], "there are 50 images"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(predicted, tmp_path, arguments, message):
    before = set(tmp_path.rglob("*"))
    outcome = predicted(*arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before


def test_the_images_are_drawn_with_truth_and_prediction_and_right_differs_from_wrong_without_colour(
    predicted, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure) or save(figure, path))
    numbers = list(range(MOST_IMAGES + 5))
    outcome = predicted(f"index=test:{','.join(map(str, numbers))}", "out=all.csv")
    assert outcome.code == 0, outcome.err
    assert f"(the first {MOST_IMAGES} of {len(numbers)}): a_predictions.png" in outcome.out
    with (tmp_path / "all.csv").open() as file:
        answers = list(csv.DictReader(file))[:MOST_IMAGES]
    expected, rights = [], []
    for answer in answers:
        right = answer["label"] == answer["prediction"]
        confidence = f"{100 * float(answer['confidence']):.1f} %"
        expected += [answer["image"], f"{'✓' if right else '✗'} {answer['prediction']}, {confidence}"]
        expected += [f"true: {answer['label']}"]
        rights.append(right)
    assert 0 < sum(rights) < len(rights)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts][:-1] == expected
    assert [patch.get_linestyle() in ("-", "solid") for patch in axes.patches] == rights
    with Image.open(tmp_path / "a_predictions.png") as picture:
        assert picture.width > 8 * 128


def test_a_persons_own_images_are_drawn_under_their_names_whatever_these_are(predicted, tmp_path, monkeypatch, recwarn):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure) or save(figure, path))
    for name in ("a\nb.png", "$\\frac.png", "数字.png", "a_name_that_is_much_longer.png"):
        Image.fromarray(DIGITS.images[0].transpose(1, 2, 0)).save(tmp_path / name)
    outcome = predicted("images=*.png", "figure=new/answers.png")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert "images with predictions: new/answers.png" in outcome.out
    assert (tmp_path / "new" / "answers.png").is_file()
    names = [text.get_text() for text in drawn[0].axes[0].texts][:-1:2]
    assert names == ["$\\frac.png", "a?b.png", "a_name_t…nger.png", "数字.png"]
