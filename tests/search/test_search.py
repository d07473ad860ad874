"""Whole searches on the digits: what they leave, that they go on, that nothing but the validation split decides."""

import csv
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from cifar_lightning import api
from cifar_lightning.api import Result
from cifar_lightning.commands import search
from cifar_lightning.commands.report import page_of
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.errors import UserError
from cifar_lightning.search import study
from cifar_lightning.search.definition import read_search
from cifar_lightning.search.space import Parameter

SPACE = """
pruner: median
startup_trials: 100
overrides: [data=digits, model=cnn2, augmentation=none, optimizer=adam, scheduler=none, trainer.max_epochs=3]
space:
  optimizer.lr: {type: categorical, choices: [0.003, 0.01, 1e-9]}
  model.channels: {type: categorical, choices: [[4, 8], [8, 16]]}
  activation: {type: categorical, choices: [relu, tanh]}
  model.dropout: {type: categorical, choices: [0.1, 2], when: {activation: tanh}}
"""
QUICK = ["logger=none", "trainer.limit_train_batches=12"]


class Untouchable:
    """What stands in the place of the test set."""

    def __getattr__(self, name):
        raise AssertionError(f"a search asked for {name} of the test set")

    __len__ = __iter__ = __getitem__ = lambda self, *_: self.touched


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Trials, some pruned (1e-9 learns nothing) and some failing (a dropout of 2), without a test set."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "mine.yaml").write_text(SPACE)
    setup = ImageDataModule.setup

    def without_test(self, *arguments, **keys):
        setup(self, *arguments, **keys)
        self.test = Untouchable()

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(ImageDataModule, "setup", without_test)
        patch.setattr("cifar_lightning.runs.record.draw", lambda *_: {})  # takes longer than the training here
        assert search.main(["hparams_search=mine.yaml", "n_trials=14", *QUICK]) == 0
    return folder / "logs" / "search" / "mine"


