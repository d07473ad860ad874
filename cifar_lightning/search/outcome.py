"""What a search leaves and prints: trials.csv, a table, figures, and its best config as an experiment file."""

import os
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from cifar_lightning import api
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.reporting import studies
from cifar_lightning.reporting.figures import save_figure
from cifar_lightning.reporting.files import write_csv, write_text
from cifar_lightning.reporting.tables import duration, markdown_table, percent, rich_table
from cifar_lightning.reporting.trials import trial_table
from cifar_lightning.search.best import experiment
from cifar_lightning.search.definition import Search
from cifar_lightning.search.space import overrides, text
from cifar_lightning.search.study import counted, point_of

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
SHOWN = 10  # trials in the table on the terminal


def trial_rows(search: Search, study: optuna.Study) -> list[dict[str, Any]]:
    """Every trial that counts, as plain values, in the order in which they began; choices are texts."""
    rows = []
    for trial in counted(study.get_trials(deepcopy=False)):
        last = max(trial.intermediate_values, default=None)
        rows.append(
            {
                "number": trial.number,
                "state": STATES.get(trial.state, "running"),
                "value": trial.value if trial.value is not None or last is None else trial.intermediate_values[last],
                "epochs": trial.user_attrs.get("epochs"),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "params": _params(trial, search),
                "reason": trial.user_attrs.get("reason", ""),
            }
        )
    return rows


def _params(trial: FrozenTrial, search: Search) -> dict[str, Any]:
    point = point_of(trial, search.space)
    return {p.key: text(point[p.key]) if p.choices else point[p.key] for p in search.space if p.key in point}


def announce_start(search: Search, study: optuna.Study) -> None:
    there = len(counted(study.get_trials(deepcopy=False)))
    begun = f", {there} of them there already" if there else ""
    what = f"{search.n_trials} trials{begun}, pruning: {search.pruner}, in {_here(search.folder)}"
    say(f"study {search.study_name}: {what}")


def announce(search: Search, study: optuna.Study, trial: FrozenTrial) -> None:
    """Say in a line what came of a trial."""
    if trial.state == TrialState.FAIL and "reason" not in trial.user_attrs:  # interrupted, or one too many
        return
    row = next(row for row in trial_rows(search, study) if row["number"] == trial.number)
    settings = " ".join(overrides(point_of(trial, search.space)))
    if row["state"] == "failed":
        result = f"failed: {row['reason']}"
    elif row["state"] == "pruned":
        result = f"pruned after epoch {row['epochs']} at {percent(row['value'])}"
    else:
        best = study.best_trial
        best_so_far = "the best so far" if best.number == trial.number else f"best {percent(best.value)}"
        result = f"{percent(row['value'])} ({best_so_far}) in {duration(row['seconds'])}"
    say(f"trial {trial.number}: {result}  {settings}")


def importances(study: optuna.Study) -> dict[str, float]:
    """Each parameter's share of the importance, the most important first; empty where nothing can be told."""
    done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    if len(done) < 2 or len({trial.value for trial in done}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a branch of a conditional space has few trials
        return optuna.importance.get_param_importances(study)


def write(search: Search, study: optuna.Study) -> Path | None:
    """Write the study's table, figures and experiment file below its folder; the last is returned."""
    rows = trial_rows(search, study)
    cells = _cells(rows)
    write_csv(search.folder / "trials.csv", cells)
    write_text(search.folder / "trials.md", markdown_table(trial_table(cells)) if rows else "No trial yet.\n")
    drawn = {
        "history": studies.history(rows),
        "importance": studies.importance(importances(study)),
        "parameters": studies.parameters(rows, {parameter.key: parameter.log for parameter in search.space}),
    }
    for name, figure in drawn.items():
        save_figure(figure, search.folder / "figures" / f"{name}.png")
    if not any(row["state"] == "complete" for row in rows):
        return None
    path = search.folder / "experiment" / f"best_{search.study_name}.yaml"  # no name that conf/experiment has
    write_text(path, best_experiment(search, study, path))
    return path


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**{key: value for key, value in row.items() if key != "params"}, **row["params"]} for row in rows]


def best_experiment(search: Search, study: optuna.Study, path: Path) -> str:
    best = study.best_trial
    config = api.compose([*search.overrides, *overrides(point_of(best, search.space))])
    done = len(counted(study.get_trials(deepcopy=False)))
    comments = [
        f"The best of {done} trials of the search {search.study_name} (trial {best.number}), found without test data.",
        f"  {train_command(path)}",
        f"Validation accuracy in the search: {percent(best.value)} (one run; the best of many is lucky, too).",
    ]
    return experiment(config, comments)


def train_command(path: Path) -> str:
    return shlex.join(
        ["python", "-m", "cifar_lightning", f"--config-dir={_here(path.parent.parent)}", f"experiment={path.stem}"]
    )


def show(search: Search, study: optuna.Study, path: Path | None) -> None:
    """Print the best trials, what mattered, where everything lies and how to train the best config.

    Raises UserError where no trial was completed.
    """
    rows = trial_rows(search, study)
    if path is None:
        reasons = [row["reason"] for row in rows if row["reason"]]
        because = f"; the last one failed: {reasons[-1]}" if reasons else ""
        raise UserError(f"no trial was completed{because}")
    counts = Counter(row["state"] for row in rows)
    words = ", ".join(f"{count} {state}" for state, count in counts.items())
    texts = trial_table(_cells(rows))
    # A pipe has no width, and a table squeezed into 80 columns can't be read.
    console = Console(width=max(Console().width, 120) if sys.stdout.isatty() else 250, highlight=False)
    console.print(rich_table(texts[:SHOWN], f"Study {search.study_name}: {words}"))
    for name in ("history", "importance", "parameters"):
        say(f"figure      {_here(search.folder / 'figures' / f'{name}.png')}")
    say(f"all trials  {_here(search.folder / 'trials.csv')}")
    say(f"best config {_here(path)}")
    say(f"train it    {train_command(path)}")


def _here(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
