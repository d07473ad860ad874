"""Find what is compared: rows of a summary, runs, and files of predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import read_json
from cifar_lightning.reporting.run_files import Run, comparable, load_runs
from cifar_lightning.reporting.summary import Setting, Summary, summarize

Part = Literal["val", "test"]
SUMMARIES = ("summary.csv", "summary.md")
RESULT = "metrics.json"
EVALUATION = "evaluation.json"  # in a folder of the command evaluate


@dataclass(frozen=True)
class Member:
    """A network of a side: the file with its answers, and its run, if it is one of ours."""

    answers: Path
    run: Run | None = None


@dataclass(frozen=True)
class Found:
    """What was asked for, before its answers are read. Its name may be the user's own."""

    name: str
    members: Sequence[Member]

    @property
    def runs(self) -> list[Run]:
        return [member.run for member in self.members if member.run]


def find_sides(words: Sequence[str], split: Part, *, alone: bool) -> list[Found]:
    """The sides that the words stand for: PATH, PATH:ROW, NAME=PATH, or rows of the one folder that is given.

    alone: whether a folder stands for all its rows, as it does if there is nothing else.
    Raises UserError for what there is not.
    """
    folders = [word for word in words if _exists(word) and _has_rows(word)]
    pool = Path(folders[0]).expanduser() if len(folders) == 1 else None
    is_pool = pool and any(_sources(word) is None and _sources(word.partition("=")[2]) is None for word in words)
    found: list[Found] = []
    for word in words:
        name, equals, text = word.partition("=")
        if is_pool and word == folders[0]:
            continue
        if (sources := _sources(word)) is not None:
            found += _of_sources(word, word, sources, split, alone=alone)
        elif equals and (sources := _sources(text)) is not None:
            found += _of_sources(name, text, sources, split)
        elif pool is None:
            raise UserError(f"{word}: there is no such file or folder{_of_keys(name, equals)}")
        else:
            named = equals and "=" in text.partition(",")[0]
            found += _of_sources(name if named else word, word, [(pool, text if named else word)], split)
    return _by_setting(found, words) if len(found) > 1 else found


def _by_setting(found: Sequence[Found], words: Sequence[str]) -> list[Found]:
    """The sides, with runs that were given by their folder alone named by what tells them apart."""
    runs = [run for one in found for run in one.runs if run.path.name == RESULT]
    settings = summarize(runs).settings if runs else []
    names = {run.path: setting.name for setting in settings for run in setting.runs}
    own = [names.get(one.runs[0].path) if one.name in words and one.runs else None for one in found]
    return [
        replace(one, name=name if name and own.count(name) == 1 else one.name)
        for one, name in zip(found, own, strict=True)
    ]


def told_apart(found: Sequence[Found]) -> list[Found]:
    """The sides, checked to be several, without a run in common, and with names of their own."""
    if len(found) < 2:
        what = f"{found[0].name} is only one side" if found else "nothing to compare"
        raise UserError(f"{what}: give two or more, such as logs/NAME:activation=relu logs/NAME:activation=tanh")
    for one in found:
        runs = [run for run in one.runs if run.path.name == RESULT]
        if other := next((run for run in runs if run.key != runs[0].key), None):
            what = f"{runs[0].path.parent} and {other.path.parent} differ in more than the seed"
            raise UserError(f"{one.name} is no single setting: {what}; make them sides of their own")
    seen: dict[Path, str] = {}
    for one in found:
        for member in one.members:
            path = member.answers.resolve()
            if path in seen:
                raise UserError(f"{seen[path]} and {one.name} both hold {member.answers}: compare different networks")
            seen[path] = one.name
    names = [one.name for one in found]
    return [
        replace(one, name=one.name if names.count(one.name) == 1 else f"{one.name} ({names[: i + 1].count(one.name)})")
        for i, one in enumerate(found)
    ]


def of_runs(runs: Sequence[Run], split: Part, *, alone: bool) -> list[Found]:
    """The side of these runs; `alone`: a side for each of their settings."""
    settings = summarize(runs).settings
    if len(settings) > 1 and not alone:
        raise UserError(f"these {len(runs)} runs are {len(settings)} settings: give each setting as a side of its own")
    return [of_setting(setting, split) for setting in settings]


def _has_rows(text: str) -> bool:
    path = Path(text).expanduser()
    folder = path.parent if path.name in SUMMARIES else path
    return folder.is_dir() and not any((folder / name).is_file() for name in (RESULT, EVALUATION))


