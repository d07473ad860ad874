"""The command summarize: one table of many runs, seeds folded into mean ± standard deviation."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cifar_lightning.commands.parser import Command, Given, Key
from cifar_lightning.console import say
from cifar_lightning.errors import UserError, printable
from cifar_lightning.reporting.files import write_csv, write_text
from cifar_lightning.reporting.summary import Summary, load_runs, summarize
from cifar_lightning.reporting.tables import Row, markdown_table, rich_table
from cifar_lightning.sweeps.state import SWEEP, Unfinished, unfinished

COMMAND = Command(
    "summarize",
    "Summarise every run (metrics.json) in and below the given folders in one table.\n"
    "Runs that differ in nothing but the seed become one row: mean ± standard deviation (number of runs).\n"
    "Rows are sorted by validation accuracy where every run has one, else by name. Jobs of a sweep without a result\n"
    "are listed with the reason. Exit code 1 if there was no run, or a metrics.json that could not be used.",
    keys={
        "folder": Key("a folder with runs in it, at any depth; more than one may be given"),
        "by": Key("group by these instead: fields of metrics.json (model, precision, ...) or overridden keys"),
        "out": Key("FILE.md for the table alone, a folder for summary.csv, summary.md and figures/"),
        "title": Key("a heading for the Markdown"),
        "note": Key("a line of your own beneath it; more than one may be given"),
    },
    examples={
        "logs": "one row for each setting among all runs below logs",
        "logs/train/multiruns/NAME": "a sweep: also writes summary.csv, summary.md and figures/ into its folder",
        "logs by=model,activation out=compared": "everything else folded; all files in compared/",
        "logs/classic out=RESULTS.md": "the table alone as Markdown, with hardware and versions beneath it",
    },
    usage="FOLDER... [key=value ...]",
    bare="folder",
    several=("folder", "note"),
)


def run(given: Given) -> int:
    if not given["folder"]:
        raise UserError("which runs? give a folder, such as logs")
    by = [key.strip() for key in (given["by"] or "").split(",") if key.strip()]
    heading = [f"# {given['title']}\n"] if given["title"] else []
    runs, problems = load_runs(given["folder"])
    for problem in problems:
        say(f"left out: {problem}", sys.stderr)
    missing = [job for folder in given["folder"] for job in unfinished(Path(folder))]
    if not runs:
        for job in missing:
            say(f"without a result: {job.folder}: {job.reason}", sys.stderr)
        raise UserError(f"no run to summarise: no usable metrics.json below {', '.join(given['folder'])}.")
    summary = summarize(runs, by)
    show(summary, missing)
    out = output(given["folder"], given["out"])
    if out is not None:
        text = "\n".join([*heading, *(f"{note}\n" for note in given["note"]), markdown(summary, missing)])
        say(f"Written to {write(summary, text, out)}")
    return 1 if problems else 0


def output(folders: Sequence[str], out: str | None) -> Path | None:
    """Where to write: what was asked for, else into the folder of the one sweep that is summarised."""
    if out is not None:
        return Path(out)
    return Path(folders[0]) if len(folders) == 1 and (Path(folders[0]) / SWEEP).exists() else None


def summarize_sweep(folder: Path) -> None:
    """Print the table of a sweep and write it, with its figures, into the sweep's folder."""
    runs, _ = load_runs([folder])
    missing = unfinished(folder)
    if not runs:
        if any(job.failed for job in missing):  # else it was a rehearsal, which leaves no results
            write_text(folder / "summary.md", markdown(None, missing))
        return
    summary = summarize(runs)
    show(summary, missing)
    write(summary, markdown(summary, missing), folder)
    shown = Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    for path in [*sorted((shown / "figures").glob("*.png")), shown / "summary.csv", shown / "summary.md"]:
        say(path)


def show(summary: Summary, missing: Sequence[Unfinished]) -> None:
    # A pipe has no width, and a table squeezed into 80 columns can't be read.
    console = Console(width=None if sys.stdout.isatty() else 250, highlight=False)
    console.print(rich_table(summary.rows))
    if missing:
        console.print(rich_table(missing_rows(missing), "Without a result"))
    for note in summary.notes:
        console.print(printable(note), markup=False, style="dim", soft_wrap=True)


def missing_rows(missing: Sequence[Unfinished]) -> list[Row]:
    return [{"job": job.folder.name, "why": f"failed: {job.reason}" if job.failed else job.reason} for job in missing]


def markdown(summary: Summary | None, missing: Sequence[Unfinished]) -> str:
    parts = [summary.markdown()] if summary else []
    parts += [f"## Without a result\n\n{markdown_table(missing_rows(missing))}"] if missing else []
    return "\n".join(parts)


def write(summary: Summary, text: str, out: Path) -> str:
    """Write the table as Markdown, and where `out` is a folder as CSV and figures, too; says what and where."""
    if out.suffix and not out.is_dir():
        write_text(out, text)
        return str(out)
    from cifar_lightning.reporting.comparison import csv_rows, entries  # NumPy and matplotlib take their time
    from cifar_lightning.reporting.comparison_figures import comparison_figures
    from cifar_lightning.reporting.figures import save_figure

    compared = entries(summary)
    write_text(out / "summary.md", text)
    write_csv(out / "summary.csv", csv_rows(compared))
    for name, figure in comparison_figures(compared).items():
        save_figure(figure, out / "figures" / f"{name}.png")
    return f"{out}: summary.csv, summary.md, figures"


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
