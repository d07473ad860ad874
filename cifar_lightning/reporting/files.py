"""Write and read JSON, CSV and text files; a file appears whole or not at all."""

import csv
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from cifar_lightning.errors import UserError, first_line, printable, regular


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, which replaces `path` if the block ends without an exception.

    If the block fails, `path` is unchanged and the temporary file is deleted.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a part of its path is a file" if in_the_way else error.strerror or error
        raise UserError(f"can't write {path}: {reason}. Choose another folder, or mend this one.") from error
    finally:
        if os.path.lexists(temporary):
            temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    with atomic_path(path) as temporary:
        # A path that is not UTF-8 contains surrogates, for which JSON and YAML have the same escape.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write strict JSON, with null for NaN and infinities, which JSON lacks."""
    write_text(path, json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


MOST_BYTES = 1 << 24  # of a text that is read back; those of a run have a few thousand


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of an untrusted file. Raises UserError for a link, a pipe, or a file that is too large."""
    path = Path(path)
    if path.is_symlink():
        raise UserError(f"{path} is a symbolic link, which no run makes")
    if regular(path).stat().st_size > MOST_BYTES:
        raise UserError(f"{path} is larger than any file of a run")
    return path.read_text(encoding="utf-8", errors="replace")


def read_json(path: str | os.PathLike[str]) -> Any:
    """What the file holds. Raises UserError, as `read_text` does, and ValueError for anything that is not JSON."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON file ({first_line(error)})") from error


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """What the file holds. Raises UserError, as `read_text` does, and ValueError for anything but plain YAML."""
    try:
        return yaml.load(read_text(path), _NoAliases)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not a YAML file ({first_line(error)})") from error


class _NoAliases(yaml.SafeLoader):
    """Refuses references inside a document: a few lines of them could stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to itself")
        return super().compose_node(parent, index)


def write_csv(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write the rows below a header, by default of all their keys; None and missing keys are empty cells."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """Escape control characters, and put an apostrophe before text that a spreadsheet would take for a formula."""
    if not isinstance(value, str):
        return value
    text = printable(value).replace("\n", "\\n")
    return f"'{text}" if text[:1] in tuple("=+-@") and not isinstance(_value(text), int | float) else text


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read what `write_csv` wrote: numbers as numbers, empty cells as None, everything else as text."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> int | float | str | None:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text or None


def write_predictions(
    path: str | os.PathLike[str],
    indices: Sequence[int],
    labels: Sequence[int],
    predictions: Sequence[int],
    confidences: Sequence[float],
    class_names: Sequence[str],
) -> None:
    """Write predictions.csv: index, true class, predicted class and confidence of each image."""
    rows = [
        {
            "index": int(index),
            "label": class_names[int(label)],
            "prediction": class_names[int(prediction)],
            "confidence": f"{float(confidence):.6f}",
        }
        for index, label, prediction, confidence in zip(indices, labels, predictions, confidences, strict=True)
    ]
    write_csv(path, rows)


def _plain(value: Any) -> Any:
    """A copy with plain containers and numbers instead of NumPy's and torch's, and None for non-finite numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, os.PathLike) else value
