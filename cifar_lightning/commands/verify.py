"""The command verify: a run trained again from its own record, and compared with it."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_lightning.commands.parser import ELSEWHERE, LEDGER, Command, Given, Key
from cifar_lightning.config.compose import quoted
from cifar_lightning.console import say
from cifar_lightning.errors import Interrupted, UserError
from cifar_lightning.reporting.ledger import ledger_of
from cifar_lightning.reporting.run_files import Run, load_runs
from cifar_lightning.reporting.table_files import check_figures, names_runs, read
from cifar_lightning.reporting.tables import rich_table

COMMAND = Command(
    "verify",
    "Train a run again from its own record, in a temporary folder, and compare: data, initial weights, the loss of\n"
    "each logged step, history, weights, metrics, predictions. Of a table that summarize wrote: the figures,\n"
    "and the first run of each row. Exit code 1 where something is not as recorded.",
    keys={
        "path": Key("a run's folder, or the FILE.md of a table"),
        "steps": Key("how many steps to repeat, without a test; all: the whole run", "all, of a table 200"),
        "tolerance": Key("how far losses (relatively) and accuracies may part; 0: not by a bit", "0"),
        **ELSEWHERE,
        **LEDGER,
    },
    examples={
        "logs/train/runs/NAME": "the whole run, which looks at the test set as the run did",
        "logs/train/runs/NAME steps=200": "the first 200 steps: initial weights, losses, epochs that end before",
        "RESULTS.md": "the first 200 steps of a run of each row, and the figures of all",
        "logs/train/runs/NAME tolerance=0.01": "on another kind of CPU or GPU, where sums round differently",
    },
    usage="RUN|TABLE.md [key=value ...]",
    bare="path",
)


def run(given: Given) -> int:
    if not given["path"]:
        raise UserError("RUN is missing: give the folder of a run, or a table that summarize wrote")
    path, tolerance = Path(given["path"]).expanduser(), tolerance_of(given["tolerance"])
    short = given["steps"] == COMMAND.keys["steps"].default
    whole = given["steps"] == "all" or (short and path.is_dir())
    steps = None if whole else steps_of("200" if short else given["steps"])
    try:
        if path.is_dir():
            return 0 if holds(finished_run(path), given, steps, tolerance) else 1
        return 0 if table_holds(path, given, steps, tolerance, short) else 1
    except Interrupted as ending:  # whose advice is about a folder that is gone
        raise KeyboardInterrupt from ending


def table_holds(path: Path, given: Given, steps: int | None, tolerance: float, short: bool) -> bool:
    """Whether the table's figures are those of its runs, and a run of each row is as recorded."""
    parted: list[str] = []
    if names_runs(path):
        from cifar_lightning.evaluation.marks import marked  # imports NumPy

        runs, parted = check_figures(path, marked)
        for words in parted:
            say(f"not as its runs say: {words}")
        if not parted:
            say(f"{path}: every figure is that of its runs")
        held = [(name, holds(first, given, steps, tolerance, name)) for name, first in runs]
    else:
        held = claims_hold(path, given, 1 if short else steps)
    broken = [name for name, good in held if not good]
    say(f"{len(held) - len(broken)} of {len(held)} rows hold" + (f"; not {', '.join(broken)}" if broken else ""))
    return not parted and not broken


def claims_hold(table: Path, given: Given, steps: int | None) -> list[tuple[str, bool]]:
    """Which rows hold of a table that does not name its runs: what each row's name says is trained."""
    from cifar_lightning.runs.claims import claims

    found = claims(read(table), table)
    say(f"{table} names no runs that are still there: what each row's name says is trained, to compare its figures")
    return [(claim.name, _claim_holds(claim, table, given, steps)) for claim in found]