def rows(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_trial_is_recorded_and_failures_with_their_reason_do_not_end_the_study(searched):
    trials = rows(searched)
    assert [int(row["number"]) for row in trials] == list(range(14))
    assert {row["state"] for row in trials} == {"complete", "pruned", "failed"}
    for row in trials:
        assert (row["state"] == "failed") == (row["model.dropout"] == "2")
        assert ("dropout" in row["reason"]) == (row["state"] == "failed")
        assert (row["model.dropout"] != "") == (row["activation"] == "tanh")
    (failed, *_) = (row for row in trials if row["state"] == "failed")
    (folder,) = (searched / "trials").glob(f"{int(failed['number']):03d}_*")
    assert "Traceback" in (folder / "cifar_lightning.log").read_text()


def test_what_learns_nothing_is_pruned_and_what_is_completed_has_the_accuracy_of_its_run(searched):
    for row in rows(searched):
        (folder,) = (searched / "trials").glob(f"{int(row['number']):03d}_*")
        if row["state"] == "complete":
            assert float(row["value"]) == json.loads((folder / "metrics.json").read_text())["val/acc"]
            assert row["epochs"] == "3"
        if row["state"] == "pruned":
            with (folder / "history.csv").open() as file:
                history = list(csv.DictReader(file))
            assert float(history[-1]["val/acc"]) == pytest.approx(float(row["value"]))
            assert len(history) == int(row["epochs"]) < 3
    assert {row["optimizer.lr"] for row in rows(searched) if row["state"] == "pruned"} >= {"1e-09"}


def test_no_image_of_the_test_set_was_used(searched):  # or the trials would all have failed
    records = [json.loads(path.read_text()) for path in (searched / "trials").glob("*/metrics.json")]
    assert len(records) > 4
    assert not [key for record in records for key in record if key.startswith("test/")]
    assert not list(searched.rglob("predictions.csv"))


def test_the_report_of_a_search_lists_every_trial_also_those_without_a_result(searched):
    page, problems = page_of(searched)
    assert problems == []
    assert "<h1>Search mine</h1>" in page
    trials = rows(searched)
    states = Counter(row["state"] for row in trials)
    shown = re.findall(r'<th scope="row" class="right">(\d+)</th>\s*<td>(\w+)</td>', page)
    assert sorted((int(number), state) for number, state in shown) == [(int(r["number"]), r["state"]) for r in trials]
    assert f"{states['complete']} complete, {states['pruned']} pruned, {states['failed']} failed" in page
    for words in ("How much each parameter mattered", "Accuracy against each parameter", "- override /model: cnn2"):
        assert words in page
    assert page.count("<img ") >= 3


def test_what_is_drawn_has_digits_that_can_be_read_and_typed():
    lr = Parameter("optimizer.lr", "float", {"low": 1e-4, "high": 0.12345, "log": True}, {})
    decay = Parameter("ema_decay", "float", {"low": 0.999, "high": 0.99999}, {})
    stepped = Parameter("loss.label_smoothing", "float", {"low": 0, "high": 1, "step": 0.05}, {})
    drawn = [(0.004430375245218269, lr), (0.12344999, lr), (0.999951234, decay), (3 * 0.05, stepped), (0.0, stepped)]
    assert [study.value_of(*each) for each in drawn] == [0.00443038, 0.12345, 0.999951, 0.15, 0.0]


def test_figures_show_the_history_the_importance_and_the_parameters(searched):
    for name in ("history", "importance", "parameters"):
        with Image.open(searched / "figures" / f"{name}.png") as image:
            assert image.width > 600
            assert len(image.convert("L").getcolors()) > 20


def test_the_best_config_is_an_experiment_that_runs_and_gives_the_same_validation_accuracy(searched, command):
    best = max((row for row in rows(searched) if row["state"] == "complete"), key=lambda row: float(row["value"]))
    file = searched / "experiment" / "best_mine.yaml"
    assert f"(trial {best['number']})" in file.read_text()
    assert str(searched) not in file.read_text().split("defaults:")[1]
    outcome = command(f"--config-dir={searched}", "experiment=best_mine", "logger=none")
    assert outcome.code == 0, outcome.err
    (folder,) = command.runs()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["val/acc"] == float(best["value"])
    assert metrics["test/acc"] > 0.3  # now it is asked for


# Where only the study matters, its trials are numbers instead of runs.


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """`quick(n_trials=…)` searches with runs that take no time; their accuracy follows from their overrides."""
    monkeypatch.chdir(tmp_path)
    Path("quick.yaml").write_text(
        "overrides: [data=digits, model=cnn2]\nstartup_trials: 4\npruner: none\nspace:\n"
        "  optimizer.lr: {type: float, low: 1e-4, high: 0.1, log: true}\n"
        "  data.batch_size: {type: int, low: 8, high: 64, step: 8}\n"
    )
    monkeypatch.setattr(api, "compose", lambda words, output_dir=None: list(words))
    monkeypatch.setattr(study.api, "train", pretended)

    def found(*words):
        return read_search("quick.yaml", {k: v for k, _, v in (w.partition("=") for w in words)}, [])

    def run(*words, found=found):
        found = found(*words)
        opened = study.open_study(found)
        study.run_trials(opened, found, lambda trial: None)
        return opened.get_trials()

    return run


def pretended(words, *, quiet, callbacks):
    lr = next(float(word.partition("=")[2]) for word in words if word.startswith("optimizer.lr="))
    return Result(Path(), {"val/acc": 1 - abs(lr - 0.01), "epochs": 1}, [])


def test_a_study_goes_on_to_the_total_and_draws_what_an_uninterrupted_one_draws(quick, tmp_path):
    quick("n_trials=3")
    parts = quick("n_trials=6")
    whole = quick("n_trials=6", "study_name=whole")
    assert len(parts) == 6
    assert [trial.params for trial in parts] == [trial.params for trial in whole]
    assert len({trial.params["optimizer.lr"] for trial in whole}) == 6
    assert all(trial.params["data.batch_size"] % 8 == 0 for trial in whole)
    assert quick("n_trials=6") == parts
    other = quick("n_trials=2", "study_name=other", "sampler_seed=1", f"storage=sqlite:///{tmp_path}/shared.db")
    assert other[0].params != whole[0].params
    assert (tmp_path / "shared.db").exists()
    assert not (tmp_path / "logs" / "search" / "other" / "study.db").exists()


def test_an_interrupted_trial_is_not_counted_and_the_same_command_goes_on(quick, monkeypatch):
    begun = []

    def interrupted(words, **keys):
        begun.append(words)
        if len(begun) == 3:
            raise SystemExit(130)  # what Lightning makes of Ctrl-C
        return pretended(words, **keys)

    monkeypatch.setattr(study.api, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick("n_trials=5")
    trials = quick("n_trials=5")
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "FAIL", *["COMPLETE"] * 3]


def test_ctrl_c_before_any_trial_is_done_is_answered_in_one_line(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **keys):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study.api, "train", interrupted)
    Path("mine.yaml").write_text("space:\n  optimizer.lr: {type: float, low: 0.1, high: 0.2}\n")
    assert search.main(["hparams_search=mine.yaml", "data=digits", "model=cnn2"]) == 130
    out, err = capsys.readouterr()
    assert err == "interrupted: the same command continues\n"
    assert "best config" not in out


