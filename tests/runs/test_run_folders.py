"""A run owns its folder, and goes on from it: who else may write there, and what its files then say."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.stopping import AccidentAt

from cifar_lightning import api
from cifar_lightning.callbacks.last_checkpoint import WholeFiles
from cifar_lightning.errors import UserError
from cifar_lightning.runs import folders as runs
from cifar_lightning.runs.processes import processes_to_start, started_from_outside

QUICK = [
    *("data=digits", "data.batch_size=256", "model=cnn2", "augmentation=none", "scheduler=none", "logger=none"),
    *("callbacks.model_summary=null", "trainer.accelerator=cpu", "trainer.max_epochs=1"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a finished run of one epoch in `run`."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        api.train(api.compose(QUICK, output_dir=folder / "run"), quiet=True)
    return folder


@pytest.fixture
def run(made, command):
    """A finished run in the current folder's `logs/train/runs/run`."""
    folder = command.folder / "logs" / "train" / "runs" / "run"
    shutil.copytree(made / "run", folder)
    return folder


def refused(outcome, message):
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_a_runs_results_is_not_written_over(command, run, finished):
    if not finished:
        (run / "metrics.json").unlink()
    before = content(run)
    message = f"holds a {'finished' if finished else 'stopped'} run: choose another, or resume with ckpt_path="
    refused(command(*QUICK, f"hydra.run.dir={run}"), message)
    with pytest.raises(UserError, match=message):
        api.train(api.compose(QUICK, output_dir=run), quiet=True)
    assert {name: data for name, data in content(run).items() if name != runs.LOCK} == {
        name: data for name, data in before.items() if name != runs.LOCK
    }


def test_nobody_goes_on_with_a_run_that_is_running(command, run):
    (run / "metrics.json").unlink()
    with runs.claim(run):
        refused(command("ckpt_path=last"), "no stopped run with a checkpoint in logs/train/runs (1 still running)")
        refused(command(f"ckpt_path={run}"), "another process runs in this folder")
        with pytest.raises(UserError, match="another process runs in this folder"):
            api.train(api.compose([f"ckpt_path={run}"]), quiet=True)


def test_the_last_run_is_named_with_its_age(command, run):
    (run / "metrics.json").unlink()
    file = run / "checkpoints" / "last.ckpt"
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 7300))
    outcome = command("ckpt_path=last")
    assert outcome.code == 0, outcome.err
    assert "resuming logs/train/runs/run, stopped 2:0" in outcome.out


def test_a_run_that_goes_on_is_finished_no_longer(run):
    config = api.compose([f"ckpt_path={run}", "trainer.max_epochs=3"])
    with pytest.raises(RuntimeError):
        api.train(config, quiet=True, callbacks=[AccidentAt("on_train_epoch_start", 2)])
    assert not (run / "metrics.json").exists()
    assert json.loads((run / "metrics_before.json").read_text())["epochs"] == 1
    assert api.train(api.compose(["ckpt_path=last", "trainer.max_epochs=3"]), quiet=True).metrics["epochs"] == 3
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 3


