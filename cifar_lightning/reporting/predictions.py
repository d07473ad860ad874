"""Show predictions for single images: table rows, a figure, and files with all probabilities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning.reporting.figures import image_grid
from cifar_lightning.reporting.files import write_csv, write_json
from cifar_lightning.reporting.tables import Row, percent

MOST_IMAGES = 100  # in the figure, which would be taller than 3,000 px with more
LONGEST_NAME = 18  # characters that fit below an image
Ranked = Sequence[tuple[str, float]]


def prediction_rows(names: Sequence[str], ranked: Sequence[Ranked], labels: Sequence[str] | None = None) -> list[Row]:
    """One row per image: name, label if known, and the most probable classes with their probabilities."""
    rows = []
    for i, (name, classes) in enumerate(zip(names, ranked, strict=True)):
        row = {"image": name} if labels is None else {"image": name, "label": labels[i]}
        for title, (class_name, probability) in zip(("prediction", "second", "third"), classes, strict=False):
            row[title] = f"{class_name} {percent(probability, 1)}"
        rows.append(row)
    return rows


def prediction_grid(
    images: np.ndarray, names: Sequence[str], ranked: Sequence[Ranked], labels: Sequence[str] | None = None
) -> Figure:
    """Draw the first MOST_IMAGES images, each with its name, the prediction and, if known, the true class.

    images: uint8 [N, 3, H, W]. Correct predictions have a tick and a thin frame, wrong ones a cross and a broken frame.
    """
    shown = list(zip(names, [classes[0] for classes in ranked], strict=True))[:MOST_IMAGES]
    answers = [f"{name}, {percent(probability, 1)}" for _, (name, probability) in shown]
    if labels is None:
        captions, correct, title = answers, [], "Prediction and confidence"
    else:
        correct = [prediction == label for (_, (prediction, _)), label in zip(shown, labels, strict=False)]
        marked = zip(correct, answers, labels, strict=False)
        captions = [f"{'✓' if good else '✗'} {answer}\ntrue: {label}" for good, answer, label in marked]
        title = f"{sum(correct)} of {len(correct)} correct (✓)"
    lines = [f"{_shortened(Path(name).name)}\n{text}" for (name, _), text in zip(shown, captions, strict=True)]
    return image_grid(images[: len(shown)], lines, title=title, width=128 if len(shown) > 4 else 256, correct=correct)


def _shortened(name: str) -> str:
    """The name on one line, cut in the middle if it is wider than an image."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def write_probabilities(
    path: Path,
    names: Sequence[str],
    probabilities: Tensor,
    class_names: Sequence[str],
    labels: Sequence[str] | None = None,
) -> None:
    """Write the prediction and the probabilities [N, K] of each image as CSV or JSON, by the suffix."""
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