def _claim_holds(claim: Any, table: Path, given: Given, steps: int | None) -> bool:
    from omegaconf import OmegaConf, open_dict

    from cifar_lightning.api import compose
    from cifar_lightning.runs.claims import agrees
    from cifar_lightning.runs.replay import StopAfter
    from cifar_lightning.runs.train import run as train

    words = [*claim.overrides, "logger=none", "callbacks.model_summary=null", "callbacks.dashboard=null"]
    words += [f"data.root={quoted(given['data.root'])}"] if given["data.root"] else []
    words += ["test=false"] if steps is not None else []
    say(f"{claim.name}: training {'a whole run' if steps is None else f'steps up to {steps:,}'}")
    with tempfile.TemporaryDirectory(prefix="verify-", ignore_cleanup_errors=True) as scratch:
        try:
            config = compose(words, output_dir=scratch)
        except UserError as error:
            raise UserError(f"{table}, row {claim.name}: it names no command that there is: {error}") from error
        OmegaConf.set_readonly(config, False)
        with open_dict(config):
            config.pop("overrides")
        config.paths.log_dir = str(ledger_of(table, given["paths.log_dir"]).parent)
        stop = [] if steps is None else [StopAfter(steps)]
        metrics = train(config, ["verify", *given["typed"]], show=False, callbacks=stop, repeats=table)
    findings = agrees(claim, metrics, steps is None)
    show(findings)
    return all(finding.same is not False for finding in findings)


def holds(recorded: Run, given: Given, steps: int | None, tolerance: float, name: str = "") -> bool:
    """Whether the run, trained again, is as it was recorded; prints what was compared."""
    # These import torch, which help and errors do without.
    from cifar_lightning.runs.agreement import compared, explanations, repeatable
    from cifar_lightning.runs.folders import shown
    from cifar_lightning.runs.replay import replay

    folder, log_dir = shown(recorded.path.parent), ledger_of(recorded.path, given["paths.log_dir"]).parent
    limit = repeatable(recorded)
    if limit is not None and (steps is None or limit[0] < steps):
        steps, reason = limit
        say(f"{folder}: repeated up to step {steps:,} only: {reason}")
    say(f"{name or folder}: training {'the whole run' if steps is None else f'{steps:,} steps'} again")
    words, trust = ["verify", *given["typed"]], [name for name in (given["trust"] or "").split(",") if name]
    with tempfile.TemporaryDirectory(prefix="verify-", ignore_cleanup_errors=True) as scratch:
        new = replay(recorded, Path(scratch), log_dir, words, steps, given["data.root"], trust)
        again = Run(Path(scratch) / "metrics.json", new)
        findings = compared(recorded, again, steps, tolerance)
    show(findings)
    broken, undecided = ([f.what for f in findings if f.same is same] for same in (False, None))
    deterministic = bool((recorded.config.get("trainer") or {}).get("deterministic"))
    different = explanations(recorded.metrics, new, deterministic)
    part = "as recorded" if steps is None else f"as recorded in its first {steps:,} steps"
    without = f" (not compared: {', '.join(undecided)})" if undecided else ""
    if not broken:
        how = "the same bit for bit" if tolerance == 0 else f"within tolerance={tolerance:g}"
        say(f"{folder}: {part}, {how}{without}")
        return True
    say(f"{folder}: not {part}: {', '.join(broken)}{without}")
    if different:
        say(f"this may explain it: {'; '.join(different)}. How close it is: tolerance=0.01")
    else:
        say("nothing in hardware, threads, precision or versions explains it: the record, config or data was changed")
    return False


def show(findings: Sequence[Any]) -> None:
    from rich.console import Console

    signs = {True: "✓", False: "✗", None: "-"}
    console = Console(width=None if sys.stdout.isatty() else 250, highlight=False)  # piped output has no width
    console.print(rich_table([{"": f"{signs[f.same]} {f.what}", "compared": f.words} for f in findings]))


def finished_run(folder: Path) -> Run:
    """The run in a folder. Raises UserError if it has no result, or one that is damaged."""
    if not (folder / "metrics.json").is_file():
        raise UserError(f"{folder} holds no finished run: there is no metrics.json in it")
    runs, problems = load_runs([folder])
    found = [one for one in runs if one.path == folder / "metrics.json"]
    if not found:
        raise UserError(problems[0])
    return found[0]


def steps_of(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"steps={text}: must be a number of at least 1, or all")
    return int(text)


def tolerance_of(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UserError(f"tolerance={text}: must be a number from 0 to below 1")
    return value


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
