"""What a comparison has found: tables, a sentence for each pair, and the commands that would decide what is open."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.evaluation.comparison import MOST_SEEDS, Difference, Side, differences
from cifar_lightning.evaluation.same_images import Answered
from cifar_lightning.evaluation.sides import Part
from cifar_lightning.reporting.run_files import Run
from cifar_lightning.reporting.tables import NOTHING, Row, markdown_table, spread

FEWEST_SEEDS = 3  # to ask for where a side has one network
WORDS = {"test": "test set", "val": "validation split"}


@dataclass(frozen=True)
class Comparison:
    """Sides on the same images, and the difference of each pair of them. Accuracies are fractions."""

    split: Part
    answered: list[Answered]
    differences: list[Difference]

    @property
    def sides(self) -> list[Side]:
        return [each.side for each in self.answered]

    @property
    def images(self) -> int:
        return int(self.sides[0].correct.shape[1])

    @property
    def verdicts(self) -> list[str]:
        """A sentence for each pair."""
        return [verdict(one, len(self.differences)) for one in self.differences]

    @property
    def commands(self) -> list[str]:
        """What to run to decide the pairs that are not decided, or that have one network a side."""
        return missing_seeds(self.answered, self.differences)

    def side_rows(self) -> list[Row]:
        return [
            {
                "side": side.name,
                "networks": str(len(side.seeds)),
                "seeds": ", ".join(str(seed[0]) for seed in side.seeds if isinstance(seed, tuple)) or NOTHING,
                f"{'test' if self.split == 'test' else 'validation'} accuracy": spread(
                    [100 * accuracy for accuracy in side.accuracies]
                ),
            }
            for side in self.sides
        ]

    def difference_rows(self) -> list[Row]:
        p = "p" if len(self.differences) == 1 else "p (Holm)"
        return [
            {
                "difference": f"{one.first.name} - {one.second.name}",
                "points": f"{100 * one.difference:+.2f}",
                "95 % interval": f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
                p: "< 0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}",
                "another seed": NOTHING if one.seed_noise is None else f"± {100 * one.seed_noise:.2f}",
                f"another {WORDS[self.split].split()[0]} set": f"± {100 * one.image_noise:.2f}",
            }
            for one in self.differences
        ]

    @property
    def notes(self) -> list[str]:
        notes = [
            f"{self.images:,} images of the {WORDS[self.split]}. Accuracies in %: mean ± standard deviation over seeds."
            " Differences in percentage points; ± is how far they would move (standard deviation) with another seed on "
            "each side, and with other images."
        ]
        if len(self.differences) > 1:
            notes.append("p-values are Holm's for all pairs; each interval is for its own pair.")
        return notes

    def csv_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "first": one.first.name,
                "second": one.second.name,
                "first n": len(one.first.seeds),
                "second n": len(one.second.seeds),
                "images": self.images,
                "first acc": one.first.accuracy,
                "second acc": one.second.accuracy,
                "difference": one.difference,
                "low": one.low,
                "high": one.high,
                "p": one.p,
                "p holm": one.p_holm,
                "seed noise": one.seed_noise,
                "image noise": one.image_noise,
                "seeds paired": str(one.paired).lower(),
                "decided": str(one.decided).lower(),
                "seeds to decide": None if one.decided else one.seeds_to_decide(len(self.differences)),
                "verdict": sentence,
            }
            for one, sentence in zip(self.differences, self.verdicts, strict=True)
        ]

    def markdown(self) -> str:
        lines = [*(f"- {sentence}" for sentence in self.verdicts)]
        parts = [markdown_table(self.side_rows()), markdown_table(self.difference_rows()), "\n".join(lines) + "\n"]
        return "\n".join([*parts, *(f"{note}\n" for note in self.notes)])


def compared(answered: Sequence[Answered], split: Part) -> Comparison:
    return Comparison(split, list(answered), differences([each.side for each in answered]))


def verdict(one: Difference, comparisons: int = 1) -> str:
    """A sentence fit for a paper; without a ranking where nothing allows one."""
    better, worse = (one.first, one.second) if one.difference >= 0 else (one.second, one.first)
    low, high = sorted((one.low, one.high) if one.difference >= 0 else (-one.low, -one.high))
    single = 1 in (len(better.seeds), len(worse.seeds))
    p = "p < 0.001" if one.p_holm < 0.001 else f"p = {one.p_holm:.3f}"
    counts = f"n = {len(better.seeds)} + {len(worse.seeds)} {'network' if single else 'seed'}s"
    facts = f"95 % {100 * low:.2f} to {100 * high:.2f}; {counts}, {p}{' after Holm' * (comparisons > 1)}"
    points = f"{abs(100 * one.difference):.2f} points"
    if not one.decided:
        return (
            f"not decided between {better.name} and {worse.name}: they differ by {points} ({facts}); "
            f"{_what_would_decide(one, comparisons)}"
        )
    if not single:
        return f"{better.name} is better than {worse.name} by {points} ({facts})"
    ones = [side.name for side in (better, worse) if len(side.seeds) == 1]
    return (
        f"this network of {better.name} is better than {'this one' if len(ones) == 2 else 'the mean'} of {worse.name} "
        f"by {points} ({facts}); what other seeds of {' and '.join(ones)} would give is unknown"
        if better.name in ones
        else f"{better.name} is better than this network of {worse.name} by {points} ({facts}); what other seeds of "
        f"{worse.name} would give is unknown"
    )


def _what_would_decide(one: Difference, comparisons: int) -> str:
    if one.seed_noise is None:
        return f"how far other seeds would move it is unknown: at least {FEWEST_SEEDS} each would tell"
    needed = one.seeds_to_decide(comparisons)
    if needed is None:
        enough = f"not even {MOST_SEEDS:,} seeds each would decide a difference of this size on these images"
        return enough if one.difference else "more seeds would hardly decide a difference of nothing"
    more = [max(0, needed - len(side.seeds)) for side in (one.first, one.second)]
    if more[0] == more[1]:
        return f"about {more[0]} more seed{'s' * (more[0] > 1)} each would decide a difference of this size"
    return (
        f"about {more[0]} more seeds of {one.first.name} and {more[1]} of {one.second.name} would decide a difference "
        "of this size"
    )


def missing_seeds(answered: Sequence[Answered], found: Sequence[Difference]) -> list[str]:
    """The commands that train the seeds which would decide the open pairs, for each side that is runs of ours."""
    needed: dict[str, int] = {}
    for one in found:
        if one.seed_noise is None:
            count: int | None = FEWEST_SEEDS
        else:
            count = None if one.decided else one.seeds_to_decide(len(found))
        for side in (one.first, one.second):
            if count is not None:
                needed[side.name] = max(needed.get(side.name, 0), count)
    used = sorted({seed for each in answered for seed in _seeds(each)})
    commands = []
    for each in answered:
        own = _seeds(each)
        count = needed.get(each.side.name, 0) - len(each.side.seeds)
        if count <= 0 or len(own) < len(each.side.seeds):
            continue
        wanted = [seed for seed in used if seed not in own]  # so that they are paired with those of the others
        wanted += range(max(used) + 1, max(used) + 1 + count)
        words = _words(each.found.runs[0])
        if words is not None:
            commands.append(shlex.join(["python", "-m", "cifar_lightning", "-m", *words, _swept(wanted[:count])]))
    return commands


def _seeds(each: Answered) -> list[int]:
    return [seed for run in each.found.runs if type(seed := run.metrics.get("seed")) is int]


def _swept(seeds: Sequence[int]) -> str:
    if len(seeds) > 3 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"seed=range({seeds[0]},{seeds[-1] + 1})"
    return f"seed={','.join(map(str, seeds))}"


def _words(run: Run) -> list[str] | None:
    """What was typed for this run but for its seed and folder, to which its sweep's is added; None if unknown."""
    try:
        words = shlex.split(str(run.metrics.get("command") or ""))[3:]
    except ValueError:  # a quote without its end
        return None
    if not words or words[0].isidentifier():  # unknown, or another command, such as evaluate
        return None
    if any(word.startswith(("ckpt_path=", "train=")) for word in words):  # a resumed run: by its config
        words = list(run.metrics["overrides"])
    own = ("seed=", "hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=")
    words = [word for word in words if word != "-m" and not word.startswith(own)]
    sweep = run.path.parent.parent
    if (sweep / "multirun.yaml").is_file():
        sweep = sweep.relative_to(Path.cwd()) if sweep.is_relative_to(Path.cwd()) else sweep
        words.append(f"hydra.sweep.dir={sweep}")
    return words
