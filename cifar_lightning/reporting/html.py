"""Render a report as one HTML file without network or JavaScript, with its figures inside as data URIs.

The template escapes whatever it is given (Jinja's autoescape), so that no name in a run's files becomes markup.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

import cifar_lightning
from cifar_lightning.reporting.tables import NOTHING, columns, is_numeric

PNG = b"\x89PNG\r\n\x1a\n"
SIGNS = re.compile(r"(?<=[=,/_])(?=\S)|(?<=\.)(?=[a-zA-Z_])")  # optimizer.|lr=|0.1
HARD_SPACE = "\N{NO-BREAK SPACE}"
Block = tuple[Any, ...]  # the name of a macro of page.html, and what it is given
Tile = tuple[str, str, str]  # a name, a value, and a note beneath it
# By the names of the files: a title, and a description for those who can't see the figure.
FIGURES = {
    "learning_curves": (
        "Learning curves",
        "Loss and accuracy against epochs, for training and validation; the numbers are in the history table.",
    ),
    "accuracy_per_class": (
        "Accuracy per class",
        "A bar for the accuracy of each class, and a line for their mean; the numbers are in the table of classes.",
    ),
    "confusion_matrix": (
        "Confusion matrix",
        "How many images of each true class (rows) were predicted as each class (columns); the table of classes names "
        "the most frequent confusion of each.",
    ),
    "mistakes": (
        "Most confident mistakes",
        "The misclassified test images with the highest confidence, each with its predicted and true class.",
    ),
    "reliability": (
        "Reliability",
        "Bars of the accuracy in each of 15 bins of confidence, beside a diagonal for perfect calibration.",
    ),
    "reliability_scaled": (
        "Reliability after temperature scaling",
        "The same bars with logits divided by the temperature.",
    ),
    "risk_coverage": (
        "Risk and coverage",
        "A curve of the error among the most certain images against their share of all images.",
    ),
    "corruptions": (
        "Accuracy for each corruption and severity",
        "A grid of corruptions (rows) and severities (columns), coloured by accuracy; means are in the table.",
    ),
    "other_test_sets": (
        "Accuracy for each corruption and severity of CIFAR-10-C",
        "A grid of corruptions (rows) and severities (columns), coloured by accuracy; means are in the table.",
    ),
    "samples": ("Training images as the network sees them", "A grid of augmented training images with their classes."),
    "accuracy": ("Accuracy of each setting", "Bars of the accuracy of each setting; the numbers are in the summary."),
    "accuracy_and_time": (
        "Accuracy against training time",
        "A dot for each setting, training time across and accuracy up; the numbers are in the summary.",
    ),
    "history": (
        "Every trial in its order",
        "A dot for the accuracy of each completed trial, a line for the best so far; the numbers are in the table.",
    ),
    "importance": ("How much each parameter mattered", "A bar for each parameter's share of the importance."),
    "parameters": (
        "Accuracy against each parameter",
        "A small chart for each parameter, with a mark for each trial; the numbers are in the table.",
    ),
    "heat_map": (
        "Accuracy for each pair of values",
        "A grid of the two settings that vary, coloured by accuracy; the numbers are in the summary.",
    ),
}


@dataclass(frozen=True)
class Picture:
    """A figure embedded in the page; width and height in CSS pixels."""

    title: str
    alt: str
    source: str
    width: int
    height: int


def picture(name: str, png: bytes) -> Picture:
    """Embed a PNG; `name` is the name of its file. Raises ValueError for bytes that are not a PNG."""
    if not png.startswith(PNG) or len(png) < 24:
        raise ValueError(f"{name}.png is not a PNG file")
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))  # PNG, section 11.2.2
    words = name.replace("_", " ")
    title, alt = FIGURES.get(name, (words[:1].upper() + words[1:], f"Figure: {words}"))
    return Picture(title, alt, f"data:image/png;base64,{base64.b64encode(png).decode()}", width, height)


def pictures(folder: Path) -> dict[str, Picture]:
    """Every PNG file in the folder, by its name without suffix; unreadable ones are left out."""
    found = {}
    for path in sorted(folder.glob("*.png")):
        try:
            found[path.stem] = picture(path.stem, path.read_bytes())
        except (OSError, ValueError):
            continue
    return found


def render_page(
    *, title: str, subtitle: str, tiles: Sequence[Tile], sections: Mapping[str, Sequence[Block]], folder: Path
) -> str:
    """Fill the template; tiles without a value and sections without blocks are left out."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable, "columns": columns, "numeric": is_numeric, "anchor": anchor}
    return environment.get_template("page.html").render(
        version=cifar_lightning.__version__,
        title=title,
        subtitle=subtitle,
        tiles=[tile for tile in tiles if tile[1] != NOTHING],
        sections={heading: blocks for heading, blocks in sections.items() if blocks},
        folder=folder.resolve(),
    )


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def breakable(text: str) -> Markup:
    """Escape text; words too long for a phone may break at punctuation, numbers and their units stay together."""
    escaped = str(escape(text)).replace(" %", f"{HARD_SPACE}%").replace("± ", f"±{HARD_SPACE}")
    return Markup(re.sub(r"\S{21,}", lambda word: SIGNS.sub("<wbr>", word[0]), escaped))
