"""An ASCII terminal, a closed or full standard output, names that are no UTF-8: no traceback and no lost run."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.checkpoints import checkpoint_of, whole_config, write_checkpoint

from cifar_lightning.commands import evaluate, export, predict, report, summarize
from cifar_lightning.console import console_handler
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.files import write_json, write_text
from cifar_lightning.reporting.tables import rich_table

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "trainer.max_epochs=1", "trainer.limit_train_batches=3"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
NOT_UTF8 = os.fsdecode(b"lo\xc3gs_\xff")
posix = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
linux = pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode here")


def typed(folder, command, *arguments, closing="", **keys):
    """The command in a process of its own, some of its streams closed by the shell that starts it."""
    words = [sys.executable, "-m", "cifar_lightning", *command.split(), *arguments]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *words], cwd=folder, env=os.environ | ASCII, text=True, **keys
    )


def finished(run):
    return (run / "metrics.json").is_file() and (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
@posix
def test_a_run_is_not_lost_for_its_log(tmp_path):
    with open("/dev/full", "w") as full:
        done = typed(tmp_path, "", *QUICK, "hydra.run.dir=run", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert finished(tmp_path / "run")


@posix
@pytest.mark.slow
@pytest.mark.parametrize("closing", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_runs_and_sweeps_need_no_standard_stream(tmp_path, closing):
    assert typed(tmp_path, "", *QUICK, "hydra.run.dir=run", closing=closing).returncode == 0
    assert typed(tmp_path, "", "-m", *QUICK, "hydra.sweep.dir=sweep", "seed=1,2", closing=closing).returncode == 0
    assert all(finished(tmp_path / run) for run in ("run", "sweep/seed=1", "sweep/seed=2"))


@posix
@pytest.mark.parametrize(
    "words",
    [
        ["", "--help"],
        pytest.param(["evaluate", "--help"], marks=pytest.mark.slow),
        pytest.param(["data", "data=digits"], marks=pytest.mark.slow),
    ],
)
def test_what_nobody_reads_is_no_error(tmp_path, words):
    reading, writing = os.pipe()
    os.close(reading)
    unread = typed(tmp_path, *words, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    closed = typed(tmp_path, *words, closing=">&-", stderr=subprocess.PIPE)
    assert [(done.returncode, done.stderr) for done in (unread, closed)] == [(0, ""), (0, "")]


@posix
def test_a_result_that_could_not_be_printed_is_an_error(tmp_path):
    with open("/dev/full", "w") as full:
        done = typed(tmp_path, "evaluate", "--help", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


@linux
@pytest.mark.figures
def test_a_folder_and_a_file_that_are_not_utf8_are_read_and_written(command, capsys):
    assert command(*QUICK, "hydra.run.dir=run").code == 0
    folder = Path(NOT_UTF8)
    shutil.move("run", folder)
    picture = folder / f"{NOT_UTF8}.png"
    shutil.copy(folder / "figures" / "samples.png", picture)
    for module, *arguments in (
        (evaluate, f"ckpt_path={folder}", "split=val"),
        (predict, f"ckpt_path={folder}", f"images={picture}", f"out={folder}/answers.json"),
        (export, f"ckpt_path={folder}", "format=onnx"),
        (summarize, str(folder), f"out={folder}"),
        (report, str(folder)),
    ):
        assert module.main(arguments) == 0, (module, capsys.readouterr().err)
    assert "\\udcff" in capsys.readouterr().out
    assert json.loads((folder / "answers.json").read_text())["images"][0]["image"] == str(picture)


@linux
@pytest.mark.parametrize("words", [[f"paths.log_dir={NOT_UTF8}"], ["-m", "seed=1,2", f"hydra.sweep.dir={NOT_UTF8}"]])
def test_training_into_a_folder_that_is_not_utf8_is_refused_before_it_is_made(command, words):
    outcome = command(*words, *QUICK)
    assert outcome.code == 1
    assert "is not valid UTF-8" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(command.folder.iterdir())


def test_training_in_a_folder_that_is_not_utf8_is_refused(command, monkeypatch):
    monkeypatch.setattr(os, "getcwd", lambda: f"/{NOT_UTF8}")
    assert "is not valid UTF-8" in command(*QUICK).err


ESCAPE = "\x1b]0;title\x07\x9b31m\u202e\r"


def is_clean(text):
    return all(letter.isprintable() or letter == "\n" for letter in text)


def test_no_control_character_reaches_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / f"a{ESCAPE}"
    folder.mkdir()
    write_checkpoint(folder / "a.ckpt", config=whole_config("data.val_size=10"))
    doctored = checkpoint_of(whole_config())
    doctored["cifar_lightning"]["config"]["model"]["_target_"] = f"x{ESCAPE}"
    torch.save(doctored, "target.ckpt")
    write_json(folder / "run" / "metrics.json", {"val/acc": 0.5, "test/acc": 0.5, "overrides": [f"model={ESCAPE}\nx"]})
    for module, *arguments in (
        (evaluate, f"ckpt_path={folder}/a.ckpt", "split=val"),
        (evaluate, "ckpt_path=target.ckpt"),
        (evaluate, f"ckpt_path={ESCAPE}"),
        (evaluate, f"split={ESCAPE}"),
        (summarize, str(folder)),
        (summarize, f"{folder}/nothing"),
    ):
        module.main(arguments)
        printed = capsys.readouterr()
        assert printed.out + printed.err
        assert is_clean(printed.out + printed.err), (module, arguments)


def test_no_control_character_reaches_the_log_or_a_table(monkeypatch, capsys):
    record = logging.LogRecord("x", logging.INFO, "x", 1, "of %s", (ESCAPE,), None)
    console_handler().handle(record)
    assert is_clean(capsys.readouterr().out)
    assert is_clean(str(UserError(ESCAPE)))
    table = rich_table([{f"a{ESCAPE}": f"b{ESCAPE}\nc"}])
    assert is_clean(str(table.columns[0].header) + str(next(iter(table.columns[0].cells))))


def test_a_text_with_surrogates_is_written_as_it_can_be_read_again(tmp_path):
    write_json(tmp_path / "a.json", {"path": NOT_UTF8})
    assert json.loads((tmp_path / "a.json").read_text()) == {"path": NOT_UTF8}
    write_text(tmp_path / "a.txt", NOT_UTF8)
    assert (tmp_path / "a.txt").read_text() == ascii(NOT_UTF8)[1:-1]
