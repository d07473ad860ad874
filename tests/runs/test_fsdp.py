"""`trainer=fsdp`: two processes with half of the network each train what one process does, and save it whole."""

import csv
from pathlib import Path

import pytest
import torch
from helpers.processes import QUICK, metrics, rows, run
from helpers.records import checkpoint

FSDP = ["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=false"]
# A learning rate at which training does not magnify rounding.
TRAINING = [*QUICK, "optimizer.lr=0.003", "trainer.gradient_clip_val=1.0", "callbacks.model_summary=null"]
WHOLE = [*TRAINING, "trainer.max_epochs=2", "scheduler=none"]


@pytest.mark.slow
def test_it_trains_what_one_process_does_saves_it_whole_and_resumes(command):
    first = [*WHOLE, "trainer.max_epochs=1", "test=false", "data.batch_size=16"]
    code, out, err = run(command.folder, *first, *FSDP, "hydra.run.dir=two")
    assert code == 0, err
    code, out, err = run(command.folder, "ckpt_path=two/checkpoints/last.ckpt", "trainer.max_epochs=2", "test=true")
    assert (code, out.count("test accuracy, top 5")) == (0, 1), err
    assert metrics(Path("two"))["processes"] == 2
    assert command(*WHOLE, "data.batch_size=32", "trainer=cpu", "hydra.run.dir=one").code == 0

    for both, alone in zip(rows(Path("two/history.csv")), rows(Path("one/history.csv")), strict=True):
        del both["seconds"], alone["seconds"]
        assert both == pytest.approx(alone, rel=1e-4)
    sharded, plain = checkpoint(Path("two")), checkpoint(Path("one"))
    assert sharded["state_dict"].keys() == plain["state_dict"].keys()
    for name, tensor in plain["state_dict"].items():
        assert type(sharded["state_dict"][name]) is torch.Tensor
        torch.testing.assert_close(sharded["state_dict"][name], tensor, rtol=1e-3, atol=1e-5)
    momenta, expected = (c["optimizer_states"][0]["state"] for c in (sharded, plain))
    assert momenta.keys() == expected.keys()
    for index, state in expected.items():
        torch.testing.assert_close(momenta[index]["momentum_buffer"], state["momentum_buffer"], rtol=1e-2, atol=1e-4)

    best = "ckpt_path=two/checkpoints/best.ckpt"
    assert command("train=false", best, "trainer=cpu", "hydra.run.dir=again").code == 0
    assert metrics(Path("again"))["test/acc"] == metrics(Path("two"))["test/acc"]
    with open("two/predictions.csv") as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(360))
    assert command("ckpt_path=two/checkpoints/last.ckpt", "trainer=cpu", "trainer.max_epochs=3").code == 0
    assert [row["epoch"] for row in rows(Path("two/history.csv"))] == [1, 2, 3]


@pytest.mark.slow
def test_all_processes_validate_with_the_batch_norm_that_is_saved(command):
    given = [*TRAINING, "model=cnn4_bn", "model.channels=[4,4,4,4]", "trainer.max_epochs=1", "test=false"]
    assert run(command.folder, *given, *FSDP, "hydra.run.dir=two")[0] == 0
    best = "ckpt_path=two/checkpoints/best.ckpt"
    assert command("train=false", best, "trainer=cpu", "hydra.run.dir=again").code == 0
    both, alone = metrics(Path("two")), metrics(Path("again"))
    assert both["val/acc"] == alone["val/acc"]
    assert both["val/loss"] == pytest.approx(alone["val/loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("ema_decay=0.9", "ema_decay=0.9"),
        ("swa_start=0.5", "swa_start=0.5"),
        ("optimizer.sam_rho=0.1", "optimizer.sam_rho=0.1"),
        ("optimizer=muon", "optimizer=muon"),
    ],
)
def test_what_needs_whole_weights_is_refused(command, monkeypatch, mistake, message):
    monkeypatch.setenv("LOCAL_RANK", "0")  # as in the processes that the command starts
    outcome = command(*QUICK, *FSDP, mistake, "hydra.run.dir=here")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: {message} can't be used with trainer.strategy=fsdp: ")
