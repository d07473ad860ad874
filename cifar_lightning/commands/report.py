"""The command report: one self-contained HTML page of a run, or of many."""

import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.commands.parser import Command, Given, Key
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import write_text
from cifar_lightning.reporting.pages import page_of_runs, run_page, usable_runs
from cifar_lightning.reporting.run_files import load_runs
from cifar_lightning.reporting.summary import summarize
from cifar_lightning.reporting.tables import Row
from cifar_lightning.sweeps.state import unfinished

COMMAND = Command(
    "report",
    "Write a report: one HTML page with result, figures, mistakes, config, and how it was made, of a run's folder, or\n"
    "of every run below a folder (a sweep, say), where seeds are folded into mean ± standard deviation. It needs no\n"
    "network and no JavaScript, so it can be mailed or archived.\n"
    "Exit code 1 if there was no run, or a metrics.json that could not be used.",
    keys={
        "folder": Key("the folder of a run or of a sweep, or one with runs in it"),
        "out": Key("where to write", "report.html in the folder"),
    },
    examples={
        "logs/train/runs/NAME": "a run: writes report.html into its folder",
        "logs/train/multiruns/NAME": "a sweep: the same, with its table, its figures and every run",
        "logs out=comparison.html": "all runs and sweeps below logs, side by side",
    },
    usage="FOLDER [key=value ...]",
    bare="folder",
)


def run(given: Given) -> int:
    if not given["folder"]:
        raise UserError("FOLDER is missing: give a run's folder, or one with runs in it, such as logs")
    folder = Path(given["folder"])
    page, problems = page_of(folder)
    out = folder if given["out"] == COMMAND.keys["out"].default else Path(given["out"])
    out = out / "report.html" if out.is_dir() else out
    write_text(out, page)
    for problem in problems:
        say(f"left out: {problem}", sys.stderr)
    say(out)
    return 1 if problems else 0


def page_of(folder: Path) -> tuple[str, list[str]]:
    """The page, and the problems of each metrics.json that is left out. Raises UserError."""
    runs, problems = load_runs([folder])
    runs, more = usable_runs(runs)
    problems += more
    own = folder / "metrics.json"
    if own.is_file():  # the folder of a run
        if found := [run for run in runs if run.path == own]:
            return run_page(found[0]), []
        raise UserError(next(problem for problem in problems if problem.startswith(str(own))))
    missing: list[Row] = [
        {"what": str(job.folder.relative_to(folder)), "why": f"failed: {job.reason}" if job.failed else job.reason}
        for job in unfinished(folder)
    ]
    missing += [dict(zip(("what", "why"), problem.split(": ", 1), strict=True)) for problem in problems]
    if not runs:
        reasons = "".join(f" {row['what']}: {row['why']}." for row in missing[:1])
        raise UserError(f"no run to report on: no usable metrics.json in or below {folder}.{reasons}")
    from cifar_lightning.evaluation.marks import marked  # imports NumPy

    return page_of_runs(folder, runs, missing, marked(summarize(runs))), problems


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
