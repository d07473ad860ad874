"""Figures of a search show the numbers that they are given."""

from itertools import pairwise

import numpy as np
import pytest

from cifar_lightning.reporting import studies
from cifar_lightning.reporting.figures import pixels


def trial(number, state, value, **params):
    return {"number": number, "state": state, "value": value, "params": params}


TRIALS = [
    trial(0, "complete", 0.5, lr=0.1, kind="a"),
    trial(1, "pruned", 0.2, lr=0.001, kind="b"),
    trial(2, "failed", None, lr=0.01, kind="b"),
    trial(3, "complete", 0.8, lr=0.01, kind="a"),
    trial(4, "complete", 0.6, lr=0.02, kind="b"),
]


def points(axes, label):
    (found,) = (c for c in axes.collections if c.get_label() == label)
    return found.get_offsets().tolist()


def test_history_shows_every_trial_and_the_best_so_far():
    figure = studies.history(TRIALS)
    (axes,) = figure.axes
    assert np.allclose(points(axes, "complete"), [[0, 50], [3, 80], [4, 60]])
    assert np.allclose(points(axes, "pruned (last value)"), [[1, 20]])
    assert [x for x, _ in points(axes, "failed")] == [2]
    (best,) = axes.get_lines()
    assert best.get_xdata().tolist() == [0, 3, 4, 4]
    assert np.allclose(best.get_ydata(), [50, 80, 80, 80])
    assert axes.get_title("left") == "Best: 80.00 % (trial 3)"


def test_importances_are_bars_the_longest_on_top():
    (axes,) = studies.importance({"lr": 0.7, "kind": 0.1, "depth": 0.2}).axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 20, 70])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["kind", "depth", "lr"]


def test_each_parameter_has_a_chart_on_its_own_scale():
    figure = studies.parameters(TRIALS, {"lr": True, "kind": False, "never": False})
    charts = {axes.get_title("left"): axes for axes in figure.axes if axes.get_visible()}
    assert list(charts) == ["lr", "kind"]
    assert charts["lr"].get_xscale() == "log"
    assert np.allclose(points(charts["lr"], "complete"), [[0.1, 50], [0.01, 80], [0.02, 60]])
    assert [label.get_text() for label in charts["kind"].get_xticklabels()] == ["a", "b"]
    assert np.allclose(points(charts["kind"], "complete"), [[0, 50], [0, 80], [1, 60]])


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1e-4, 0.1], ["0.0001", "0.001", "0.01", "0.1"]),
        ([0.001, 0.02], ["0.001", "0.002", "0.005", "0.01", "0.02"]),
        ([0.02, 0.06], ["0.02", "0.03", "0.05"]),
        ([0.011, 0.019], ["0.0125", "0.015", "0.0175"]),
        ([1e-9, 1], ["1e-09", "1e-07", "1e-05", "0.001", "0.1"]),
        ([3, 700], ["3", "10", "30", "100", "300"]),
    ],
)
def test_a_log_scale_has_ticks_that_are_written_out_and_far_enough_apart(values, labels):
    trials = [trial(i, "complete", 0.5, **{"lr": value, "kind": "a", "x": 1}) for i, value in enumerate(values)]
    figure = studies.parameters(trials, {"lr": True, "kind": False, "x": False})
    pixels(figure)
    axes = figure.axes[0]
    drawn = [label.get_text() for label in axes.get_xticklabels()]
    assert drawn == labels
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 + 3 < right.x0 for left, right in pairwise(boxes))


def test_a_search_without_results_gives_a_message():
    for figure in (studies.history(TRIALS[1:3]), studies.importance({}), studies.parameters(TRIALS[2:3], {"lr": True})):
        assert pixels(figure).min() < 200
        assert not figure.axes
