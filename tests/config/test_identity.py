"""What a run is called, and with what it is compared, follows from its config, whatever was typed last."""

import json
from pathlib import Path

import pytest

from cifar_lightning import api
from cifar_lightning.config.identity import differences, is_partial
from cifar_lightning.reporting.run_files import Run, load_runs
from cifar_lightning.reporting.summary import summarize

QUICK = [
    *("data=digits", "data.batch_size=256", "model=cnn2", "augmentation=none", "logger=none", "test=false"),
    *("callbacks.model_summary=null", "trainer.accelerator=cpu"),
]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([], []),
        (["activation=relu", "optimizer.lr=1e-1"], []),
        (["optimizer.lr=1e-3"], ["optimizer.lr=0.001"]),
        (["experiment=classic/lenet"], ["experiment=classic/lenet"]),
        (["experiment=classic/cnn_relu", "activation=tanh"], ["experiment=classic/cnn_relu", "activation=tanh"]),
        (["model=cnn2", "model.channels=[4, 8]"], ["model=cnn2", "model.channels=[4,8]"]),
        (["paths.log_dir=x", "data.root=y", "logger=none"], []),
    ],
)
def test_a_run_is_told_by_what_differs_from_the_defaults(typed, expected):
    assert differences(api.compose(typed)) == expected


@pytest.mark.slow
def test_a_run_that_went_on_is_called_what_it_was_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    for lr in ("0.1", "0.001"):
        folder = f"logs/{lr}"
        api.train(api.compose([*QUICK, f"optimizer.lr={lr}", "scheduler=none", "trainer.max_epochs=1"],
                              output_dir=folder), quiet=True)  # fmt: skip
        names.append(json.loads(Path(folder, "metrics.json").read_text())["overrides"])
        result = api.train(api.compose([f"ckpt_path={folder}", "trainer.max_epochs=2"]), quiet=True)
        begun = {word for word in names[-1] if word not in ("test=false", "trainer.max_epochs=1")}
        assert set(result.metrics["overrides"]) == {*begun, "trainer.max_epochs=2"}
    runs, _ = load_runs(["logs"])
    assert sorted(row["run"] for row in summarize(runs).rows) == ["optimizer.lr=0.001", "optimizer.lr=0.1"]


def test_seed_and_what_decides_speed_only_fold_into_one_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = [["seed=1"], ["seed=2", "callbacks.direct_steps.seconds=0"], ["seed=3", "compile=true"]]
    configs = [api.compose([*QUICK, *words]) for words in more]
    runs = [
        Run(Path(f"{i}/metrics.json"), {"overrides": differences(c), "seed": c.seed, "val/acc": 0.5})
        for i, c in enumerate(configs)
    ]
    (row,) = summarize(runs).rows
    assert row["validation"] == "50.00 ± 0.00 (3)"


def a_run(**metrics):
    return Run(Path("x/metrics.json"), {"overrides": [], "val/acc": 0.5, "seed": 0, "data": "cifar10", **metrics})


def test_data_sets_are_not_ranked_together_and_trial_runs_are_left_out():
    runs = [a_run(seed=1), a_run(data="digits", **{"val/acc": 0.9}), a_run(partial=True, overrides=["optimizer.lr=1"])]
    summary = summarize(runs)
    assert [row["data"] for row in summary.rows] == ["cifar10", "digits"]
    assert any(note.startswith("Left out: 1 trial runs") for note in summary.notes)


@pytest.mark.parametrize(
    ("typed", "partial"),
    [
        ([], False),
        (["debug=limit"], True),
        (["trainer.fast_dev_run=true"], True),
        (["trainer.limit_test_batches=2"], True),
    ],
)
def test_a_run_over_a_part_of_the_data_is_a_trial(typed, partial):
    assert is_partial(api.compose(typed)) is partial


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["seed=3", "trainer.accelerator=cpu", "logger=none"], 58.98),
        (["data=digits", "data.val_size=0.2"], None),
        (["trainer.max_epochs=3"], None),
        (["activation=tanh"], None),
        (["model=lenet"], None),
    ],
)
def test_the_published_accuracy_stands_beside_the_recipe_only(typed, shown):
    from cifar_lightning.runs.record import published

    config = api.compose(["experiment=classic/cnn_relu", *typed])
    assert published(config, differences(config), "best") == shown


def test_a_default_that_others_change_is_told_by_its_value(tmp_path):
    runs = []
    for activation in ("relu", "tanh"):
        folder = tmp_path / activation
        folder.mkdir()
        (folder / "config.yaml").write_text(f"choices: {{activation: {activation}}}\n")
        overrides = [] if activation == "relu" else ["activation=tanh"]
        runs.append(Run(folder / "metrics.json", {"overrides": overrides, "val/acc": 0.5, "seed": 0, "model": "cnn2"}))
    assert sorted(row["run"] for row in summarize(runs).rows) == ["activation=relu", "activation=tanh"]
    assert sorted(row["activation"] for row in summarize(runs, by=["activation"]).rows) == ["relu", "tanh"]
