"""A table's own record: which runs each row of a Markdown file is made of, so that its figures can be checked."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_text
from cifar_lightning.reporting.run_files import Run, load_runs
from cifar_lightning.reporting.summary import Summary, summarize
from cifar_lightning.reporting.tables import markdown_table

MARK = "<!-- runs of each row, for verify: "  # a comment, which no Markdown viewer shows


def with_runs(text: str, summary: Summary, file: Path, by: Sequence[str] = ()) -> str:
    """The Markdown with a comment that names the runs of each row, relative to the file."""
    here = file.absolute().parent
    rows = [[os.path.relpath(run.path.absolute().parent, here) for run in s.runs] for s in summary.settings]
    record = json.dumps({"by": list(by), "rows": rows}).replace("--", "-\\u002d")  # which would end the comment
    return f"{text}\n{MARK}{record} -->\n"


def names_runs(file: Path) -> bool:
    """Whether the file says which runs its rows are made of, and any of them is still there."""
    text = read(file)
    return MARK in text and any(map(_is_there, _folders(record_in(text, file), file)))


def _folders(record: dict[str, Any], file: Path) -> list[Path]:
    return [file.parent / folder for row in record["rows"] for folder in row]


def _is_there(folder: Path) -> bool:
    return (folder / "metrics.json").is_file()


def check_figures(file: Path, marked: Callable[[Summary], Summary]) -> tuple[list[tuple[str, Run]], list[str]]:
    """The first run of each row with the row's name, and what the table says other than its runs do.

    marked: adds the column that says which rows are not worse than the best.
    Raises UserError for a file without such a table.
    """
    text = read(file)
    record = record_in(text, file)
    folders = _folders(record, file)
    if gone := [folder for folder in folders if not _is_there(folder)]:
        more = f", nor of {len(gone) - 1} others" if len(gone) > 1 else ""
        raise UserError(f"{file}: there is no longer a result in {gone[0]}{more}, so its figures can't be checked")
    runs, problems = load_runs(folders)
    if problems:
        raise UserError(problems[0])
    own = {folder.resolve() / "metrics.json" for folder in folders}
    summary = marked(summarize([run for run in runs if run.path.resolve() in own], record["by"]))
    found, expected = table_in(text), table_in(markdown_table(summary.rows))
    return [(setting.name, setting.runs[0]) for setting in summary.settings], differences(found, expected)


def read(file: Path) -> str:
    try:
        return read_text(file)
    except OSError as error:
        raise UserError(f"{file}: {(error.strerror or str(error)).lower()}; give a run's folder, or a table") from error


def record_in(text: str, file: Path) -> dict[str, Any]:
    """Which runs each row is made of. Raises UserError if the text does not say so."""
    match = re.search(rf"^{re.escape(MARK)}(.*) -->$", text, re.M)
    try:
        record = json.loads(match[1]) if match else {}
        lists = [record["by"], *record["rows"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        lists = []
    if not lists[1:] or not all(isinstance(one, list) and all(isinstance(t, str) for t in one) for one in lists):
        raise UserError(f"{file} does not name the runs of its rows: write it anew with summarize FOLDER out={file}")
    return record


def table_in(text: str) -> list[list[str]]:
    """The cells of the first Markdown table, its header first."""
    lines = re.search(r"^\|.*\|\n\|[-: |]+\|\n(\|.*\|\n?)*", text, re.M)
    split = [re.split(r"(?<!\\)\|", line)[1:-1] for line in (lines[0].splitlines() if lines else [])]
    return [[cell.strip() for cell in line] for i, line in enumerate(split) if i != 1]


def differences(found: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> list[str]:
    """Each cell that is not as expected, in words."""
    if not found or found[0] != expected[0]:
        return ["the table is missing" if not found else f"its columns are {', '.join(found[0])}"]
    if len(found) != len(expected):
        return [f"it has {len(found) - 1} rows, its runs make {len(expected) - 1}"]
    return [
        f"{there[0]}, {name}: {cell} in the table, {right} from its runs"
        for there, here in zip(found[1:], expected[1:], strict=True)
        for name, cell, right in zip(found[0], [*there, *[""] * len(here)], here, strict=False)
        if cell != right
    ]
