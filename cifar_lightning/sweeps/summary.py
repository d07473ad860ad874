"""Print and write the table of a sweep or of any runs, and the jobs without a result."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cifar_lightning.console import say
from cifar_lightning.errors import printable
from cifar_lightning.reporting.files import write_csv, write_text
from cifar_lightning.reporting.run_files import load_runs
from cifar_lightning.reporting.summary import Summary, summarize
from cifar_lightning.reporting.table_files import with_runs
from cifar_lightning.reporting.tables import Row, markdown_table, rich_table
from cifar_lightning.runs.folders import shown
from cifar_lightning.sweeps.state import Unfinished, unfinished


def summarize_sweep(folder: Path) -> None:
    """Print the table of a sweep and write it with its figures into the sweep's folder."""
    runs, _ = load_runs([folder])
    missing = unfinished(folder)
    from cifar_lightning.evaluation.marks import marked  # imports NumPy

    if not runs:
        if any(job.failed for job in missing):  # a debug run leaves no results either
            write_text(folder / "summary.md", markdown(None, missing))
        return
    summary = marked(summarize(runs))
    show_summary(summary, missing)
    write_summary(summary, markdown(summary, missing), folder)
    for path in [*sorted((folder / "figures").glob("*.png")), folder / "summary.csv", folder / "summary.md"]:
        say(shown(path))


def show_summary(summary: Summary, missing: Sequence[Unfinished]) -> None:
    # Piped output has no width, and tables squeezed into 80 columns are hard to read.
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


def write_summary(summary: Summary, text: str, out: Path, by: Sequence[str] = ()) -> str:
    """Write the text to `out`; if that is a folder, also CSV and figures. Returns what was written.

    by: what the rows were grouped by, for `verify`.
    """
    if out.suffix and not out.is_dir():
        write_text(out, with_runs(text, summary, out, by))
        return str(out)
    from cifar_lightning.reporting.comparison_figures import comparison_figures  # imports matplotlib
    from cifar_lightning.reporting.figures import save_figure

    write_text(out / "summary.md", with_runs(text, summary, out / "summary.md", by))
    write_csv(out / "summary.csv", summary.csv_rows())
    for name, figure in comparison_figures(summary).items():
        save_figure(figure, out / "figures" / f"{name}.png")
    return f"{out}: summary.csv, summary.md, figures"