def test_a_folder_stands_for_its_last_checkpoint_in_training_and_its_best_in_a_test(command, run):
    shutil.copy(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt")
    assert runs.checkpoint_file(str(run), "last").name == "last.ckpt"
    outcome = command("train=false", f"ckpt_path={run}")
    assert outcome.code == 0, outcome.err
    (tested,) = [folder for folder in command.runs() if folder != run]
    assert json.loads((tested / "metrics.json").read_text())["checkpoint"] == "best"
    (run / "checkpoints" / "best.ckpt").unlink()
    refused(command("train=false", f"ckpt_path={run}/checkpoints/best.ckpt"), "last.ckpt (without validation")


def test_a_checkpoint_goes_on_alone(command, made, run):
    shutil.copy(run / "checkpoints" / "last.ckpt", "alone.ckpt")
    shutil.rmtree(run)
    (made / "run").rename(made / "elsewhere")  # the folder that the checkpoint names
    outcome = command("ckpt_path=alone.ckpt", "trainer.max_epochs=1")
    (made / "elsewhere").rename(made / "run")
    assert outcome.code == 0, outcome.err
    assert "the latest weights are tested" in outcome.out
    (folder,) = command.runs()
    assert json.loads((folder / "metrics.json").read_text())["test/acc"] is not None


def test_a_run_does_not_go_on_with_other_data(command, run):
    refused(command(f"ckpt_path={run}", "trainer.max_epochs=2", "data.val_size=0.3"), "data.val_size")
    checkpoint = run / "checkpoints" / "last.ckpt"
    import torch

    saved = torch.load(checkpoint, weights_only=True)
    saved["cifar_lightning"]["data_checksum"] = "0123456789abcdef"
    torch.save(saved, checkpoint)
    refused(command(f"ckpt_path={run}", "trainer.max_epochs=2"), "than the run was trained on (0123456789abcdef)")
    assert (run / "metrics.json").exists()


@pytest.mark.parametrize("name", ["history.csv", "checkpoints/more", "cifar_lightning.log", ".hydra/config.yaml"])
def test_no_link_in_a_received_folder_is_followed(command, run, name):
    target, link = command.folder / "precious", run / name
    target.write_text("precious")
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    refused(command(f"ckpt_path={run}", "trainer.max_epochs=2"), "is a symbolic link")
    assert target.read_text() == "precious"


def test_a_checkpoint_is_written_beside_its_place_under_a_new_name(tmp_path):
    left = tmp_path / ".last.ckpt.tmp"
    left.symlink_to(tmp_path / "precious")
    (tmp_path / ".last.ckpt.abc.tmp").symlink_to(tmp_path / "precious")
    WholeFiles().save_checkpoint({"a": 1}, tmp_path / "last.ckpt")
    assert not (tmp_path / "precious").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", left.name}


@pytest.mark.parametrize("key", ["scheduler=plateau", "callbacks=early_stopping"])
def test_what_waits_for_a_validation_can_be_stopped_before_the_first(command, key):
    outcome = command(*[word for word in QUICK if not word.startswith("scheduler")], key, "trainer.max_steps=2")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert "had no val/loss to check: training ended before it was measured" in outcome.out


def test_another_length_of_the_schedule_is_said(command, run):
    shutil.rmtree(run)
    words = [word for word in QUICK if not word.startswith("scheduler")]
    assert command(*words, "scheduler=cosine", "trainer.max_steps=2", f"hydra.run.dir={run}").code == 0
    outcome = command(f"ckpt_path={run}", "trainer.max_steps=-1")
    assert outcome.code == 0, outcome.err
    assert "scheduler=cosine now lasts max_epochs=1, max_steps=-1 (before: max_epochs=1, max_steps=2)" in outcome.out


def test_a_batch_script_of_slurm_is_one_process(monkeypatch):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    trainer = api.compose([*QUICK, "trainer=ddp_sim"]).trainer
    assert not started_from_outside()
    assert processes_to_start(trainer) == 2
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")  # as srun sets it
    assert started_from_outside()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": "2"}, "2 processes were started, but trainer.devices=1 and trainer.num_nodes=1"),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "0"}, "4 processes were started, but trainer.devices=1"),
    ],
)
def test_as_many_processes_are_asked_for_as_there_are(command, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused(command(*QUICK), message)


def test_srun_has_to_set_all_of_its_variables(command, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    refused(command(*QUICK, "trainer=ddp_sim"), "srun's variable SLURM_NTASKS is not set")


def test_a_sweep_waits_for_jobs_that_another_process_runs(command):
    folder = command.folder / "sweep" / "seed=1"
    (folder / ".hydra").mkdir(parents=True)
    with runs.claim(folder):
        outcome = command("-m", *QUICK, "seed=1,2", "hydra.sweep.dir=sweep")
    assert outcome.code == 1
    assert "1 of the jobs are run by another process" in outcome.err
    assert (command.folder / "sweep" / "seed=2" / "metrics.json").exists()
