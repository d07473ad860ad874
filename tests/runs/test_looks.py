"""Whatever looks at test labels is noted in the ledger beside the logs, and a sealed test set stays closed."""

import json
from pathlib import Path

import pytest
from helpers.processes import run as run_command

from cifar_lightning import api
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.ledger import read

QUICK = [
    "data=digits", "model=cnn2", "model.channels=[4,4]", "augmentation=none", "logger=none", "trainer.max_epochs=1",
    "callbacks.model_summary=null", "data.batch_size=512", "trainer.precision=32-true",
]  # fmt: skip
LEDGER = Path("logs/test_ledger.jsonl")
TWICE = "Test set of digits: looked at 2 times by 1 setting."


def lines():
    found, fault = read(LEDGER)
    assert fault == ""
    return found


def metrics(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())


@pytest.fixture
def run(command):
    """The folder of a run that was tested."""
    outcome = command(*QUICK, "hydra.run.dir=logs/train/runs/a")
    assert outcome.code == 0, outcome.err
    assert "Test set of digits: looked at once by 1 setting." in outcome.out
    return Path("logs/train/runs/a")


def test_a_run_notes_its_look_and_every_table_says_how_many_there_were(command, run):
    (line,) = lines()
    assert line["command"].startswith("python -m cifar_lightning data=digits model=cnn2")
    assert (line["run"], line["data"], line["split"], line["images"]) == ("train/runs/a", "digits", "test", 360)
    assert metrics(run)["test_look"] == line["hash"]
    assert command(*QUICK, "hydra.run.dir=logs/train/runs/b", "seed=1").code == 0  # the same setting
    assert [line["setting"] for line in lines()] == [line["setting"]] * 2
    assert TWICE in command("summarize", "logs", "out=RESULTS.md").out
    assert TWICE in Path("RESULTS.md").read_text()
    assert command("report", "logs").code == command("report", str(run)).code == 0
    assert TWICE in Path("logs/report.html").read_text()
    assert TWICE in (run / "report.html").read_text()


def test_only_a_look_at_test_labels_counts(command, run):
    for typed in (["split=val"], ["out=here"], ["tta=flip", "out=there"]):
        outcome = command("evaluate", str(run), *typed)
        assert outcome.code == 0, outcome.err
        assert ("Test set of digits: looked at" in outcome.out) == (typed != ["split=val"])
    assert json.loads(Path("here/evaluation.json").read_text())["test_look"] == lines()[1]["hash"]
    assert command("predict", str(run), "index=val:1").code == 0
    assert command("predict", str(run), "index=test:1,2").code == 0
    assert command(*QUICK, "test=false", "hydra.run.dir=logs/b").code == 0
    assert command(*QUICK, "trainer.fast_dev_run=true", "hydra.run.dir=logs/c").code == 0
    assert command("train=false", f"ckpt_path={run}", "trainer.limit_test_batches=0", "hydra.run.dir=logs/d").code == 0
    assert len({line["setting"] for line in lines()}) == 2  # tta=flip is another
    assert [line["images"] for line in lines()] == [360, 360, 360, 2]
    assert [line["run"] for line in lines()] == ["train/runs/a"] * 4


def test_from_python_a_look_is_noted_too(command):
    result = api.train(api.compose(QUICK), quiet=True)
    assert [line["hash"] for line in lines()] == [result.metrics["test_look"]]
    assert "Test set of digits: looked at once by 1 setting." in api.summarize([result]).notes


def test_an_edited_ledger_is_said_beside_the_numbers(command, run):
    LEDGER.write_text(LEDGER.read_text().replace('"images": 360', '"images": 0'))
    for typed in (["summarize", "logs"], ["evaluate", str(run)]):
        outcome = command(*typed)
        assert outcome.code == 0
        assert "Don't rely on this: test_ledger.jsonl is not as it was written (line 1 was edited" in " ".join(
            outcome.out.split()
        )
    LEDGER.unlink()
    assert "is unknown, as test_ledger.jsonl is missing" in command("summarize", "logs").out


