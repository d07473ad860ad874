import csv
import json
import os

import numpy as np
import pytest
import torch

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import atomic_path, write_csv, write_json, write_predictions, write_text


def test_a_failing_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    target = tmp_path / "metrics.json"
    write_text(target, "old")

    def half_written():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_written()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "history.csv"
    write_text(target, "old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == target.parent  # else the last step would be a copy, not a rename
    assert target.read_text() == "new"


def test_what_json_can_not_hold_leaves_the_old_file(tmp_path):
    target = tmp_path / "metrics.json"
    write_json(target, {"epoch": 1})
    with pytest.raises(TypeError):
        write_json(target, {"epoch": object()})
    assert json.loads(target.read_text()) == {"epoch": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_folders_are_made_and_a_file_in_their_place_is_one_clear_error(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"
    with pytest.raises(UserError, match=r"can't write .*d\.txt: a part of its path is a file"):
        write_text(tmp_path / "a" / "b" / "c.txt" / "d.txt", "x")
    with pytest.raises(UserError, match=r"can't write .*e\.txt: a part of its path is a file"):
        write_text(tmp_path / "a" / "b" / "c.txt" / "d" / "e.txt", "x")


def test_files_have_the_permissions_of_any_other_file(tmp_path):
    write_text(tmp_path / "ours", "x")
    (tmp_path / "other").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_json_is_strict_and_holds_arrays_as_lists(tmp_path):
    content = {
        "test/acc": np.float32(0.5),
        "test/loss": float("nan"),
        "inf": np.array([1.0, np.inf]),
        "counts": torch.tensor([[1, 2], [3, 4]]),
        "class_names": ("cat", "Hündin"),
        "path": tmp_path,
    }
    write_json(tmp_path / "m.json", content)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8"), parse_constant=refuse) == {
        "test/acc": 0.5,
        "test/loss": None,
        "inf": [1.0, None],
        "counts": [[1, 2], [3, 4]],
        "class_names": ["cat", "Hündin"],
        "path": str(tmp_path),
    }


def test_csv_reads_back_as_written(tmp_path):
    write_csv(
        tmp_path / "history.csv",
        [
            {"epoch": 0, "train/loss": 0.1 + 0.2, "val/loss": None},
            {"epoch": 1, "train/loss": 1e-9, "val/loss": 0.5, "note": 'a "b", c'},
        ],
    )
    with (tmp_path / "history.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {"epoch": "0", "train/loss": "0.30000000000000004", "val/loss": "", "note": ""}
    assert (float(second["train/loss"]), second["note"]) == (1e-9, 'a "b", c')


def test_predictions_name_the_classes(tmp_path):
    path = tmp_path / "predictions.csv"
    confidences = torch.tensor([0.98765432, 1 / 3])
    write_predictions(path, range(2), torch.tensor([0, 1]), np.array([0, 0]), confidences, ["cat", "dog"])
    assert path.read_text() == "index,label,prediction,confidence\n0,cat,cat,0.987654\n1,dog,cat,0.333333\n"


def test_predictions_of_unequal_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        write_predictions(tmp_path / "predictions.csv", [0, 1], [0], [0], [1.0], ["cat"])
    assert os.listdir(tmp_path) == []
