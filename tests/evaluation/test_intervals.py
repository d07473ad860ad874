"""Intervals hold what they promise: SciPy's closed forms, and how often simulated ones contain the truth."""

import numpy as np
import pytest
import scipy.stats
import torch

from cifar_lightning.evaluation.intervals import mean, resampled, share


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (20, 20), (7, 20), (9_321, 10_000)])
def test_a_share_has_wilsons_interval(hits, n):
    measure = share("accuracy", torch.arange(n) < hits)
    expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (measure.value, measure.images) == (hits / n, n)
    assert (measure.low, measure.high) == (pytest.approx(expected.low, abs=1e-7), pytest.approx(expected.high))


def test_a_mean_has_the_normal_interval_within_its_bounds():
    values = torch.rand(400, generator=torch.Generator().manual_seed(0)) * 3
    measure = mean("loss", values)
    half = scipy.stats.norm.ppf(0.975) * np.std(values.numpy(), ddof=1) / 20
    assert measure.high - measure.value == pytest.approx(half, rel=1e-4)
    assert measure.value - measure.low == pytest.approx(half, rel=1e-4)
    assert mean("loss", torch.tensor([0.0, 0.0, 5.0])).low == 0


def test_the_bootstrap_of_a_share_is_as_wide_as_its_closed_form():
    hits = (torch.arange(1000) % 10 < 7).double()
    measure = resampled("accuracy", lambda weights: (weights * hits).sum(1) / weights.sum(1), 1000)
    assert measure.value == pytest.approx(0.7)
    assert (measure.high - measure.low) / 2 == pytest.approx(1.96 * np.sqrt(0.7 * 0.3 / 1000), rel=0.15)
