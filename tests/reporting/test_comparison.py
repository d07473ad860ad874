import csv
import itertools
import json

import numpy as np
import pytest

from cifar_lightning.reporting.comparison_figures import comparison_figures, front, short_names
from cifar_lightning.reporting.figures import pixels
from cifar_lightning.reporting.run_files import load_runs
from cifar_lightning.reporting.summary import Setting, summarize


def write_run(folder, overrides, seed, acc, val=True):
    folder.mkdir(parents=True)
    metrics = {
        "test/acc": acc - 0.01, "val/acc": acc if val else None, "parameters": 5, "train_seconds": 10.0 + seed,
        "overrides": [*overrides, f"seed={seed}"], "seed": seed, "model": "cnn2", "checkpoint": "best",
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with (folder / "history.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", "train/loss", "train/acc", "val/loss", "val/acc"])
        rows.writerows([epoch, 2 - acc, acc, *((1, acc - 0.1 + epoch / 10) if val else ("", ""))] for epoch in (0, 1))


def compared(tmp_path, *keys, seeds=(1, 2), val=True):
    for i, values in enumerate(itertools.product(*keys)):
        for seed in seeds:
            write_run(tmp_path / f"{i}_{seed}", values, seed, 0.9 - 0.1 * i + 0.02 * seed, val)
    return summarize(load_runs([tmp_path])[0])


def test_settings_have_the_numbers_of_their_runs_best_first(tmp_path):
    tanh = ["activation=tanh"]
    first, second = compared(tmp_path, ["activation=relu", *tanh]).settings
    assert (first.differing, second.differing) == ({"activation": "relu"}, {"activation": "tanh"})
    assert second.accuracies("val") == pytest.approx([82, 84])
    assert second.accuracies("test") == pytest.approx([81, 83])
    assert second.values("train_seconds") == [11, 12]
    assert [row["val/acc"] for row in second.runs[0].history] == pytest.approx([0.72, 0.82])


def test_rows_for_csv_have_means_and_standard_deviations(tmp_path):
    row = compared(tmp_path, ["activation=relu"], ["optimizer.lr=0.1", "optimizer.lr=0.2"]).csv_rows()[1]
    assert row["optimizer.lr"] == "0.2"
    assert "activation" not in row  # the same in all
    assert row["val/acc"] == pytest.approx(0.83)
    assert row["val/acc std"] == pytest.approx(np.std([0.82, 0.84], ddof=1))
    assert (row["n"], row["seeds"], row["parameters"], row["train_seconds"]) == (2, "1 2", 5, 11.5)


def test_two_checkpoints_of_one_setting_have_names_of_their_own(tmp_path):
    write_run(tmp_path / "a", ["activation=relu"], 1, 0.9)
    write_run(tmp_path / "b", ["activation=relu"], 1, 0.8)
    metrics = json.loads((tmp_path / "b" / "metrics.json").read_text()) | {"checkpoint": "last", "precision": "32-true"}
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(metrics))
    best, last = short_names(summarize(load_runs([tmp_path])[0]).settings)
    assert "best" in best
    assert "last, 32-true" in last


def test_one_run_has_no_deviation(tmp_path):
    (row,) = compared(tmp_path, ["activation=relu"], seeds=(1,), val=False).csv_rows()
    assert row["run"]
    assert row["test/acc"] == pytest.approx(0.91)
    assert row["test/acc std"] is row["val/acc"] is None


LRS = ["optimizer.lr=0.1", "optimizer.lr=0.02"]
ACTIVATIONS = ["activation=relu", "activation=tanh"]


@pytest.mark.parametrize(
    ("keys", "options", "expected"),
    [
        ([ACTIVATIONS], {}, {"accuracy", "learning_curves", "accuracy_and_time"}),
        ([ACTIVATIONS, LRS], {}, {"accuracy", "learning_curves", "accuracy_and_time", "heat_map"}),
        ([ACTIVATIONS], {"val": False, "seeds": (1,)}, {"accuracy", "learning_curves", "accuracy_and_time"}),
        ([["activation=relu"]], {"seeds": (1,)}, {"accuracy", "learning_curves"}),
    ],
)
def test_figures_are_those_that_there_are_numbers_for(tmp_path, keys, options, expected):
    drawn = comparison_figures(compared(tmp_path, *keys, **options))
    assert set(drawn) == expected
    for figure in drawn.values():
        assert pixels(figure).std() > 5  # neither empty nor a failure to draw


def test_bars_and_heat_map_show_the_means(tmp_path):
    drawn = comparison_figures(compared(tmp_path, ACTIVATIONS, LRS))
    bars = drawn["accuracy"].axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([93, 83, 73, 63])
    heat_map = drawn["heat_map"].axes[0]
    means = np.asarray(heat_map.images[0].get_array())
    assert [label.get_text() for label in heat_map.get_xticklabels()] in (["0.02", "0.1"], ["relu", "tanh"])
    assert np.sort(means.ravel()) == pytest.approx([63, 73, 83, 93])
    columns = [label.get_text() for label in heat_map.get_xticklabels()]
    rows = [label.get_text() for label in heat_map.get_yticklabels()]
    lr_first = columns == ["0.02", "0.1"]  # numbers by size
    place = (rows.index("tanh"), columns.index("0.02")) if lr_first else (rows.index("0.02"), columns.index("tanh"))
    assert means[place] == pytest.approx(63)


@pytest.mark.parametrize("acc", [0.9, 0.5, 0.2])
def test_no_error_bar_crosses_a_number(tmp_path, acc):
    for seed, more in ((1, -0.1), (2, 0.1)):
        write_run(tmp_path / str(seed), [], seed, acc + more)
    figure = comparison_figures(summarize(load_runs([tmp_path])[0]))["accuracy"]
    pixels(figure)
    bars, closer = figure.axes
    (text,) = bars.texts
    assert text.get_text() == f"{100 * acc:.2f} ± 14.14"
    assert bars.get_window_extent().x1 < text.get_window_extent().x0
    assert text.get_window_extent().x1 < closer.get_window_extent().x0


def test_a_band_is_the_deviation_over_seeds(tmp_path):
    axes = comparison_figures(compared(tmp_path, ["activation=relu"]))["learning_curves"].axes[1]
    assert axes.get_lines()[0].get_ydata() == pytest.approx([83, 93])
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.max() - heights.min() == pytest.approx(10 + 2 * np.std([92, 94], ddof=1))


def test_nothing_on_the_front_is_beaten():
    points = {i: tuple(point) for i, point in enumerate(np.random.default_rng(0).random((50, 2)))}
    beaten = {
        i for i, (s, a) in points.items() if any(t <= s and b >= a and (t, b) != (s, a) for t, b in points.values())
    }
    assert set(front(points)) == set(points) - beaten


def test_long_names_stay_short_and_one_setting_needs_no_name():
    long = [Setting("x" * 30 + str(i) + "y" * 30, [], {"a": str(i), "b": str(i)}) for i in range(2)]
    names = short_names(long)
    assert all(len(name) <= 48 and "…" in name for name in names)
    assert len(set(names)) == 2  # a legend and its colours go by them
    assert short_names([Setting("activation=relu", [], {"activation": "relu"})]) == ["relu"]
