"""Format numbers, and tables for the terminal and for Markdown from the same rows (column -> text)."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from cifar_lightning.errors import printable

NOTHING = "-"
Row = dict[str, str]


def percent(fraction: float | None, digits: int = 2) -> str:
    """0.7031 becomes "70.31 %", a missing value a dash."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f} %"


def number(value: float | None, digits: int = 0) -> str:
    """1234.5 becomes "1,234" (or with more digits), a missing value a dash."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def duration(seconds: float | None) -> str:
    """75.2 becomes "75 s", 301 "5:01 min", 7261 "2:01 h", a missing value a dash."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    units, unit = (round(seconds), "min") if round(seconds) < 3600 else (round(seconds / 60), "h")
    return f"{units // 60}:{units % 60:02d} {unit}"


def operations(count: float | None) -> str:
    """The number of floating-point operations: 3.2e14 becomes "0.32 PFLOP", a missing value a dash."""
    if count is None:
        return NOTHING
    size, unit = next(((size, unit) for size, unit in ((1e15, "P"), (1e12, "T")) if count >= size / 100), (1e9, "G"))
    return f"{count / size:.3g} {unit}FLOP"


def mean_and_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1 in the denominator); None where there are too few values."""
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def spread(values: Sequence[float], digits: int = 2, separator: str = " ") -> str:
    """[68, 70] becomes "69.00 ± 1.41", [68] becomes "68.00", no values become a dash."""
    texts = [f"{value:.{digits}f}" for value in mean_and_std(values) if value is not None]
    return f"{separator}± ".join(texts) or NOTHING


def result_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """The metrics of one run, as far as it has them."""
    rows = [
        ("test accuracy", percent(metrics.get("test/acc"))),
        ("test accuracy without TTA", percent(metrics.get("test/acc_without_tta"))),
        ("test accuracy with what was left out", percent(metrics.get("test/acc_with_excluded"))),
        ("test accuracy, top 5", percent(metrics.get("test/top5"))),
        ("test accuracy, many-shot classes", percent(metrics.get("test/acc_many"))),
        ("test accuracy, medium-shot classes", percent(metrics.get("test/acc_medium"))),
        ("test accuracy, few-shot classes", percent(metrics.get("test/acc_few"))),
        ("test loss", number(metrics.get("test/loss"), 4)),
        ("calibration error (ECE)", percent(metrics.get("test/ece"))),
        ("validation accuracy", percent(metrics.get("val/acc"))),
        ("validation accuracy, top 5", percent(metrics.get("val/top5"))),
        ("validation loss", number(metrics.get("val/loss"), 4)),
        ("validation calibration error (ECE)", percent(metrics.get("val/ece"))),
        ("training accuracy, right labels", percent(metrics.get("train/acc_clean"))),
        ("training accuracy, wrong labels", percent(metrics.get("train/acc_flipped"))),
        ("wrong labels learnt by heart", percent(metrics.get("train/memorized"))),
        ("parameters", number(metrics.get("parameters"))),
        ("epochs", number(metrics.get("epochs"))),
        ("operations", operations(metrics.get("operations"))),
        ("training time", duration(metrics.get("train_seconds"))),
        ("images a second", number(metrics.get("images_per_second"))),
        ("tested checkpoint", str((metrics.get("checkpoint") if "test/acc" in metrics else None) or NOTHING)),
    ]
    result = [{"": name, "this run": text} for name, text in rows if text != NOTHING]
    published = metrics.get("published_test_acc")
    if published is not None:
        for row in result:
            row["published"] = f"{published:.2f} %" if row[""] == "test accuracy" else ""
    return result


def class_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Accuracy, precision, F1 and the most frequent confusion of each class."""
    accuracies = metrics["test/acc_per_class"]
    names = list(accuracies)
    rows = [{"class": name, "accuracy": percent(accuracies[name], 1)} for name in names]
    for title, key in (("precision", "test/precision_per_class"), ("F1", "test/f1_per_class")):
        if key in metrics:
            for row, name in zip(rows, names, strict=True):
                row[title] = percent(metrics[key].get(name), 1)
    if "train_images_per_class" in metrics:
        for row, name in zip(rows, names, strict=True):
            row["training images"] = number(metrics["train_images_per_class"].get(name))
    if "test/confusion_matrix" in metrics:
        for i, (row, counts) in enumerate(zip(rows, metrics["test/confusion_matrix"], strict=True)):
            row["most often taken for"] = _most_confused(i, counts, names)
    return rows


def _most_confused(true: int, counts: Sequence[int], names: Sequence[str]) -> str:
    others = [(count, name) for i, (count, name) in enumerate(zip(counts, names, strict=True)) if i != true]
    count, name = max(others, key=lambda other: other[0])
    return f"{name} ({percent(count / sum(counts), 1)})" if count else NOTHING


def rich_table(rows: Sequence[Row], title: str | None = None) -> Table:
    """A table for the terminal, with numbers aligned to the right and text to the left."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns(rows):
        right = is_numeric(rows, column)
        # On a narrow terminal, titles and text are wrapped, but numbers are not.
        width = max(map(len, [*column.split(), *(row.get(column, "") for row in rows)])) if right else None
        table.add_column(
            Text(_in_a_line(column)), justify="right" if right else "left", overflow="fold", min_width=width
        )
    for row in rows:
        # Text, not str: square brackets in an override are not markup.
        table.add_row(*(Text(_in_a_line(row.get(column, ""))) for column in columns(rows)))
    return table


def _in_a_line(text: str) -> str:
    return printable(text).replace("\n", "\\n")


def markdown_table(rows: Sequence[Row]) -> str:
    """A Markdown table, with padded columns, so that its source is readable, too."""
    names = columns(rows)
    cells = [
        [_escaped(text) for text in line] for line in [names, *([r.get(name, "") for name in names] for r in rows)]
    ]
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(names))]
    right = [is_numeric(rows, name) for name in names]

    def joined(line: Sequence[str]) -> str:
        padded = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = joined(["-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)])
    return "\n".join([joined(cells[0]), rule, *map(joined, cells[1:])]) + "\n"


def without_empty_columns(rows: Sequence[Row]) -> list[Row]:
    full = [column for column in columns(rows) if any(row.get(column, NOTHING) != NOTHING for row in rows)]
    return [{column: row[column] for column in full if column in row} for row in rows]


def columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def is_numeric(rows: Sequence[Row], column: str) -> bool:
    texts = [row.get(column, "") for row in rows]
    # A number, optionally with standard deviation, count and unit: "70.31 %", "59.0 ± 0.4 (3)", "5:01 min".
    pattern = r"[-+]?\d[\d.,:e+-]*( ± [\d.]+)?( \(\d+\))?( (%|s|min|h|[GTP]FLOP))?"
    looks = [re.fullmatch(pattern, text) is not None for text in texts]
    return any(looks) and all(look or text in ("", NOTHING) for look, text in zip(looks, texts, strict=True))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
