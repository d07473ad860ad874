import json
import random
import statistics

import numpy as np
import pytest

from cifar_lightning.errors import UserError
from cifar_lightning.reporting.run_files import Run, load_runs
from cifar_lightning.reporting.summary import summarize
from cifar_lightning.reporting.tables import spread

ENVIRONMENT = {
    "precision": "32-true",
    "accelerator": "cpu",
    "data": "cifar10",
    "data_checksum": "0123456789abcdef",
    "hardware": "2 cores",
    "versions": {"python": "3.11.9", "torch": "2.15.0"},
}


def run(acc, *overrides, seed=1, val=None, path=None, **fields):
    """A run as its metrics.json describes it."""
    metrics = {
        "test/acc": acc, "val/acc": val, "parameters": 69402, "train_seconds": 40.0, "images_per_second": 9000.0,
        "checkpoint": "best", "experiment": None, "model": "resnet", "overrides": [*overrides, f"seed={seed}"],
        "seed": seed, "published_test_acc": None, "date": "2026-11-21T10:00:00", **ENVIRONMENT, **fields,
    }  # fmt: skip
    return Run(path or f"{overrides}{seed}{fields}", metrics)


def column(summary, name):
    return [row.get(name) for row in summary.rows]


@pytest.mark.parametrize("values", [[58.98, 59.31, 60.02], [1.0, 1.0], list(np.random.default_rng(0).random(9))])
def test_spread_is_mean_and_sample_deviation(values):
    mean, deviation = map(float, spread(values, digits=9).split(" ± "))
    assert mean == pytest.approx(np.mean(values), abs=1e-8)
    assert deviation == pytest.approx(np.std(values, ddof=1), abs=1e-8)
    assert deviation == pytest.approx(statistics.stdev(values), abs=1e-8)


def test_one_value_has_no_deviation_and_none_no_mean():
    assert (spread([59.314]), spread([])) == ("59.31", "-")


def test_seeds_are_folded_into_one_row():
    summary = summarize([run(acc, "activation=tanh", seed=seed) for seed, acc in enumerate([0.58, 0.60, 0.62])])
    (row,) = summary.rows
    assert row == {
        "run": "activation=tanh",
        "parameters": "69,402",
        "test accuracy": "60.00 ± 2.00 (3)",
        "seconds": "40",
        "images/s": "9,000",
    }


def test_times_are_means_over_the_runs_that_trained():
    runs = [run(0.5, seed=1, train_seconds=10.0), run(0.5, seed=2, train_seconds=20.0)]
    tested = run(0.5, seed=3, train_seconds=0.0, images_per_second=None)
    (row,) = summarize([*runs, tested]).rows
    assert (row["seconds"], row["images/s"]) == ("15", "9,000")


def test_what_changes_the_result_makes_a_row_and_what_does_not_does_not():
    same = ["data.root=elsewhere", "paths.log_dir=x", "trainer=cpu", "trainer.accelerator=cpu", "logger=none",
            "data.num_workers=2", "~logger", "hydra/launcher=joblib",
            "hydra.run.dir=x", "trainer.precision=32-true", "task_name=x", "train=false"]  # fmt: skip
    other = ["trainer=ddp", "trainer.devices=2", "data.val_size=0", "train_seed=1", "data.rooted=1", "~callbacks.best"]
    runs = [run(0.5, "optimizer.lr=1e-3", override, seed=seed) for seed, override in enumerate(same)]
    runs += [run(0.5, "optimizer.lr=0.001", override) for override in other]
    summary = summarize(runs)
    assert sorted(column(summary, "run")) == sorted(["resnet, defaults", *other])
    assert summary.notes[0].startswith("In all runs: optimizer.lr=")
    assert f"50.00 ± 0.00 ({len(same)})" in column(summary, "test accuracy")


@pytest.mark.parametrize(
    ("field", "value"),
    [("experiment", "classic/x"), ("parameters", 1), ("data_checksum", "f"), ("model", "lenet"), ("precision", "16")],
)
def test_runs_of_another_network_set_or_precision_are_not_folded(field, value):
    assert len(summarize([run(0.5, seed=1), run(0.6, seed=2, **{field: value})]).rows) == 2


def test_best_and_last_checkpoint_are_rows_of_their_own():
    runs = [run(0.87, seed=s, checkpoint="best") for s in (1, 2)] + [
        run(0.86, seed=s, checkpoint="runs/x/checkpoints/last.ckpt") for s in (1, 2)
    ]
    for by in ([], ["model"]):
        summary = summarize(runs, by)
        assert column(summary, "checkpoint") == ["best", "last"]
        assert column(summary, "test accuracy") == ["87.00 ± 0.00 (2)", "86.00 ± 0.00 (2)"]


def test_a_repeated_seed_counts_once_and_the_newest_is_taken():
    old, new = run(0.5, date="2026-11-20T10:00:00"), run(0.7, date="2026-11-21T10:00:00")
    summary = summarize([new, old, run(0.7, seed=2)])
    assert column(summary, "test accuracy") == ["70.00 ± 0.00 (2)"]
    assert any("1 left out" in note for note in summary.notes)


