"""Mark the rows of a summary that are not worse than the best one, by the same test as the command compare."""

from collections.abc import Sequence
from dataclasses import replace

from cifar_lightning.errors import UserError
from cifar_lightning.evaluation.comparison import not_worse
from cifar_lightning.evaluation.same_images import Answered, answered, check_runs
from cifar_lightning.evaluation.sides import of_setting
from cifar_lightning.reporting.summary import Setting, Summary
from cifar_lightning.reporting.tables import NOTHING

COLUMN = "vs. best"
BEST, NOT_WORSE, WORSE = "best", "not worse", "worse"
NOTE = (
    "vs. best: whether the test accuracy is significantly lower than that of the row with the best validation accuracy "
    "(5 %, with Holm's correction; see the command compare)."
)
ONE_EACH = " Where a row is one run, this is about that network; what other seeds would give is unknown."


def marked(summary: Summary) -> Summary:
    """The summary with a column of marks, where rows are ranked by validation and the answers of runs are at hand.

    The best row is never chosen by its test accuracy. Rows of other data sets are compared among themselves.
    """
    if not summary.ranked or len(summary.settings) < 2:
        return summary
    marks = [NOTHING] * len(summary.settings)
    for data in {setting.runs[0].metrics.get("data") for setting in summary.settings}:
        rows = [i for i, setting in enumerate(summary.settings) if setting.runs[0].metrics.get("data") == data]
        for i, mark in zip(rows, _marks([summary.settings[i] for i in rows]), strict=True):
            marks[i] = mark
    if set(marks) == {NOTHING}:
        return summary
    note = NOTE + ONE_EACH * any(len(setting.runs) == 1 for setting in summary.settings)
    rows_marked = [row | {COLUMN: mark} for row, mark in zip(summary.rows, marks, strict=True)]
    return replace(summary, rows=rows_marked, notes=[*summary.notes, note], marks=marks)


def _marks(settings: Sequence[Setting]) -> list[str]:
    """The mark of each setting, the first of which is the best."""
    best = _answered(settings[0])
    others = [best and _answered(setting, best) for setting in settings[1:]]
    sides = [other.side for other in others if other]
    if not best or not sides:
        return [NOTHING] * len(settings)
    equals = iter(not_worse(best.side, sides))
    return [BEST, *(NOTHING if not other else NOT_WORSE if next(equals) else WORSE for other in others)]


def _answered(setting: Setting, best: Answered | None = None) -> Answered | None:
    """The setting's answers; None if they are not at hand, or about other images than those of the best one."""
    if len({run.key for run in setting.runs}) > 1:  # folded by other keys: its runs are not repetitions
        return None
    try:
        found = of_setting(setting, "test")
        check_runs([(each.name, run) for each in [*([best.found] if best else []), found] for run in each.runs], "test")
        return answered([found], best.truth if best else None, "test")[0]
    except (UserError, OSError):
        return None
