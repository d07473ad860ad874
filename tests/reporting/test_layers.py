"""Histograms of layers show what was given to them."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from cifar_lightning.reporting.figures import pixels
from cifar_lightning.reporting.layers import layer_histograms

RNG = np.random.default_rng(0)


def visible(figure: Figure) -> list:
    return [axes for axes in figure.axes if axes.get_visible()]


def test_one_histogram_a_layer_with_a_row_for_each_network():
    figure = layer_histograms(
        {
            "relu": {"first": RNG.normal(size=(5, 7, 7)), "second": RNG.normal(size=90)},
            "tanh": {"first": RNG.uniform(size=9)},
        },
        xlabel="output",
    )
    assert len(visible(figure)) == 3
    assert [axes.get_ylabel() for axes in visible(figure)] == ["relu", "", "tanh"]
    assert [axes.get_title(loc="center") for axes in visible(figure)] == ["first", "second", ""]
    assert pixels(figure).min() < 200


def test_the_bars_count_the_values_within_the_range():
    values = RNG.normal(size=10_000)
    (axes,) = visible(layer_histograms({"a": {"b": values}}, xlabel="x"))
    low, high = np.percentile(values, [0.1, 99.9])
    assert sum(bar.get_height() for bar in axes.patches) == np.count_nonzero((values >= low) & (values <= high))
    assert axes.get_xlim() == pytest.approx((low, high))


def test_sizes_are_drawn_as_powers_of_ten_on_one_scale_for_all_rows():
    figure = layer_histograms({"a": {"l": [1e-3, -1e-3, 0.0]}, "b": {"l": [-10.0, 10.0]}}, xlabel="x", log=True)
    first, second = visible(figure)
    assert first.get_xlim() == second.get_xlim()
    low, high = first.get_xlim()
    assert low <= -3
    assert high >= 1
    assert sum(bar.get_height() for bar in first.patches) == 2  # a zero has no power of ten


@pytest.mark.parametrize("values", [[], [0.0], [1.0, np.nan], np.zeros(50)])
@pytest.mark.parametrize("log", [False, True])
def test_nothing_and_constants_can_be_drawn(values, log):
    pixels(layer_histograms({"a": {"l": values}}, xlabel="x", log=log))
