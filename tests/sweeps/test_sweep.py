"""Whole sweeps on digits, in this process, as a person would start them."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from cifar_lightning.callbacks.history import History

QUICK = ["-m", "data=digits", "model=cnn2", "augmentation=none", "logger=none", "trainer.limit_train_batches=4"]
INTO = "hydra.sweep.dir=sweep"
SWEEP = Path("sweep")


@pytest.fixture(autouse=True)
def no_figures_of_single_jobs(monkeypatch):
    """They take longer than the training here, and are tested elsewhere."""
    monkeypatch.setattr("cifar_lightning.runs.record.draw", lambda *_: {})


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr("cifar_lightning.reporting.comparison_figures.comparison_figures", lambda _: {})


def result(job):
    return json.loads((SWEEP / job / "metrics.json").read_text())


def table():
    with (SWEEP / "summary.csv").open() as file:
        return {row.pop("activation"): row for row in csv.DictReader(file)}


def test_a_sweep_ends_in_one_table_goes_on_and_grows(command):
    given = [*QUICK, INTO, "trainer.max_epochs=1"]
    outcome = command(*given, "activation=relu,tanh")  # seed=0 is the default
    assert outcome.code == 0, outcome.err
    assert sorted(p.parent.name for p in SWEEP.glob("*/metrics.json")) == ["activation=relu", "activation=tanh"]
    dates = {job: result(job)["date"] for job in ("activation=relu", "activation=tanh")}

    # A seed more, in another order: numbers shift, jobs are found.
    outcome = command(*given, "seed=0,2", "activation=tanh,relu")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("already finished") == 2
    assert {job: result(job)["date"] for job in dates} == dates
    jobs = {path.parent.name for path in SWEEP.glob("*/metrics.json")}
    assert jobs == {*dates, "seed=2,activation=tanh", "seed=2,activation=relu"}

    rows = table()
    for activation in ("relu", "tanh"):
        runs = [result(f"activation={activation}"), result(f"seed=2,activation={activation}")]
        row = rows[activation]
        assert (row["n"], row["seeds"]) == ("2", "0 2")
        for key in ("val/acc", "test/acc"):
            values = [run[key] for run in runs]
            assert float(row[key]) == pytest.approx(statistics.fmean(values))
            assert float(row[f"{key} std"]) == pytest.approx(statistics.stdev(values))
        assert float(row["parameters"]) == runs[0]["parameters"]
        assert f"activation={activation}" in outcome.out
    order = [float(row["val/acc"]) for row in rows.values()]
    assert order == sorted(order, reverse=True)
    assert "activation=tanh" in (SWEEP / "summary.md").read_text()
    figures = {path.stem for path in (SWEEP / "figures").glob("*.png")}
    assert figures == {"accuracy", "learning_curves", "accuracy_and_time"}


def test_a_job_that_fails_is_listed_and_tried_again_and_the_others_go_on(command, monkeypatch, no_figures):
    given = [*QUICK, INTO, "trainer.max_epochs=1", "seed=1,2"]
    collect = "cifar_lightning.runs.record.collect"
    with monkeypatch.context() as patch:
        real = __import__("cifar_lightning.runs.record", fromlist=["collect"]).collect

        def fail_for_one(config, *rest):
            if config.seed == 1:
                raise RuntimeError("the disk is full\nof numbers")
            return real(config, *rest)

        patch.setattr(collect, fail_for_one)
        outcome = command(*given)
    assert outcome.code == 1
    assert outcome.err.startswith("error: seed=1: RuntimeError: the disk is full (traceback: ")
    assert "the same command with hydra.sweep.dir=" in outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    assert [path.parent.name for path in SWEEP.glob("*/metrics.json")] == ["seed=2"]
    assert "failed: RuntimeError: the disk is full" in (SWEEP / "summary.md").read_text()
    assert "failed: RuntimeError: the disk is full" in outcome.out

    outcome = command(*given)
    assert outcome.code == 0, outcome.err
    assert len(list(SWEEP.glob("*/metrics.json"))) == 2
    assert "disk" not in (SWEEP / "summary.md").read_text()


def test_a_job_that_was_cut_off_goes_on_and_ends_where_it_would_have(command, monkeypatch, no_figures):
    given = [*QUICK, "trainer.max_epochs=2", "seed=1,2"]
    assert command(*given[1:-1], "seed=2", "hydra.run.dir=whole").code == 0
    end_epoch = History.on_train_epoch_end

    def killed(self, trainer, module):
        if trainer.current_epoch == 1 and "seed=2" in str(self.path):
            raise SystemExit(1)  # nothing of ours notes it, as with a power cut
        end_epoch(self, trainer, module)

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_train_epoch_end", killed)
        outcome = command(*given, INTO)
    assert outcome.code == 1
    assert outcome.err.startswith("error: interrupted; the same command with hydra.sweep.dir=")
    assert (SWEEP / "seed=2" / "checkpoints" / "last.ckpt").exists()
    assert not (SWEEP / "seed=2" / "metrics.json").exists()

    outcome = command(*given, INTO)
    assert outcome.code == 0, outcome.err
    assert "seed=1: already finished" in outcome.out
    assert "seed=2: resuming from its last checkpoint" in outcome.out
    assert "epoch 2/2" in outcome.out
    assert "epoch 1/2" not in outcome.out
    whole = json.loads(Path("whole/metrics.json").read_text())
    assert result("seed=2")["test/loss"] == whole["test/loss"]
    assert result("seed=2")["epochs"] == 2


def test_a_job_with_another_config_is_not_mistaken_for_the_same(command, no_figures):
    given = [*QUICK, INTO, "seed=1,1"]  # the same job twice runs once
    outcome = command(*given, "trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("already finished") == 1
    before = (SWEEP / "seed=1" / "metrics.json").read_bytes()
    outcome = command(*given, "trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    assert "this job's folder is seed=1-2" in outcome.out
    assert (SWEEP / "seed=1" / "metrics.json").read_bytes() == before
    assert result("seed=1-2")["epochs"] == 2


def test_a_folder_that_does_not_tell_jobs_apart_is_refused(command, no_figures):
    outcome = command(*QUICK, INTO, "trainer.max_epochs=1", "hydra.sweep.subdir=same", "seed=1,2")
    assert outcome.code == 1
    assert "set hydra.sweep.subdir" in outcome.err
    assert result("same")["seed"] == 1


def test_a_sweep_in_which_all_fails_says_so(command):
    outcome = command(*QUICK, INTO, "model.dropout=2,3")
    assert outcome.code == 1
    assert outcome.err.count("dropout probability has to be between 0 and 1") == 2
    assert (SWEEP / "summary.md").read_text().count("failed: ") == 2


def test_a_rehearsal_without_results_is_no_failure(command):
    outcome = command(*QUICK[:-1], "debug=fast", "seed=1,2")
    assert (outcome.code, outcome.err) == (0, "")
