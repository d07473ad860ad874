"""Student's t and the binomial test, against SciPy."""

import pytest
from scipy import stats

from cifar_lightning.evaluation.distributions import ENDLESS, beta_cdf, fair_coin_two_sided, t_quantile, t_two_sided

FREEDOMS = (1, 1.3, 2, 3.7, 10, 100, 5000, 1e6)


@pytest.mark.parametrize("df", FREEDOMS)
def test_students_t_is_scipys(df):
    for t in (0, 0.01, -0.5, 1, 2, 5, 10, 40):
        assert t_two_sided(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-7)
    for probability in (0.5, 0.8, 0.9, 0.975, 0.995, 0.9999):
        exact = 1e-7 if df < ENDLESS else 1e-5
        assert t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=exact, abs=1e-12)


@pytest.mark.parametrize("throws", [0, 1, 2, 3, 5, 17, 100, 999, 10_000])
def test_the_fair_coin_is_scipys(throws):
    for heads in {0, 1, throws // 3, throws // 2, throws // 2 + 1, throws} & set(range(throws + 1)):
        expected = stats.binomtest(heads, throws).pvalue if throws else 1.0
        assert fair_coin_two_sided(heads, throws) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("x", "expected"), [(-0.1, 0.0), (0.0, 0.0), (1.0, 1.0), (1.5, 1.0)])
def test_outside_of_its_range_a_beta_variable_is_certain(x, expected):
    assert beta_cdf(x, 2, 3) == expected
