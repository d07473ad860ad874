"""Read which class a network predicts for each image, from files of ours and of other people."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lightning.errors import UserError, first_line, regular

FORMS = "write one class an image, or one number for each class, in image order or with a column index"
INDEX = ("index", "id")


@dataclass(frozen=True)
class Answers:
    """The predicted class of each image: index int64 [N], ascending; predictions and, if known, labels: text [N]."""

    source: str
    index: np.ndarray
    predictions: np.ndarray
    labels: np.ndarray | None


def read_answers(path: Path, class_names: Sequence[str] | None) -> Answers:
    """Read a CSV or JSON file. class_names: what numbers stand for; None if that is unknown.

    A table has a column `prediction` (or a single column), or a column for each class, of which the largest number
    wins; `index` numbers the images, which otherwise stand in their order; `label` is the true class, and what else
    there is with a prediction is left out. JSON holds the same as a list of classes, of lists or of records, also
    below "images", or as lists "prediction" or "probabilities" and "index". So does what `predict` writes.
    Raises UserError, naming the line.
    """
    try:
        with regular(path).open(newline="", encoding="utf-8") as file:
            lines = _of_json(json.load(file)) if path.suffix == ".json" else list(csv.reader(file))
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{path} can't be read: {first_line(error)}") from error
    lines = [[str(cell).strip() for cell in line] for line in lines if line]
    if not lines:
        raise UserError(f"{path} is empty: {FORMS}")
    names = list(class_names or ())
    headed = _is_header(lines, names)
    columns = lines[0] if headed else _columns(path, len(lines[0]), names)
    rows = lines[headed:]
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise UserError(f"{path}, line {i + 1 + headed}: {len(row)} values instead of {len(columns)}")
    table = {column: [row[k] for row in rows] for k, column in enumerate(columns)}
    index = _index(path, next((table.pop(name) for name in INDEX if name in table), None), len(rows))
    labels = table.pop("label", None) if len(table) > 1 else None
    predictions = _predictions(path, table, names)
    order = np.argsort(index)
    return Answers(
        str(path),
        index[order],
        np.array([_named(path, cell, names) for cell in predictions])[order],
        None if labels is None else np.array([_named(path, cell, names) for cell in labels])[order],
    )


def _of_json(content: Any) -> list[list[Any]]:
    """The lines of a table, the first one with names if there are any."""
    if isinstance(content, dict):
        if "images" in content:
            return _of_json(content["images"])
        answers = next((content[key] for key in ("probabilities", "predictions", "prediction") if key in content), None)
        lines = _of_json(answers)
        if "index" not in content:
            return lines
        if not isinstance(content["index"], list) or len(content["index"]) != len(lines):
            raise ValueError(f'"index" is not a list of {len(lines)} numbers')
        return [[index, *line] for index, line in zip(content["index"], lines, strict=True)]
    if not isinstance(content, list) or not content:
        raise ValueError(FORMS)
    if not isinstance(content[0], dict):
        return [line if isinstance(line, list) else [line] for line in content]
    records = [_flat(record) for record in content]
    return [list(records[0]), *([record.get(key, "") for key in records[0]] for record in records)]


def _flat(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(FORMS)
    flat = {key: value for key, value in record.items() if not isinstance(value, dict | list)}
    many = record.get("probabilities")
    if isinstance(many, list):
        many = {f"class {k}": value for k, value in enumerate(many)}
    return flat | (many if isinstance(many, dict) else {})


def _is_header(lines: Sequence[Sequence[str]], names: Sequence[str]) -> bool:
    """Whether the first line has a word that is no class; if classes are unknown, one that does not come again."""
    if len(names) > 1 and sorted(lines[0]) == sorted(names):
        return True
    known = set(names or (cell for line in lines[1:] for cell in line))
    return any(not _is_number(cell) and cell not in known for cell in lines[0])


def _columns(path: Path, width: int, names: Sequence[str]) -> list[str]:
    """The columns of a table without a header."""
    if width == 1:
        return ["prediction"]
    if names and width in (len(names), len(names) + 1):
        return ["index"] * (width > len(names)) + list(names)
    if width == 2:
        return ["index", "prediction"]
    classes = (
        f", but there are {len(names)} classes" if names else " and no class names: say data=cifar10, for instance"
    )
    raise UserError(f"{path} has {width} columns{classes}; {FORMS}")


def _index(path: Path, cells: Sequence[str] | None, n: int) -> np.ndarray:
    if cells is None:
        return np.arange(n)
    bad = [cell for cell in cells if not cell.isdecimal() or len(cell) > 9]
    if bad:
        raise UserError(f"{path}: index {bad[0][:40]!r} is not the number of an image, counted from 0")
    index = np.array(cells, dtype=np.int64)
    values, counts = np.unique(index, return_counts=True)
    if len(values) < n:
        raise UserError(f"{path}: image {values[counts > 1][0]} is there twice")
    return index


def _predictions(path: Path, table: dict[str, list[str]], names: Sequence[str]) -> list[str]:
    if len(table) == 1 or "prediction" in table:
        return table.get("prediction") or next(iter(table.values()))
    of_class = {name: column for column in table for name in names if column in (name, f"p({name})")}
    columns = [of_class[name] for name in names] if len(of_class) == len(names) else list(table)
    if not names or len(columns) != len(names):
        classes = f"there are {len(names)} classes" if names else "their classes are unknown: say data=cifar10"
        raise UserError(f"{path} has no column prediction, but {len(columns)} others, and {classes}; {FORMS}")
    try:
        scores = np.array([table[column] for column in columns], dtype=np.float64).T
    except ValueError as error:
        raise UserError(f"{path}: {first_line(error)}; {FORMS}") from error
    if not np.isfinite(scores).all():
        line = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise UserError(f"{path}: image {line} has a value that is not finite")
    return [names[best] for best in scores.argmax(axis=1)]


def _named(path: Path, cell: str, names: Sequence[str]) -> str:
    """The class of a cell that holds its name or its number."""
    if not names or cell in names:
        return cell
    number = float(cell) if _is_number(cell) else math.nan
    if not (number.is_integer() and 0 <= number < len(names)):
        raise UserError(f"{path}: {cell[:40]!r} is none of the {len(names)} classes {names[0]} … {names[-1]}")
    return names[int(number)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