def test_a_training_counts_more_than_a_later_test_of_its_checkpoint():
    trained, tested = run(0.5), run(0.5, date="2027", train_seconds=0.0)
    assert column(summarize([trained, tested]), "seconds") == ["40"]


def test_rows_are_sorted_by_validation_accuracy_where_every_run_has_one():
    runs = [
        run(0.9, "activation=relu", val=0.7),
        run(0.6, "activation=tanh", val=0.8),
        run(0.7, "activation=elu", val=0.75),
    ]
    assert column(summarize(runs), "run") == ["activation=tanh", "activation=elu", "activation=relu"]
    assert column(summarize(runs), "validation") == ["80.00", "75.00", "70.00"]


def test_test_figures_rank_nothing():
    runs = [
        run(acc, experiment=f"classic/cnn{n}", val=val)
        for acc, n, val in [(0.5, 10, 0.9), (0.6, 2, 0.9), (0.7, 9, None)]
    ]
    assert column(summarize(runs), "run") == ["classic/cnn2", "classic/cnn9", "classic/cnn10"]


def test_by_folds_everything_else():
    runs = [run(0.1 * i, f"activation={a}", f"optimizer.lr={lr}") for i, (a, lr) in
            enumerate([("relu", 1), ("relu", 2), ("tanh", 1), ("tanh", 2)], start=1)]  # fmt: skip
    summary = summarize([*runs, run(0.9)], ["activation"])
    assert column(summary, "activation") == ["default", "relu", "tanh"]
    assert column(summary, "test accuracy") == ["90.00 (1)", "15.00 ± 7.07 (2)", "35.00 ± 7.07 (2)"]
    assert column(summarize(runs, ["activation", "optimizer.lr"]), "optimizer.lr") == ["1", "2", "1", "2"]


def test_by_an_unknown_key_names_the_nearest():
    with pytest.raises(UserError, match=r"no run has or overrides activatoin\. Did you mean activation\?"):
        summarize([run(0.5, "activation=relu")], ["activatoin"])


def test_published_figures_stand_beside_ours():
    runs = [run(0.59, experiment="classic/cnn_relu", published_test_acc=58.98), run(0.6)]
    assert dict(zip(column(summarize(runs), "run"), column(summarize(runs), "published"), strict=True)) == {
        "classic/cnn_relu": "58.98",
        "resnet, defaults": "-",
    }
    assert "published" not in summarize(runs[1:]).rows[0]


def test_one_environment_is_one_note_and_several_are_lettered():
    one = summarize([run(0.5), run(0.6, seed=2)])
    assert "made on" not in one.rows[0]
    assert "Made on: 2 cores, cpu; python 3.11.9, torch 2.15.0; data cifar10, checksum 0123456789abcdef." in one.notes
    assert "Precision: 32-true." in one.notes
    runs = [run(0.5, "a=1"), run(0.5, "a=2", hardware="H100"), run(0.5, "a=2", seed=2)]
    several = summarize(runs)
    letters = {
        "2 cores": next(n for n in several.notes if "2 cores" in n)[8],
        "H100": next(n for n in several.notes if "H100" in n)[8],
    }
    assert sorted(letters.values()) == ["a", "b"]
    assert column(several, "made on") == [letters["2 cores"], "a, b"]


def test_order_of_the_runs_does_not_matter():
    runs = [run(random.Random(i).random(), f"a={i % 3}", seed=i, val=0.5) for i in range(9)]
    shuffled = random.Random(0).sample(runs, len(runs))
    assert summarize(runs).markdown() == summarize(shuffled).markdown()


def write(folder, content):
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_foreign_and_broken_files_are_named_and_the_others_read(tmp_path):
    good = dict(run(0.5).metrics)
    write(tmp_path / "good" / "deep", good)
    write(tmp_path / "only_validated", {key: value for key, value in good.items() if key != "test/acc"})
    foreign = {
        "cut_off": '{"test/acc": 0.',
        "list": [1, 2],
        "empty": {},
        "no_overrides": {"test/acc": 0.5},
        "odd_overrides": {**good, "overrides": [1]},
        "text": {**good, "test/acc": "high"},
        "percent": {**good, "val/acc": 58.98},
        "binary": "\x00",
    }
    for name, content in foreign.items():
        write(tmp_path / name, content)
    runs, problems = load_runs([tmp_path])
    assert sorted(r.path.parent.name for r in runs) == ["deep", "only_validated"]
    assert sorted(problem.partition("/metrics.json: ")[0].rpartition("/")[2] for problem in problems) == sorted(foreign)
    assert any("val/acc = 58.98 is not a fraction" in problem for problem in problems)


def test_a_run_below_two_folders_is_read_once(tmp_path):
    write(tmp_path / "logs" / "a", dict(run(0.5).metrics))
    runs, _ = load_runs([tmp_path, tmp_path / "logs", tmp_path / "logs" / "a"])
    assert len(runs) == 1


def test_no_runs_and_no_folder_are_clear_errors(tmp_path):
    with pytest.raises(UserError, match="no runs"):
        summarize([])
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_runs([tmp_path / "nowhere"])
