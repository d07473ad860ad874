"""Build the report of a run, a sweep, a search or any set of runs, as sections of blocks."""

import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_csv, read_text, read_yaml
from cifar_lightning.reporting.html import Block, Picture, picture, pictures, render_page
from cifar_lightning.reporting.ledger import looks
from cifar_lightning.reporting.run_files import Run
from cifar_lightning.reporting.summary import Summary, ordered, summarize
from cifar_lightning.reporting.tables import (
    NOTHING,
    Row,
    class_rows,
    duration,
    number,
    percent,
    result_rows,
    spread,
    without_empty_columns,
)
from cifar_lightning.reporting.trials import trial_table

PLACED = (
    "learning_curves",
    "accuracy_per_class",
    "confusion_matrix",
    "mistakes",
)  # in sections of their own; the others share one
GROUPS = ("data", "model", "activation", "augmentation", "optimizer", "scheduler", "trainer", "callbacks", "debug")
NOISE_COLUMNS = {
    "train/acc_clean": "right labels: accuracy",
    "train/acc_flipped": "wrong labels: accuracy",
    "train/memorized": "wrong labels: learnt by heart",
}
MISTAKES = 24  # rows of the table: as many as images in the figure
SWEEP = "multirun.yaml"  # Hydra's record of a sweep
WITH_FIGURES = 20  # runs of a sweep whose figures are shown: 0.3 MB each
IN_SWEEP = ("Result", "Mistakes", "How it was made", "Configuration")  # what a sweep's page shows of a run


def usable_runs(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs whose files can be shown, and a line about each of the others."""
    kept, problems = [], []
    for run in runs:
        try:
            run_sections(run)
        except (AttributeError, KeyError, OSError, TypeError, ValueError, UserError) as error:
            what = str(error).strip().partition("\n")[0]
            problems.append(f"{run.path}: can't be shown ({type(error).__name__}: {what})")
        else:
            kept.append(run)
    return kept, problems


def run_page(run: Run) -> str:
    metrics = run.metrics
    seed = f"seed {metrics['seed']}" if metrics.get("seed") is not None else None
    published = metrics.get("published_test_acc")
    return render_page(
        title=summarize([run]).settings[0].name,
        subtitle=", ".join(str(detail) for detail in (seed, metrics.get("data"), _day(run)) if detail),
        tiles=[
            ("test accuracy", percent(metrics.get("test/acc")), f"published: {published} %" if published else ""),
            ("validation accuracy", percent(metrics.get("val/acc")), ""),
            ("parameters", number(metrics.get("parameters")), ""),
            ("training time", duration(metrics.get("train_seconds")), f"{number(metrics.get('epochs'))} epochs"),
        ],
        sections=run_sections(run, pictures(run.path.parent / "figures")),
        folder=run.path.parent,
    )


def run_sections(run: Run, found: Mapping[str, Picture] | None = None) -> dict[str, list[Block]]:
    """All that the files of a run say, together with the figures found."""
    metrics, folder, found = run.metrics, run.path.parent, found or {}
    figures = {name: [("figure", found[name])] if name in found else [] for name in PLACED}
    config = read_text(folder / "config.yaml") if os.path.lexists(folder / "config.yaml") else ""
    mistakes = mistake_rows(folder / "predictions.csv")
    tested = [("table", result_rows(metrics), "The tested checkpoint"), *figures["accuracy_per_class"]]
    classes = class_rows(metrics) if metrics.get("test/acc_per_class") else []
    return {
        "Result": [
            ("pair", tested),
            *(("note", sentence) for sentence in looks([(run.path, metrics)])),
            *figures["learning_curves"],
            *_folded("Every epoch as a table", history_rows(run), "Training history"),
        ],
        "Classes": [("table", classes, "Each class of the test images"), *figures["confusion_matrix"]]
        if classes
        else [],
        "Mistakes": [
            *figures["mistakes"],
            *_folded("The same as a table", mistakes, "Wrong predictions, the most confident first"),
        ],
        "More figures": [("figure", shown) for name, shown in found.items() if name not in PLACED],
        "How it was made": [("code", metrics.get("command") or NOTHING), ("facts", run_facts(metrics))],
        "Configuration": [
            ("table", setting_rows(run), "What was chosen, and what was overridden"),
            *([("details", "The whole config", [("code", config)])] if config else []),
        ],
    }


def _folded(title: str, rows: Sequence[Row], caption: str) -> list[Block]:
    return [("details", title, [("table", rows, caption)])] if rows else []


def run_facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else is needed to reproduce the run, as far as recorded."""
    data, checksum = metrics.get("data"), metrics.get("data_checksum")
    processes = metrics.get("processes") or 1
    facts = {
        "Seed": metrics.get("seed"),
        "Hardware": metrics.get("hardware"),
        "Device": f"{metrics.get('accelerator')}{f', {processes} processes' if processes > 1 else ''}",
        "Precision": metrics.get("precision"),
        "Data": f"{data}, checksum {checksum}" if checksum else data,
        "Training images": number(metrics["train_images"]) if metrics.get("train_images") else None,
        "Versions": ", ".join(f"{name} {version}" for name, version in (metrics.get("versions") or {}).items()),
        "Tags": ", ".join(map(str, metrics.get("tags") or [])),
        "Finished": str(metrics.get("date") or "").replace("T", " ").replace("+00:00", " UTC"),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "", "None")]


