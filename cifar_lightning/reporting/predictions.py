"""What a network says of single images: rows for a table, and files with every probability."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from cifar_lightning.reporting.files import write_csv, write_json
from cifar_lightning.reporting.tables import Row, percent

Ranked = Sequence[tuple[str, float]]


def prediction_rows(names: Sequence[str], ranked: Sequence[Ranked], labels: Sequence[str] | None = None) -> list[Row]:
    """One row an image: its name, its label if known, its most probable classes with their probabilities."""
    rows = []
    for i, (name, classes) in enumerate(zip(names, ranked, strict=True)):
        row = {"image": name} if labels is None else {"image": name, "label": labels[i]}
        for title, (class_name, probability) in zip(("prediction", "second", "third"), classes, strict=False):
            row[title] = f"{class_name} {percent(probability, 1)}"
        rows.append(row)
    return rows


def write_probabilities(
    path: Path,
    names: Sequence[str],
    probabilities: Tensor,
    class_names: Sequence[str],
    labels: Sequence[str] | None = None,
) -> None:
    """Write a CSV or JSON file, as its suffix says: of each image the prediction and the probabilities [N, K]."""
    records = []
    for i, (name, row) in enumerate(zip(names, probabilities.double().tolist(), strict=True)):
        best = max(range(len(row)), key=row.__getitem__)
        label = {} if labels is None else {"label": labels[i]}
        answer = {"image": name, **label, "prediction": class_names[best], "confidence": round(row[best], 6)}
        by_class = {class_name: round(p, 6) for class_name, p in zip(class_names, row, strict=True)}
        records.append((answer, by_class))
    if path.suffix == ".json":
        images = [answer | {"probabilities": by_class} for answer, by_class in records]
        write_json(path, {"class_names": list(class_names), "images": images})
    else:
        write_csv(path, [answer | {f"p({name})": p for name, p in by_class.items()} for answer, by_class in records])