def test_workers_of_one_study_share_its_trials_and_draw_differently(quick):
    once = read_search("quick.yaml", {"n_trials": "12"}, [])  # composing is for one thread at a time
    threads = [threading.Thread(target=quick, kwargs={"found": lambda: once}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = quick("n_trials=12")
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(done) == 12
    assert len({trial.params["optimizer.lr"] for trial in done}) == 12


def test_a_study_of_another_space_or_config_is_not_gone_on_with(quick, tmp_path):
    quick("n_trials=1")
    path = tmp_path / "quick.yaml"
    text = path.read_text()
    path.write_text(text.replace("high: 0.1", "high: 0.2"))
    with pytest.raises(UserError, match=r"begun with another space \(optimizer.lr.arguments.high\)"):
        quick("n_trials=2")
    path.write_text(text.replace("model=cnn2", "model=cnn2, trainer.max_epochs=2"))
    with pytest.raises(UserError, match=r"begun with another config \(trainer.max_epochs\): .*study_name="):
        quick("n_trials=2")
    path.write_text(text.replace("model=cnn2", "model=cnn2, data.num_workers=0, logger=none"))  # not what is trained
    assert len(quick("n_trials=2")) == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "storage=nonsense: Could not parse"),
        ("sqlite:////nowhere/at/all/study.db", "storage=sqlite:////nowhere.*unable to open database file"),
        ("nosuchdb://me:sec@ret/secret@host/db", "storage=nosuchdb://…@host/db: "),
        ("mysql+pymysql://me:secret@host/db", r"storage=.*: No module named 'pymysql'; install the driver of this"),
    ],
)
def test_a_storage_that_can_not_be_used_is_named_without_its_password_and_leaves_no_folder(quick, address, message):
    with pytest.raises(UserError, match=message) as caught:
        quick(f"storage={address}")
    assert "secret" not in str(caught.value)
    assert not Path("logs").exists()


def test_a_search_without_any_completed_trial_says_why(tmp_path, monkeypatch, capsys):
    def failing(*_, **__):
        raise UserError("no memory")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study.api, "train", failing)
    Path("mine.yaml").write_text("space:\n  optimizer.lr: {type: float, low: 0.1, high: 0.2}\n")
    assert search.main(["hparams_search=mine.yaml", "n_trials=2", "data=digits", "model=cnn2"]) == 1
    out, err = capsys.readouterr()
    assert out.count("failed: no memory") == 2
    assert err == "error: no trial was completed; the last one failed: no memory\n"


@pytest.mark.slow
def test_two_commands_at_once_work_on_one_study(tmp_path):
    (tmp_path / "mine.yaml").write_text(SPACE)
    line = [sys.executable, "-m", "cifar_lightning", "search", "hparams_search=mine.yaml", "n_trials=12", *QUICK]
    workers = [subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    folder = tmp_path / "logs" / "search" / "mine"
    states = [row["state"] for row in rows(folder)]
    assert len(states) == 12
    assert "running" not in states
    shares = [sum(line.startswith("trial ") for line in output.splitlines()) for output in outputs]
    assert sum(shares) == 12
    assert min(shares) > 0