def setting_rows(run: Run) -> list[Row]:
    """The choice of each group, then what else was overridden."""
    file = run.path.with_name("config.yaml")
    config = read_yaml(file) if os.path.lexists(file) else {}
    choices = (config if isinstance(config, dict) else {}).get("choices") or {}
    chosen = {name: str(choices[name]) for name in ("experiment", *GROUPS) if choices.get(name) is not None}
    typed = {name: value or "removed" for name, value in run.overrides.items() if name not in chosen}
    return [{"setting": name, "value": value} for name, value in (chosen | typed).items()]


def history_rows(run: Run) -> list[Row]:
    rows = []
    for line in run.history:
        row = {"epoch": number(line["epoch"])}
        for split, words in (("train", "training"), ("val", "validation")):
            row[f"{words} loss"] = number(line[f"{split}/loss"], 4)
            row[f"{words} accuracy"] = percent(line[f"{split}/acc"])
        for key, words in NOISE_COLUMNS.items():
            row[words] = percent(line.get(key))
        rows.append(row | {"learning rate": f"{line['lr']:.3g}", "time": duration(line["seconds"])})
    return without_empty_columns(rows)


def mistake_rows(path: Path) -> list[Row]:
    lines = read_csv(path) if path.exists() else []
    wrong = sorted((line for line in lines if line["label"] != line["prediction"]), key=lambda x: -x["confidence"])
    return [
        {
            "image": str(line["index"]),
            "true class": str(line["label"]),
            "prediction": str(line["prediction"]),
            "confidence": percent(line["confidence"], 1),
        }
        for line in wrong[:MISTAKES]
    ]


def page_of_runs(folder: Path, runs: Sequence[Run], missing: Sequence[Row], summary: Summary) -> str:
    """The report of all runs below a folder; `missing` has a row for each job or file without a result."""
    trials = trial_rows(folder)
    members = [(setting.name, run) for setting in summary.settings for run in setting.runs]
    days = sorted({_day(run) for run in runs} - {""})
    caption = "The best first; of a pruned trial, the accuracy after its last epoch"
    if not trials:
        caption = "One row per setting: mean ± standard deviation over its runs (number of runs)"
    best = [path for path in sorted((folder / "experiment").glob("best_*.yaml")) if trials]
    command = sweep_command(folder)
    left_out = len(members) - WITH_FIGURES
    facts = {
        name: "; ".join(dict.fromkeys(str(run.metrics[key]) for run in runs if run.metrics.get(key) is not None))
        for name, key in (("Seeds", "seed"), ("Hardware", "hardware"), ("Data checksum", "data_checksum"))
    }
    sections: dict[str, list[Block]] = {
        "Trials" if trials else "Summary": [
            ("table", trials or summary.rows, caption),
            *(("note", note) for note in summary.notes),
        ],
        "Without a result": [("table", missing, "Jobs and files without a result")] if missing else [],
        "Comparison": [
            ("figure", shown)
            for shown in (pictures(folder / "figures").values() if trials else compared_pictures(summary))
        ],
        "Runs": [
            (
                "table",
                without_empty_columns([run_row(name, run, folder) for name, run in members]),
                "Every completed run, in the order of the table above",
            ),
            *(run_details(name, run) for name, run in members[:WITH_FIGURES]),
            *(
                [("note", f"The other {left_out} runs have their figures in the reports of their own folders.")]
                if left_out > 0
                else []
            ),
        ],
        "How they were made": [
            ("code", command)
            if command
            else ("note", "These runs come from several commands; each has its own above."),
            ("facts", [(name, text or "unknown") for name, text in facts.items()]),
            *(("details", "The best config, as an experiment file", [("code", read_text(path))]) for path in best),
        ],
    }
    return render_page(
        title=f"Search {folder.resolve().name}" if trials else runs_title(folder, runs),
        subtitle=" to ".join(dict.fromkeys(days[:1] + days[-1:])),
        tiles=tiles_of_runs(summary, runs, missing, trials),
        sections=sections,
        folder=folder,
    )


