"""The statistics of a comparison, against other people's code and simulated networks whose difference is known."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from cifar_lightning.errors import UserError
from cifar_lightning.evaluation.comparison import LEVEL, POWER, Side, difference, differences, not_worse

# Of the networks below: how far images, the settings' own strengths, and seeds differ (logits).
IMAGES, STRENGTHS = 2.0, 1.0


def answers(rng, n, seeds, *, seed_noise, gain=0.0, common=0.0):
    """Right or wrong answers, bool [networks, images], of two settings on the same images.

    Whether a network is right on an image depends on the image, on what the setting makes of it, and on the seed.
    gain: of the first over the second, in logits; common: noise that both sides' networks of a seed share.
    """
    image, shared = rng.normal(0, IMAGES, n), rng.normal(0, common, max(seeds))
    sides = []
    for count, ahead in zip(seeds, (gain, 0.0), strict=True):
        seed = rng.normal(0, seed_noise, count) + shared[:count]
        logits = 1.5 + ahead + image + rng.normal(0, STRENGTHS, n) + seed[:, None]
        sides.append(rng.random((count, n)) < 1 / (1 + np.exp(-logits)))
    return sides


def true_difference(gain, *deviations):
    """The difference over all images and seeds: the mean of the logistic function over a normal distribution."""
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    logits = 1.5 + np.sqrt(np.square([IMAGES, STRENGTHS, *deviations]).sum()) * points
    shares = [(weights / weights.sum() / (1 + np.exp(-logits - ahead))).sum() for ahead in (gain, 0.0)]
    return shares[0] - shares[1]


def simulated(times, seeds, *, gain=0.0, paired=False, n=1000, **noise):
    """The shares of intervals with the true difference inside, and of p-values below 5 %."""
    rng = np.random.default_rng(1)
    truth = true_difference(gain, *noise.values())
    inside = decided = 0
    for _ in range(times):
        first, second = answers(rng, n, seeds, gain=gain, **noise)
        named = range(seeds[1]) if paired else range(100, 100 + seeds[1])
        found = difference(Side("A", first, range(seeds[0])), Side("B", second, named))
        inside += found.low <= truth <= found.high
        decided += found.p < LEVEL
    return inside / times, decided / times


CASES = {
    "three": ((3, 3), {"seed_noise": 0.1}),
    "three, far apart": ((3, 3), {"seed_noise": 0.3}),
    "three, paired": ((3, 3), {"seed_noise": 0.1, "common": 0.1, "paired": True}),
    "two": ((2, 2), {"seed_noise": 0.1}),
    "five": ((5, 5), {"seed_noise": 0.1}),
    "three and five": ((3, 5), {"seed_noise": 0.2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.0, 0.3])
@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_the_truth_in_95_of_100_simulations(case, gain):
    seeds, noise = CASES[case]
    inside, decided = simulated(2000, seeds, gain=gain, **noise)
    assert 0.93 <= inside <= 0.97
    assert decided <= 0.06 or gain


@pytest.mark.parametrize("case", ["three", "three, paired"])
def test_intervals_cover_the_truth_in_few_simulations(case):
    """As above; of 300, 92 to 98 % are inside in 98 of 100 attempts at an interval that is right."""
    seeds, noise = CASES[case]
    inside, decided = simulated(300, seeds, n=300, **noise)
    assert 0.92 <= inside <= 0.98
    assert decided <= 0.08


def resampled(rng, first, second, times=300):
    """The 95 % interval of the plain hierarchical bootstrap over seeds and images."""
    values = []
    for _ in range(times):
        columns = rng.integers(0, first.shape[1], first.shape[1])
        means = [side[rng.integers(0, len(side), len(side))][:, columns].mean() for side in (first, second)]
        values.append(means[0] - means[1])
    return np.quantile(values, [0.025, 0.975])


@pytest.mark.slow
def test_the_plain_bootstrap_of_three_seeds_would_be_too_narrow():
    """Why it is not what is used: seeds that differ much, and three of them."""
    rng, inside = np.random.default_rng(2), {"ours": 0, "bootstrap": 0}
    for _ in range(300):
        first, second = answers(rng, 300, (3, 3), seed_noise=0.5)
        low, high = resampled(rng, first, second)
        inside["bootstrap"] += low <= 0 <= high
        found = difference(Side("A", first, [1, 2, 3]), Side("B", second, [4, 5, 6]))
        inside["ours"] += found.low <= 0 <= found.high
    assert inside["bootstrap"] < 0.9 * 300
    assert inside["ours"] >= 0.92 * 300


@pytest.mark.parametrize("sizes", [(30, 12), (5, 5), (0, 9), (400, 350)])
def test_two_networks_are_compared_by_mcnemars_exact_test(sizes):
    only_first, only_second = sizes
    n, both = 1000, 150
    first, second = np.zeros((2, n), dtype=bool)
    first[: both + only_first] = True
    second[:both] = second[both + only_first : both + only_first + only_second] = True
    found = difference(Side("A", first[None], [1]), Side("B", second[None], [1]))
    table = [[both, only_first], [only_second, n - both - only_first - only_second]]
    assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-9)
    assert found.difference == pytest.approx((only_first - only_second) / n)
    # Agresti and Min: Wald's interval after half an observation more in each cell.
    b, c, total = only_first + 0.5, only_second + 0.5, n + 2
    half = stats.norm.ppf(0.975) * np.sqrt((b + c - (b - c) ** 2 / total) / total**2)
    assert (found.low, found.high) == pytest.approx(((b - c) / total - half, (b - c) / total + half), rel=1e-4)
    assert found.seed_noise is None


def test_the_interval_of_two_networks_covers_the_truth():
    rng, inside, alarms = np.random.default_rng(3), 0, 0
    for _ in range(2000):
        cell = rng.choice(4, 400, p=[0.6, 0.13, 0.07, 0.2])
        found = difference(Side("A", (cell < 2)[None], [1]), Side("B", ((cell == 0) | (cell == 2))[None], [1]))
        inside += found.low <= 0.06 <= found.high
        cell = rng.choice(4, 400, p=[0.6, 0.1, 0.1, 0.2])
        alarms += difference(Side("A", (cell < 2)[None], [1]), Side("B", (cell % 2 == 0)[None], [1])).p < LEVEL
    assert 0.93 <= inside / 2000 <= 0.97
    assert alarms / 2000 <= 0.06


def test_with_endless_images_seeds_decide_as_in_the_t_tests():
    rng = np.random.default_rng(4)
    n = 200_000
    shares = np.array([[0.50, 0.56, 0.53], [0.42, 0.47, 0.45]])
    first, second = (rng.random((3, n)) < share[:, None] for share in shares)
    a, b = first.mean(1), second.mean(1)
    unpaired = difference(Side("A", first, [1, 2, 3]), Side("B", second, [4, 5, 6]))
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert unpaired.p == pytest.approx(expected.pvalue, rel=0.02)
    interval = expected.confidence_interval()
    assert (unpaired.low, unpaired.high) == pytest.approx((interval.low, interval.high), abs=2e-3)
    paired = difference(Side("A", first, [1, 2, 3]), Side("B", second, [1, 2, 3]))
    assert paired.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.1)
    assert paired.seed_noise == pytest.approx(np.std(a - b, ddof=1))
    assert unpaired.seed_noise == pytest.approx(np.hypot(np.std(a, ddof=1), np.std(b, ddof=1)))


def test_the_order_of_seeds_does_not_matter_but_their_pairs_do():
    first, second = answers(np.random.default_rng(5), 500, (4, 4), seed_noise=0.3, common=0.5)
    order = [2, 0, 3, 1]
    pairs = difference(Side("A", first, range(4)), Side("B", second, range(4)))
    shuffled = difference(Side("A", first, range(4)), Side("B", second[order], order))
    assert (shuffled.p, shuffled.low, shuffled.high) == pytest.approx((pairs.p, pairs.low, pairs.high))
    others = difference(Side("A", first, range(4)), Side("B", second, range(4, 8)))
    assert pairs.high - pairs.low < others.high - others.low


def test_both_directions_say_the_same():
    first, second = answers(np.random.default_rng(6), 400, (3, 4), seed_noise=0.2)
    one = difference(Side("A", first, range(3)), Side("B", second, range(4)))
    other = difference(Side("B", second, range(4)), Side("A", first, range(3)))
    assert (one.difference, one.low, one.high, one.p) == pytest.approx(
        (-other.difference, -other.high, -other.low, other.p)
    )


def test_several_p_values_are_corrected_as_statsmodels_does():
    rng = np.random.default_rng(7)
    sides = [Side(str(i), rng.random((3, 400)) < 0.5 + 0.04 * i, range(3)) for i in range(4)]
    found = differences(sides)
    assert [one.first.name + one.second.name for one in found] == ["01", "02", "03", "12", "13", "23"]
    expected = multipletests([one.p for one in found], method="holm")
    np.testing.assert_allclose([one.p_holm for one in found], expected[1], rtol=1e-12)
    assert [one.p_holm < LEVEL for one in found] == expected[0].tolist()


def test_the_advised_seeds_decide_in_four_of_five_simulations():
    rng = np.random.default_rng(8)
    gain, noise = 0.25, {"seed_noise": 0.25}
    size = true_difference(gain, 0.25)
    advised = []
    while len(advised) < 60:  # pilot studies with three seeds, whose difference is about the true one
        first, second = answers(rng, 1000, (3, 3), gain=gain, **noise)
        pilot = difference(Side("A", first, range(3)), Side("B", second, range(10, 13)))
        if abs(pilot.difference - size) < 0.01 and (n := pilot.seeds_to_decide()):
            advised.append(n)
    n = int(np.median(advised))
    decided = 0
    for _ in range(200):
        first, second = answers(rng, 1000, (n, n), gain=gain, **noise)
        decided += difference(Side("A", first, range(n)), Side("B", second, range(100, 100 + n))).decided
    assert POWER - 0.15 <= decided / 200 <= POWER + 0.15


def test_where_images_are_too_few_no_seeds_are_advised():
    rng = np.random.default_rng(9)
    same = rng.random(400) < 0.5
    first, second = np.tile(same, (3, 1)), np.tile(np.roll(same, 1), (3, 1))
    first[0, 0] ^= True
    found = difference(Side("A", first, range(3)), Side("B", second, range(3)))
    assert not found.decided
    assert found.seeds_to_decide() is None


def test_the_same_answers_are_no_difference():
    first = np.random.default_rng(10).random((3, 100)) < 0.5
    found = difference(Side("A", first, range(3)), Side("B", first.copy(), range(3)))
    assert (found.difference, found.low, found.high, found.p, found.decided) == (0, 0, 0, 1, False)
    alone = difference(Side("A", first[:1], [1]), Side("B", first[:1].copy(), [1]))
    assert (alone.difference, alone.p) == (0, 1)
    assert alone.low < 0 < alone.high


def test_one_network_beside_several_stands_for_itself():
    rng = np.random.default_rng(11)
    alone, several = rng.random((1, 2000)) < 0.75, rng.random((4, 2000)) < 0.6
    found = difference(Side("A", alone, [1]), Side("B", several, range(4)))
    assert found.decided
    assert found.seed_noise is None
    assert found.seeds_to_decide() is None


def test_not_worse_is_what_the_test_does_not_decide():
    rng = np.random.default_rng(12)
    best = rng.random((3, 2000)) < 0.9
    close, far, above = (rng.random((3, 2000)) < share for share in (0.9, 0.5, 0.97))
    others = [Side(name, correct, range(3)) for name, correct in (("c", close), ("f", far), ("a", above))]
    assert not_worse(Side("best", best, range(3)), others) == [True, False, True]


def test_one_image_is_refused():
    with pytest.raises(UserError, match="one image"):
        difference(Side("A", np.ones((1, 1), bool), [1]), Side("B", np.ones((1, 1), bool), [2]))
