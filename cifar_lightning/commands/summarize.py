"""The command summarize: one table of many runs, with mean ± standard deviation over seeds."""

import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.commands.parser import Command, Given, Key
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.run_files import load_runs
from cifar_lightning.reporting.summary import summarize
from cifar_lightning.sweeps.state import SWEEP, unfinished
from cifar_lightning.sweeps.summary import markdown, show_summary, write_summary

COMMAND = Command(
    "summarize",
    "Summarise every run (metrics.json) in and below the given folders in one table.\n"
    "Runs that differ in nothing but the seed become one row: mean ± standard deviation (number of runs).\n"
    "Rows are sorted by validation accuracy where every run has one, else by name; `vs. best` then marks those\n"
    "that are not worse in the test than the first, as `compare` decides. Jobs of a sweep without a result are\n"
    "listed with the reason. Exit code 1 if there was no run, or a metrics.json that could not be used.",
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
        raise UserError("FOLDER is missing: give a folder with runs, such as logs")
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
    from cifar_lightning.evaluation.marks import marked  # imports NumPy

    summary = marked(summarize(runs, by))
    show_summary(summary, missing)
    first, *others = map(Path, given["folder"])
    out = given["out"] or (first if not others and (first / SWEEP).exists() else None)  # a sweep's table goes into it
    if out is not None:
        text = "\n".join([*heading, *(f"{note}\n" for note in given["note"]), markdown(summary, missing)])
        say(f"Written to {write_summary(summary, text, Path(out), by)}")
    return 1 if problems else 0


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