def runs_title(folder: Path, runs: Sequence[Run]) -> str:
    """The swept keys, or the name of a folder that is not a sweep."""
    keys = ordered(key for run in runs for key in run.overrides)
    swept = [key for key in keys if len({run.overrides.get(key) for run in runs}) > 1]
    if not (folder / SWEEP).is_file():
        return f"Runs in {folder.resolve().name}"
    return f"Sweep over {' and '.join([', '.join(swept[:-1]), swept[-1]][len(swept) < 2 :])}" if swept else "Sweep"


def trial_rows(folder: Path) -> list[Row]:
    """The trials in the folder of a search; none for any other folder."""
    try:
        return trial_table(read_csv(folder / "trials.csv"))
    except (OSError, KeyError, TypeError, ValueError):
        return []


def tiles_of_runs(
    summary: Summary, runs: Sequence[Run], missing: Sequence[Row], trials: Sequence[Row]
) -> list[tuple[str, str, str]]:
    best = summary.settings[0]
    tiles = []
    if summary.ranked and len(summary.rows) > 1:
        tiles.append(("best by validation", best.name, ""))
        for words, split in (("its validation accuracy", "val"), ("its test accuracy", "test")):
            values = best.accuracies(split)
            note = f"mean ± standard deviation of {len(values)} runs" if len(values) > 1 else "one run"
            tiles.append((words, f"{spread(values)} %" if values else NOTHING, note))
    if trials:
        states = Counter(trial["state"] for trial in trials)
        tiles.append(("trials", str(len(trials)), ", ".join(f"{count} {state}" for state, count in states.items())))
    else:
        tiles.append(("runs", str(len(runs)), f"{len(summary.rows)} setting{'s' * (len(summary.rows) != 1)}"))
    tiles.append(("training time", duration(sum(run.metrics.get("train_seconds") or 0 for run in runs)), "in all"))
    if missing:
        tiles.append(("without a result", str(len(missing)), ""))
    return tiles


def run_details(name: str, run: Run) -> Block:
    sections = run_sections(run, pictures(run.path.parent / "figures"))
    return "details", f"{name}, seed {run.metrics.get('seed')}", [b for heading in IN_SWEEP for b in sections[heading]]


def run_row(name: str, run: Run, folder: Path) -> Row:
    metrics = run.metrics
    return {
        "run": name,
        "seed": str(metrics.get("seed", NOTHING)),
        "validation": percent(metrics.get("val/acc")),
        "test": percent(metrics.get("test/acc")),
        "training time": duration(metrics.get("train_seconds")),
        "folder": str(run.path.parent.relative_to(folder)) if run.path.is_relative_to(folder) else str(run.path.parent),
    }


def compared_pictures(summary: Summary) -> Iterable[Picture]:
    """The figures of a summary, drawn again, as the sweep may have grown since its own were saved."""
    from cifar_lightning.reporting.comparison_figures import comparison_figures  # matplotlib takes its time
    from cifar_lightning.reporting.figures import DPI, styled

    for name, figure in comparison_figures(summary).items():
        buffer = io.BytesIO()
        styled(figure.savefig)(buffer, format="png", dpi=DPI)
        yield picture(name, buffer.getvalue())


def sweep_command(folder: Path) -> str:
    """The command line, as recorded by Hydra in the folder of a sweep; empty for any other folder."""
    try:
        noted = read_yaml(folder / SWEEP)
        return " ".join(["python -m cifar_lightning -m", *noted["hydra"]["overrides"]["task"]])
    except (OSError, TypeError, KeyError, ValueError, UserError):
        return ""


def _day(run: Run) -> str:
    return str(run.metrics.get("date") or "")[:10]
