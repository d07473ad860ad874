"""The figure of a search shows the numbers that it is given."""

from itertools import pairwise

import numpy as np
import pytest

from cifar_lightning.reporting.figures import pixels
from cifar_lightning.reporting.trial_figures import parameter_figure


def trial(number, state, value, **params):
    return {"number": number, "state": state, "value": value, **params}


def points(axes, label):
    (found,) = (c for c in axes.collections if c.get_label() == label)
    return found.get_offsets().tolist()


def test_each_parameter_has_a_chart_on_its_own_scale():
    trials = [
        trial(0, "complete", 0.5, lr=0.1, kind="a"),
        trial(1, "pruned", 0.2, lr=0.001, kind="c10"),
        trial(2, "failed", None, lr=0.01, kind="c10"),
        trial(3, "complete", 0.8, lr=0.01, kind="a"),
        trial(4, "complete", 0.6, lr=0.02, kind="c2"),
    ]
    figure = parameter_figure(trials, {"lr": True, "kind": False, "never": True})
    charts = {axes.get_title("left"): axes for axes in figure.axes}
    assert list(charts) == ["lr", "kind", "never"]
    assert charts["lr"].get_xscale() == "log"
    assert np.allclose(points(charts["lr"], "complete"), [[0.1, 50], [0.01, 80], [0.02, 60]])
    assert np.allclose(points(charts["lr"], "pruned (last value)"), [[0.001, 20]])
    assert [label.get_text() for label in charts["kind"].get_xticklabels()] == ["a", "c2", "c10"]
    assert np.allclose(points(charts["kind"], "complete"), [[0, 50], [0, 80], [1, 60]])
    assert pixels(figure).std() > 5


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
    trials = [trial(i, "complete", 0.5, lr=value, kind="a", x=1) for i, value in enumerate(values)]
    figure = parameter_figure(trials, {"lr": True, "kind": False, "x": False})
    pixels(figure)
    axes = figure.axes[0]
    drawn = [label.get_text() for label in axes.get_xticklabels()]
    assert drawn == labels
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 + 3 < right.x0 for left, right in pairwise(boxes))
