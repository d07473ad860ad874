"""Decide from right and wrong answers which of two classifiers is better, over seeds and over test images.

Two things are drawn at random: the seeds and the test images. Every network answers every image, so the two are
crossed, as readers and cases are in studies of diagnostic imaging; the standard error is estimated as there (Gallas
2006, Acad Radiol 13:353; Hillis 2007, Stat Med 26:596), with Satterthwaite's degrees of freedom. The hierarchical
bootstrap, which resamples both, counts what seeds and images vary together more than once (Owen 2007, Ann Appl Stat
1:386), so it is too wide where seeds differ little; where few seeds differ much it is too narrow, as it does not know
how badly three of them tell their own variance. Student's t does.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cifar_lightning.errors import UserError
from cifar_lightning.evaluation.distributions import ENDLESS, fair_coin_two_sided, t_quantile, t_two_sided

LEVEL = 0.05  # a difference is decided below this p-value
POWER = 0.8  # the chance to decide with the seeds that are advised
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Side:
    """One setting: whether each of its networks is right on each image (bool [networks, images]), and their seeds.

    Networks of two sides with the same seed are compared with each other.
    """

    name: str
    correct: np.ndarray
    seeds: Sequence[Hashable]

    @property
    def accuracies(self) -> list[float]:
        """The share of right answers of each network."""
        return [float(accuracy) for accuracy in self.correct.mean(axis=1)]

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds; None with one of them."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Difference:
    """The accuracy of `first` minus that of `second`, as a fraction, with its 95 % interval.

    p: of the hypothesis that there is none; p_holm: corrected for the other comparisons. seed_noise: the standard
    deviation of the difference of one network each over seeds (None where a side has one network, whose noise is
    unknown). image_noise: the standard deviation of the difference over test sets of this size, and irreducible: what
    of it would be left with endless seeds.
    """

    first: Side
    second: Side
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    seed_noise: float | None
    image_noise: float
    irreducible: float
    paired: bool

    @property
    def decided(self) -> bool:
        """Whether one is better. After Holm's correction the p-value asks for more than the interval does."""
        return self.p_holm < LEVEL and not self.low <= 0 <= self.high

    def seeds_to_decide(self, comparisons: int = 1) -> int | None:
        """How many seeds each side needs in all, so that a difference of this size is decided with a chance of 80 %.

        None where the seeds' noise is unknown, or where no number of seeds up to 1,000 would do.
        """
        if self.seed_noise is None:
            return None
        noise, freedoms = self.seed_noise**2, 1 if self.paired else 2

        def decides(n: int) -> bool:
            variance = noise / n + self.irreducible**2
            df = variance**2 * (n - 1) * freedoms / (noise / n) ** 2 if noise else ENDLESS
            needed = t_quantile(1 - LEVEL / comparisons / 2, df) + t_quantile(POWER, df)
            return abs(self.difference) >= needed * math.sqrt(variance)

        counts = range(1 + min(len(self.first.seeds), len(self.second.seeds)), MOST_SEEDS + 1)
        found = bisect_left(counts, True, key=decides)  # more seeds always decide more
        return counts[found] if found < len(counts) else None


def differences(sides: Sequence[Side]) -> list[Difference]:
    """Every pair of sides, their p-values corrected together."""
    return corrected([difference(first, second) for first, second in combinations(sides, 2)])


def not_worse(best: Side, others: Sequence[Side]) -> list[bool]:
    """For each of the others, whether it is not decided that the best one is better than it."""
    found = corrected([difference(best, other) for other in others])
    return [not (one.decided and one.difference > 0) for one in found]


def difference(first: Side, second: Side) -> Difference:
    """Compare two sides on the same images. Raises UserError for fewer than two images."""
    images = first.correct.shape[1]
    if images < 2:
        raise UserError("one image is not enough to compare on")
    if len(first.seeds) == len(second.seeds) == 1:
        return _of_two_networks(first, second)
    value = first.accuracy - second.accuracy
    over_seeds, over_images, both, df = _variances(first, second)
    # The variance over images contains that of seeds and images together (an image that one seed gets right and another
    # wrong), and so does the variance over seeds; it counts once.
    variance = over_images + max(over_seeds - both, 0)
    share = over_seeds**2 / df + over_images**2 / (images - 1)
    df = variance**2 / share if share else 1.0
    error = math.sqrt(variance)
    half = t_quantile(1 - LEVEL / 2, df) * error
    p = t_two_sided(value / error, df) if error else float(value == 0)
    fewest = min(len(first.seeds), len(second.seeds))
    # A finite test set alone makes seeds differ by this much, even where few seeds happen to agree.
    noise = math.sqrt(max(_of_one_each(first, second) ** 2, both * fewest))
    return Difference(
        first, second, value, max(-1.0, value - half), min(1.0, value + half), p, p,
        seed_noise=noise if fewest > 1 else None,
        image_noise=math.sqrt(over_images),
        irreducible=math.sqrt(max(over_images - both, 0)),
        paired=set(first.seeds) == set(second.seeds),
    )  # fmt: skip


