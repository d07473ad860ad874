"""python -m cifar_lightning.summarize DIR...: one table of many runs, seeds folded into mean ± deviation."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import write_text
from cifar_lightning.reporting.summary import load_runs, summarize
from cifar_lightning.reporting.tables import rich_table

DESCRIPTION = """\
Summarise every run (metrics.json) below the given folders in one table.

Runs that differ in nothing but the seed become one row: mean ± sample deviation
(number of runs). Rows are sorted by validation accuracy where every run has one,
else by name.
"""
EXAMPLES = """\
examples:
  python -m cifar_lightning.summarize logs
      one row for each setting among all runs below logs
  python -m cifar_lightning.summarize logs/train/multiruns/* --by model,activation
      one row for each combination of model and activation, everything else folded
  python -m cifar_lightning.summarize logs/classic --out RESULTS.md
      the same table as Markdown, with hardware and versions beneath it

exit code: 1 if there was no run, or a metrics.json that could not be used
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m cifar_lightning.summarize",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("folders", nargs="+", metavar="DIR", help="a folder with runs in it, at any depth")
    result.add_argument(
        "--by",
        metavar="KEY,...",
        default="",
        help="group by these instead: a field of metrics.json (model, data, precision, ...) or an overridden key",
    )
    result.add_argument("--out", metavar="FILE.md", help="also write the table as Markdown")
    result.add_argument("--title", metavar="TEXT", help="a heading for FILE.md")
    result.add_argument("--note", metavar="TEXT", action="append", default=[], help="a line of your own in FILE.md")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    by = [key.strip() for key in arguments.by.split(",") if key.strip()]
    try:
        runs, problems = load_runs(arguments.folders)
        for problem in problems:
            print(f"left out: {problem}", file=sys.stderr)
        if not runs:
            raise UserError(f"no run to summarise: no usable metrics.json below {', '.join(arguments.folders)}.")
        summary = summarize(runs, by)
        # A pipe has no width, and a table squeezed into 80 columns can't be read.
        console = Console(width=max(Console().width, 120) if sys.stdout.isatty() else 250, highlight=False)
        console.print(rich_table(summary.rows))
        for note in summary.notes:
            console.print(note, markup=False, style="dim", soft_wrap=True)
        if arguments.out:
            heading = [f"# {arguments.title}\n"] if arguments.title else []
            write_text(
                arguments.out, "\n".join([*heading, *(f"{note}\n" for note in arguments.note), summary.markdown()])
            )
            console.print(f"Written to {arguments.out}", markup=False, soft_wrap=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
