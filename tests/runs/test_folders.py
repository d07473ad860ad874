import errno
import os
import shlex
from pathlib import Path

import pytest

from cifar_lightning.config.compose import compose, plain
from cifar_lightning.errors import UserError
from cifar_lightning.runs.folders import checkpoint_to_resume, errors_explained, how_to_go_on
from cifar_lightning.runs.resume import resumed_config

SAVED = ["data=digits", "model=cnn2", "optimizer.lr=0.02", "paths.output_dir=here"]


def resume(*typed):
    saved = plain(compose(SAVED))
    return resumed_config(saved, compose([*typed, "paths.output_dir=here"]), list(typed))


def test_the_saved_config_wins():
    config = resume("ckpt_path=last")
    assert config.optimizer.lr == 0.02
    assert config.data.name == "digits"
    assert config.ckpt_path == "last"


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("trainer.max_epochs=99", "trainer.max_epochs", 99),
        ("trainer=cpu", "trainer.accelerator", "cpu"),
        ("logger=csv", "logger.csv.name", "csv"),
        ("data.eval_batch_size=7", "data.eval_batch_size", 7),
        ("tags=[again]", "tags", ["again"]),
        ("callbacks.last_checkpoint.every_minutes=1", "callbacks.last_checkpoint.every_minutes", 1),
    ],
)
def test_what_cannot_falsify_the_run_may_change(typed, key, value):
    config = resume(typed)
    for part in key.split("."):
        config = config[part]
    assert config == value


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        (["optimizer.lr=0.5"], "optimizer.lr"),
        (["seed=7"], "seed"),
        (["model=cnn4"], "model.channels"),
        (["data=digits", "data.batch_size=7"], "data.batch_size"),
        (["augmentation=flip"], "augmentation"),
        (["trainer.gradient_clip_val=1.0"], "trainer.gradient_clip_val"),
        (["trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches"),
    ],
)
def test_what_would_make_it_another_experiment_is_refused_by_name(typed, key):
    with pytest.raises(UserError, match=f"^{key}.*a resumed run can't change it"):
        resume(*typed)


@pytest.mark.parametrize("typed", [["optimizer.lr=0.02"], ["model=cnn2"], ["seed=0"], ["data=digits"]])
def test_the_command_that_started_the_run_may_be_repeated(typed):
    assert resume(*typed).optimizer.lr == 0.02


def make_run(folder: Path, *, finished: bool, age: int) -> Path:
    checkpoint = folder / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    os.utime(checkpoint, (1_000_000 - age,) * 2)
    if finished:
        (folder / "metrics.json").touch()
    return checkpoint


def test_last_is_the_newest_unfinished_run_of_the_task(tmp_path):
    runs = tmp_path / "logs" / "train" / "runs"
    make_run(runs / "older", finished=False, age=20)
    expected = make_run(runs / "newer", finished=False, age=10)
    make_run(runs / "newest", finished=True, age=0)
    make_run(tmp_path / "logs" / "other" / "runs" / "a", finished=False, age=0)
    config = compose([f"paths.log_dir={tmp_path}/logs", "ckpt_path=last"])
    assert checkpoint_to_resume(config) == expected
    expected.parent.parent.rename(tmp_path / "elsewhere")
    assert checkpoint_to_resume(config).parent.parent.name == "older"


def test_no_unfinished_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no stopped run"):
        checkpoint_to_resume(compose([f"paths.log_dir={tmp_path}", "ckpt_path=last"]))


def test_the_command_to_go_on_with_survives_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs of today" / "2026-01-01_model=cnn2,it's"
    checkpoint = make_run(folder, finished=False, age=0)
    first, command = how_to_go_on(folder, ["model=cnn2", "test=false", "paths.log_dir=there"]).splitlines()
    assert first == "Resume with:"
    typed = f"ckpt_path={checkpoint.relative_to(tmp_path)}"
    assert shlex.split(command) == ["python", "-m", "cifar_lightning", typed, "test=false", "paths.log_dir=there"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert str(checkpoint) in shlex.split(how_to_go_on(folder, []))[-1]


def raised(number, filename=None):
    """A disk's error as a library passes it on."""
    try:
        raise OSError(number, os.strerror(number), filename)
    except OSError as cause:
        error = ValueError("you tried to log something strange")
        error.__cause__ = cause
        return error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("name", [None, "last.ckpt"])
def test_what_a_disk_refuses_is_told_in_its_words(tmp_path, number, name):
    filename = name and str(tmp_path / name)
    with pytest.raises(UserError) as ending, errors_explained(tmp_path):
        raise raised(number, filename)
    assert str(ending.value).startswith(f"can't write {filename or tmp_path}: {os.strerror(number)}. ")


@pytest.mark.parametrize(
    "error", [ValueError("mine"), raised(errno.ENOENT), raised(errno.EACCES, "/data/batch_1"), UserError("mine")]
)
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as ending, errors_explained(tmp_path):
        raise error
    assert ending.value is error
