"""Show what an audit of the data found: pages of image pairs, and of images with a doubtful label."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cifar_lightning.reporting.html import Block, render_page
from cifar_lightning.reporting.tables import Row, number, percent

SHOWN = 500  # cards in a section: 4 kB an image
FREQUENT = 15  # rows of the table of confusions
PLACES = {
    "In test and training": {"test", "train"},
    "Within the test set": {"test"},
    "Within the training set": {"train"},
}
PAIR_COLUMNS = (
    "similarity", "mirrored", "embedding", "split_a", "index_a", "class_a", "split_b", "index_b", "class_b",
)  # fmt: skip
ERROR_COLUMNS = ("index", "label", "likely", "margin", "probability")


@dataclass(frozen=True)
class Card:
    """Images beside each other with lines of text below, the first of them in bold."""

    sources: list[str]
    alt: str
    lines: list[str]


def pair_rows(pairs: Any, alike: Any | None, train_images: int, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of pairs.csv: pairs by pixels, then those by embeddings alone; of two splits, the test image first.

    pairs, alike: `Pairs` of the training and test images in this order; labels: class names of all these images.
    """
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for found, column in ((pairs, "similarity"), (alike, "embedding")):
        if found is None:
            continue
        columns = (found.first, found.second, found.similarity, found.mirrored)
        for first, second, value, mirrored in zip(*(column.tolist() for column in columns), strict=True):
            row = rows.setdefault((first, second), dict.fromkeys(PAIR_COLUMNS) | {"mirrored": mirrored})
            row[column] = round(value, 4)
            # The later one is the test image, if only one is.
            swapped = first < train_images <= second
            for which, image in zip("ba" if swapped else "ab", (first, second), strict=True):
                in_test = image >= train_images
                row[f"split_{which}"] = "test" if in_test else "train"
                row[f"index_{which}"] = image - train_images if in_test else image
                row[f"class_{which}"] = labels[image]
    return list(rows.values())


def leaked(pairs: Sequence[Mapping[str, Any]]) -> list[int]:
    """The indices of the test images that have a copy in training, by their pixels."""
    between = (pair for pair in pairs if (pair["split_a"], pair["split_b"]) == ("test", "train"))
    return sorted({pair["index_a"] for pair in between if pair["similarity"] is not None})


def error_rows(found: Any, labels: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of label_errors.csv, from `LabelErrors` and all given labels."""
    columns = (found.index, found.likely, found.margin, found.probability)
    return [
        {
            "index": index,
            "label": names[labels[index]],
            "likely": names[likely],
            "margin": round(margin, 4),
            "probability": round(probability, 4),
        }
        for index, likely, margin, probability in zip(*(column.tolist() for column in columns), strict=True)
    ]


def confusion_rows(joint: np.ndarray, names: Sequence[str]) -> list[Row]:
    """What is off the diagonal of a confident joint, the most frequent first."""
    pairs = [(int(joint[i, j]), names[i], names[j]) for i in range(len(names)) for j in range(len(names)) if i != j]
    ranked = sorted((pair for pair in pairs if pair[0]), key=lambda pair: -pair[0])
    return [{"given label": given, "likely label": likely, "images": str(count)} for count, given, likely in ranked]


def near_duplicate_page(
    *,
    name: str,
    pairs: Sequence[Mapping[str, Any]],
    images: Mapping[str, np.ndarray],
    facts: Sequence[tuple[str, str]],
    command: str,
    folder: Path,
) -> str:
    """The page of pairs, ranked as they are given.

    pairs: rows of pairs.csv; images: uint8 [N, C, H, W] of `test` and `train`.
    """
    by_pixels = [pair for pair in pairs if pair["similarity"] is not None]
    others = [pair for pair in pairs if pair["similarity"] is None]
    parts = {
        heading: [pair for pair in by_pixels if {pair["split_a"], pair["split_b"]} == splits]
        for heading, splits in PLACES.items()
    } | ({"By embedding alone": others} if others else {})
    sections: dict[str, list[Block]] = {
        heading: _shown([_pair_card(pair, images) for pair in some[:SHOWN]], "pairs.csv", len(some))
        or [("note", "No pair.")]
        for heading, some in parts.items()
    }
    leaks = leaked(pairs)
    tests = len(images["test"])
    return render_page(
        title=f"Near-duplicates in {name}",
        subtitle="Pairs of images, the most similar first: see for yourself whether they show the same picture",
        tiles=[
            ("test images with a copy in training", number(len(leaks)), f"{percent(len(leaks) / tests)} of {tests:,}"),
            ("pairs", number(len(by_pixels)), "within and across test and training"),
            ("pairs with two labels", number(sum(pair["class_a"] != pair["class_b"] for pair in by_pixels)), ""),
        ],
        sections=sections | {"How it was made": [("code", command), ("facts", facts)]},
        folder=folder,
    )


def label_error_page(
    *,
    name: str,
    errors: Sequence[Mapping[str, Any]],
    images: np.ndarray,
    confusions: Sequence[Row],
    accuracy: float,
    facts: Sequence[tuple[str, str]],
    command: str,
    folder: Path,
) -> str:
    """The page of images whose label is doubtful, ranked as they are given.

    errors: rows of label_errors.csv; images: uint8 [N, C, H, W] of the training set; confusions: counts of (given,
    likely) labels; accuracy: of the out-of-fold predictions.
    """
    cards = [
        Card(
            [data_uri(images[error["index"]])],
            f"training image {error['index']}, labelled {error['label']}",
            [
                f"{error['likely']}, not {error['label']}?",
                f"probability {percent(error['probability'], 1)}",
                f"margin {error['margin']:.3f}",
                f"train {error['index']}",
            ],
        )
        for error in errors[:SHOWN]
    ]
    share = len(errors) / max(len(images), 1)
    return render_page(
        title=f"Doubtful labels in {name}",
        subtitle="Training images whose label is doubted by networks that were not trained on them, the worst first",
        tiles=[
            ("doubtful labels", number(len(errors)), f"{percent(share)} of {len(images):,}"),
            ("accuracy", percent(accuracy), "of the networks, each on its own fold"),
        ],
        sections={
            "Images": _shown(cards, "label_errors.csv", len(errors)) or [("note", "No label is doubtful.")],
            "Confusions": [("table", confusions[:FREQUENT], "The most frequent given and likely labels")]
            if confusions
            else [],
            "How it was made": [("code", command), ("facts", facts)],
        },
        folder=folder,
    )


def _pair_card(pair: Mapping[str, Any], images: Mapping[str, np.ndarray]) -> Card:
    both = [(pair[f"split_{which}"], pair[f"index_{which}"], pair[f"class_{which}"]) for which in "ab"]
    found = [f"{words} {pair[key]:.3f}" for key, words in (("similarity", "pixels"), ("embedding", "embedding"))
             if pair[key] is not None]  # fmt: skip
    lines = [f"{split} {index:,}: {label}" for split, index, label in both]
    heading = ", ".join(found) + (", mirrored" if pair["mirrored"] else "")
    return Card([data_uri(images[split][index]) for split, index, _ in both], " and ".join(lines), [heading, *lines])


def _shown(cards: Sequence[Card], file: str, count: int) -> list[Block]:
    """The cards of the first of `count` rows of a file."""
    more = count - SHOWN
    notes: list[Block] = [("note", f"The other {more:,} are in {file}.")] if more > 0 else []
    return [("cards", cards), *notes] if cards else []


def data_uri(image: np.ndarray) -> str:
    """An image uint8 [C, H, W] of one or three channels as a PNG inside the page."""
    buffer = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
