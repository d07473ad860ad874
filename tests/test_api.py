"""What a program or a notebook does with a checkpoint."""

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from PIL import Image

from cifar_lightning.api import Predictions, load
from cifar_lightning.data.digits import load_digits
from cifar_lightning.errors import UserError

IMAGES = torch.from_numpy(load_digits().test.images[:7])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return load(write_checkpoint(tmp_path_factory.mktemp("run") / "a.ckpt"), accelerator="cpu")


def test_predictions_are_the_softmax_of_the_networks_logits(classifier):
    with torch.no_grad():
        logits = classifier.module(IMAGES)
    predictions = classifier.predict(IMAGES)
    torch.testing.assert_close(predictions.probabilities, logits.softmax(1))
    assert torch.equal(predictions.classes, logits.argmax(1))
    assert predictions.names == [str(i) for i in logits.argmax(1).tolist()]
    torch.testing.assert_close(predictions.confidences, logits.softmax(1).amax(1))
    assert len(predictions) == 7


def test_files_pil_images_arrays_and_tensors_are_the_same_images(classifier, tmp_path):
    pictures = [Image.fromarray(image.numpy().transpose(1, 2, 0)) for image in IMAGES]
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    expected = classifier.predict(IMAGES).probabilities
    for given in (pictures, paths, list(map(str, paths)), IMAGES.numpy(), IMAGES / 255, (IMAGES / 255).double()):
        torch.testing.assert_close(classifier.predict(given).probabilities, expected, rtol=1e-5, atol=1e-6)
    for given in (pictures[2], paths[2], str(paths[2]), IMAGES[2], IMAGES[2].numpy()):
        torch.testing.assert_close(classifier.predict(given).probabilities, expected[2:3], rtol=1e-5, atol=1e-6)


def test_many_images_are_predicted_in_batches(classifier):
    images = IMAGES.repeat(30, 1, 1, 1)
    expected = classifier.predict(IMAGES).probabilities.repeat(30, 1)
    torch.testing.assert_close(classifier.predict(images).probabilities, expected, rtol=1e-5, atol=1e-6)


def test_the_most_probable_classes_come_first():
    predictions = Predictions(torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), ("a", "b", "c"))
    top = predictions.top(2)
    assert [[name for name, _ in row] for row in top] == [["b", "c"], ["a", "b"]]
    assert [p for _, p in top[0]] == pytest.approx([0.5, 0.3])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.uint8), r"shape \(2, 32, 32, 3\): an array must be \[N, 3, 32, 32\]"),
        (np.zeros((2, 3, 64, 64), np.uint8), "paths or PIL images to have them resized"),
        (np.zeros((0, 3, 32, 32), np.uint8), "must be"),
        (np.zeros((1, 3, 32, 32), np.int64), "give uint8 from 0 to 255"),
        (np.full((1, 3, 32, 32), 255.0), r"in \[0, 1\]"),
        (np.full((1, 3, 32, 32), np.nan), r"in \[0, 1\]"),
        ([], "no images"),
        ("nowhere.png", "nowhere.png: there is no such file"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(classifier, images, message):
    with pytest.raises(UserError, match=message):
        classifier.predict(images)


def test_a_classifier_knows_its_run(classifier):
    assert classifier.class_names == tuple("0123456789")
    assert classifier.config["data"]["name"] == "digits"


def test_class_names_that_are_not_the_networks_are_noticed(tmp_path):
    path = write_checkpoint(tmp_path / "a.ckpt", class_names=("cat", "dog"))
    with pytest.raises(UserError, match="10 numbers for 2 classes"):
        load(path, accelerator="cpu").predict(IMAGES)