def _sources(text: str) -> list[tuple[Path, str]] | None:
    """The paths in `PATH[:ROW][,PATH[:ROW] …]`, each with its row; None if the first is no path.

    Names of folders and rows may contain commas, too.
    """
    parts = text.split(",")
    cuts = [(",".join(parts[:i]), ",".join(parts[i:])) for i in range(1, len(parts) + 1)]
    for head, rest in reversed(cuts):
        if _exists(head):
            others = _sources(rest) if rest else []
            return None if others is None else [(Path(head).expanduser(), ""), *others]
    for head, rest in cuts:
        path, colon, row = head.partition(":")
        if colon and _exists(path) and (others := _sources(rest) if rest else []) is not None:
            return [(Path(path).expanduser(), row), *others]
    return None


def _exists(text: str) -> bool:
    return text != "" and Path(text).expanduser().exists()


def _of_sources(
    name: str, text: str, sources: Sequence[tuple[Path, str]], split: Part, *, alone: bool = False
) -> list[Found]:
    """The side of these paths; `alone`: if it is the only word, all rows of its folder."""
    members: list[Member] = []
    for path, row in sources:
        if path.name in SUMMARIES:
            path = path.parent
        if not path.is_dir():
            members.append(Member(path))
        elif (path / EVALUATION).is_file():
            members.append(_of_evaluation(path, split))
        else:
            summary = _summary(path)
            if alone and not row and len(summary.settings) > 1:
                return [of_setting(setting, split) for setting in summary.settings]
            chosen = _chosen(summary.settings, path, row)
            members += of_setting(chosen, split).members
            if name == text and len(sources) == 1 and row:
                name = chosen.name
    return [Found(name, members)]


def _summary(folder: Path) -> Summary:
    runs, problems = load_runs([folder])
    if not runs:
        raise UserError(problems[0] if problems else f"{folder}: no finished run (metrics.json) in or below it")
    return summarize(runs)


def _chosen(settings: Sequence[Setting], folder: Path, row: str) -> Setting:
    """The row of a summary by its number, its name, or by values that only it has."""
    by_name = [setting for setting in settings if row in (setting.name, " ".join(setting.differing.values()))]
    if row.isdecimal():
        by_name = [setting for i, setting in enumerate(settings) if i + 1 == int(row)]
    wanted = [part.strip().partition("=") for part in row.split(",") if part.strip()]
    by_value = [s for s in settings if all(comparable(s.runs[0].value(k)) == comparable(v) for k, _, v in wanted)]
    fitting = by_name or by_value
    if len(fitting) == 1:
        return fitting[0]
    rows = "; ".join(f"{settings.index(setting) + 1} {setting.name}" for setting in (fitting or settings)[:8])
    more = f" and {len(fitting or settings) - 8} more" * (len(fitting or settings) > 8)
    what = f"{folder}:{row} fits {len(fitting)} rows" if row else f"{folder} has {len(settings)} rows"
    raise UserError(f"{what}; choose one with {folder}:ROW, by number, name or key=value: {rows}{more}")


def of_setting(setting: Setting, split: Part) -> Found:
    return Found(setting.name, [Member(_answers_file(run, split), run) for run in setting.runs])


def _answers_file(run: Run, split: Part) -> Path:
    """The file with a run's answers. Raises UserError with the command that writes it, if it is missing."""
    folder = run.path.parent
    path = folder / "predictions.csv"
    if split == "val":
        path = folder / "checkpoints" / f"{run.checkpoint}_val" / "predictions.csv"
    if path.is_file():
        return path
    checkpoint = folder / "checkpoints" / f"{run.checkpoint}.ckpt"
    out = "" if split == "val" else f" out={folder}"
    raise UserError(
        f"{folder} has no answers for its {'validation split' if split == 'val' else 'test set'}; write them with: "
        f"python -m cifar_lightning evaluate ckpt_path={checkpoint} split={split}{out}"
    )


def _of_evaluation(folder: Path, split: Part) -> Member:
    """A folder that `evaluate` has written, as if it were a run's."""
    try:
        metrics = read_json(folder / EVALUATION)
    except ValueError as error:
        raise UserError(f"{folder / EVALUATION}: {error}") from error
    if not isinstance(metrics, dict) or f"{split}/acc" not in metrics:
        raise UserError(
            f"{folder} is no evaluation of the {split} split: say split={'val' if split == 'test' else 'test'}"
        )
    beside, noted = folder.parent.parent, Path(str(metrics.get("checkpoint"))).parent.parent
    home = noted if not (beside / "config.yaml").is_file() and noted.is_dir() else beside  # the run's own folder
    return Member(folder / "predictions.csv", Run(home / EVALUATION, {**metrics, "overrides": []}))


def _of_keys(name: str, equals: str) -> str:
    return f" (a row of a folder is written FOLDER:{name}=…)" if equals else ""