def test_logs_may_be_moved_and_a_ledger_that_can_not_be_written_is_one_line(command, run):
    Path("logs").rename("elsewhere")
    moved = Path("elsewhere/train/runs/a")
    assert "looked at 2 times by 1 setting." in command("evaluate", str(moved)).out
    assert not Path("logs").exists()
    Path("elsewhere/test_ledger.jsonl").unlink()
    Path("logs").touch()
    before = set(Path().rglob("*"))
    for typed in (["evaluate", str(moved)], ["predict", str(moved), "index=test:0"], [*QUICK, "hydra.run.dir=new"]):
        outcome = command(*typed)
        assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
        assert outcome.err.startswith(
            "error: can't write logs/test_ledger.jsonl: a part of its path is a file. Each look"
        )
        assert set(Path().rglob("*")) == before
    assert command("evaluate", str(moved), "paths.log_dir=elsewhere").code == 0


def test_a_sealed_test_set_is_opened_by_a_reason_only(command):
    outcome = command(*QUICK, "data.sealed=true", "hydra.run.dir=logs/a")
    assert outcome.code == 0, outcome.err
    assert "data.sealed=true: the test set stays closed" in outcome.out
    assert not any(key.startswith("test") for key in metrics("logs/a"))
    assert not Path("logs/a/predictions.csv").exists()
    assert "index=test" not in outcome.out
    refused = {
        "evaluate logs/a": "this run's test set is sealed (data.sealed=true). To open it",
        "evaluate logs/a/checkpoints/last.ckpt": "this run's test set is sealed",
        "predict logs/a index=test:0": "this run's test set is sealed",
        "evaluate logs/a unseal=": "unseal= is empty",
        "evaluate logs/a split=val unseal=why": "unseal=why is for the test set",
        "train=false ckpt_path=logs/a": "data.sealed=true: test it with evaluate ckpt_path=",
        "train=false ckpt_path=logs/a data.sealed=false": "data.sealed=False: the checkpoint's run has True",
        "ckpt_path=logs/a data.sealed=false trainer.max_epochs=2": "data.sealed=False: the checkpoint's run has True",
    }
    for typed, message in refused.items():
        outcome = command(*typed.split())
        assert (outcome.code, outcome.err.count("\n")) == (1, 1), typed
        assert message in outcome.err
    assert not LEDGER.exists()
    assert command("evaluate", "logs/a", "split=val").code == 0
    assert command("evaluate", "logs/a", "unseal=our one table").code == 0
    assert command("evaluate", "logs/a").code == 0
    assert [line.get("unseal") for line in lines()] == ["our one table", None]
    Path("logs/a").rename("logs/b")  # another run, as far as the ledger knows
    assert command("evaluate", "logs/b").code == 1


def test_a_sealed_data_module_hands_out_no_test_batches():
    data = api.load_data(api.compose(["data=digits", "data.sealed=true"]))
    with pytest.raises(UserError, match=r"data\.sealed=true: the test set is closed"):
        data.test_dataloader()


def test_a_seal_is_for_sealed_runs(command, run):
    outcome = command("evaluate", str(run), "unseal=why")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "unseal=why: the test set of this run is not sealed" in outcome.err


@pytest.mark.parametrize(
    "typed",
    [
        "optimized_metric=test/acc",
        "scheduler=plateau scheduler.monitor=test/loss",
        "callbacks.best_checkpoint.monitor=test/acc callbacks.best_checkpoint.mode=max",
        "callbacks=early_stopping callbacks.early_stopping.monitor=test/acc",
        # with a callback of one's own, whose metrics nobody knows beforehand
        "+callbacks.mine._target_=mine.Callback +callbacks.mine.monitor=test/acc",
    ],
)
def test_nothing_is_chosen_by_test_data(command, typed):
    outcome = command(*QUICK, *typed.split())
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "nothing is chosen by test data" in outcome.err
    assert list(command.folder.iterdir()) == []


@pytest.mark.slow
def test_two_processes_of_a_run_note_one_look(command):
    code, _, err = run_command(command.folder, *QUICK, "trainer=ddp_sim", "hydra.run.dir=logs/a")
    assert code == 0, err
    assert len(lines()) == 1


@pytest.mark.slow
def test_parallel_jobs_of_a_sweep_note_one_each(command):
    code, _, err = run_command(command.folder, "-m", *QUICK, "seed=1,2,3,4", "hydra/launcher=joblib")
    assert code == 0, err
    assert [line["number"] for line in lines()] == [1, 2, 3, 4]
    assert len({line["run"] for line in lines()}) == 4