def _of_two_networks(first: Side, second: Side) -> Difference:
    """The exact test of McNemar, and the interval of Agresti and Min (2005, Stat Med 24:729), both paired over images.

    They are about these two networks: what other seeds would give is unknown.
    """
    x, y = first.correct[0], second.correct[0]
    images, only_first, only_second = len(x), int((x & ~y).sum()), int((~x & y).sum())
    apart, n = only_first - only_second, images + 2
    variance = (only_first + only_second + 1) / n - (apart / n) ** 2
    half = t_quantile(1 - LEVEL / 2, ENDLESS) * math.sqrt(variance / n)
    p = fair_coin_two_sided(only_first, only_first + only_second)
    return Difference(
        first, second, apart / images, max(-1.0, apart / n - half), min(1.0, apart / n + half), p, p,
        seed_noise=None, image_noise=math.sqrt(variance / n),
        irreducible=math.sqrt(variance / n), paired=list(first.seeds) == list(second.seeds),
    )  # fmt: skip


def _variances(first: Side, second: Side) -> tuple[float, float, float, float]:
    """Of the difference of the means: its variance over seeds, over images, over both at once; degrees of freedom.

    The degrees of freedom are those of the variance over seeds: Welch's, or those of the side with fewer seeds, which
    are never too many, where the sides share seeds or one has more than twice as many.
    """
    x, y = first.correct.astype(np.float64), second.correct.astype(np.float64)
    images = x.shape[1]
    shares: dict[Hashable, np.ndarray] = {}  # what each seed adds to the difference of each image, about the mean
    for sign, side, answers in ((1, first, x), (-1, second, y)):
        n = len(answers)
        if n == 1:
            continue
        around = sign * (answers - answers.mean(axis=0)) / math.sqrt(n * (n - 1))
        for seed, one in zip(side.seeds, around, strict=True):
            shares[seed] = shares[seed] + one if seed in shares else one
    of_seeds = np.stack(list(shares.values()))
    over_seeds = float((of_seeds.mean(axis=1) ** 2).sum())
    both = float(of_seeds.var(axis=1, ddof=1).sum()) / images
    over_images = float((x.mean(axis=0) - y.mean(axis=0)).var(ddof=1)) / images
    own = [(float(a.mean(axis=1).var(ddof=1)) / len(a), len(a) - 1) for a in (x, y) if len(a) > 1]
    uneven = max(map(len, (x, y))) > 2 * min(map(len, (x, y)))  # where Welch's are too many: 91 % for 2 and 6 seeds
    if set(first.seeds) & set(second.seeds) or uneven or not any(variance for variance, _ in own):
        df = float(min(freedom for _, freedom in own))
    else:
        df = sum(variance for variance, _ in own) ** 2 / sum(variance**2 / freedom for variance, freedom in own)
    return over_seeds, over_images, both, df


def _of_one_each(first: Side, second: Side) -> float:
    """The standard deviation over seeds of the difference between one network of each side."""
    if set(first.seeds) == set(second.seeds):
        other = dict(zip(second.seeds, second.accuracies, strict=True))
        apart = [own - other[seed] for seed, own in zip(first.seeds, first.accuracies, strict=True)]
        return float(np.std(apart, ddof=1))
    return math.hypot(first.std or 0.0, second.std or 0.0)


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """With the p-values of Holm (1979, Scand J Stat 6:65): the chance of even one false alarm stays below 5 %."""
    order = sorted(range(len(found)), key=lambda i: found[i].p)
    result, least = list(found), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(found) - rank) * found[i].p))
        result[i] = replace(found[i], p_holm=least)
    return result
