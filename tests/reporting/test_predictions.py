import csv
import json

import pytest
import torch

from cifar_lightning.reporting.predictions import prediction_rows, write_probabilities

NAMES = ["a, b.png", "c.png"]
CLASSES = ["cat", "dog"]
PROBABILITIES = torch.tensor([[0.25, 0.75], [2 / 3, 1 / 3]])


def test_a_row_an_image_with_its_most_probable_classes():
    ranked = [[("dog", 0.75), ("cat", 0.25)], [("cat", 2 / 3), ("dog", 1 / 3)]]
    assert prediction_rows(NAMES, ranked, ["cat", "cat"]) == [
        {"image": "a, b.png", "label": "cat", "prediction": "dog 75.0 %", "second": "cat 25.0 %"},
        {"image": "c.png", "label": "cat", "prediction": "cat 66.7 %", "second": "dog 33.3 %"},
    ]
    assert "label" not in prediction_rows(NAMES, ranked)[0]


def test_csv_holds_the_probability_of_every_class(tmp_path):
    write_probabilities(tmp_path / "out.csv", NAMES, PROBABILITIES, CLASSES)
    with (tmp_path / "out.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {"image": "a, b.png", "prediction": "dog", "confidence": "0.75", "p(cat)": "0.25", "p(dog)": "0.75"}
    assert float(second["p(cat)"]) == pytest.approx(2 / 3, abs=1e-6)


def test_json_holds_the_same_and_the_labels_if_known(tmp_path):
    write_probabilities(tmp_path / "out.json", NAMES, PROBABILITIES, CLASSES, labels=["cat", "dog"])
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["class_names"] == CLASSES
    assert content["images"][0] == {
        "image": "a, b.png",
        "label": "cat",
        "prediction": "dog",
        "confidence": 0.75,
        "probabilities": {"cat": 0.25, "dog": 0.75},
    }
