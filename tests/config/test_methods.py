"""Methods that can't work together, or with a trainer, are refused by the command in one line that names both."""

import pytest

REFUSED = [
    (["optimizer.sam_rho=0.05", "trainer=fsdp"], "optimizer.sam_rho=0.05 can't be used with trainer.strategy=fsdp"),
    (["optimizer.sam_rho=0.05", "trainer.precision=16-mixed"], "sam_rho=0.05 can't be used with trainer.precision=16-"),
    (["optimizer.sam_adaptive=true"], "optimizer.sam_adaptive=true needs optimizer.sam_rho"),
    (["ema_decay=0.99", "swa_start=0.5"], "swa_start=0.5 can't be used with ema_decay=0.99"),
    (
        ["optimizer=extra", "optimizer.name=ScheduleFreeSGD", "swa_start=0.5"],
        "optimizer.name=ScheduleFreeSGD can't be used with ema_decay or swa_start",
    ),
    (["data.keep_hardest=0.5", "trainer.devices=2"], "data.keep_hardest=0.5 can't be used with trainer.devices=2"),
    (["data.size_schedule=[[0.5,16]]", "trainer.max_epochs=-1"], "can't be used with trainer.max_epochs=-1"),
    (["data.size_schedule=[[0.5,16]]", "model=lenet"], "ConvNet can't take images of 16 pixels instead of 32"),
    (["data.size_schedule=[[0.5,16],[0.2,20]]"], "must be pairs of a share of the training and a size"),
    (["data.size_schedule=16"], "must be pairs"),
    (["data.keep_hardest=1.5"], "must be a share of the images"),
    (["optimizer=extra", "optimizer.name=Prodigi"], "pytorch_optimizer has no such optimizer; did you mean Prodigy?"),
    (["optimizer=extra", "optimizer.name=AdaHessian"], "optimizer.name=AdaHessian can't train this network: "),
    (["optimizer=extra", "optimizer.name=LoRARite"], "optimizer.name=LoRARite can't train this network: "),
    (["optimizer=extra", "optimizer.name=Lookahead"], "optimizer.name=Lookahead can't train this network: "),
    (["optimizer=extra", "optimizer.name=ScalableShampoo"], "has a state that is not plain data"),
    (["optimizer=torch", "optimizer.name=Muon"], "it takes matrices only; use optimizer=muon"),
    (["scheduler=wsd", "scheduler.decay=2"], "scheduler.decay=2: must be"),
    (["scheduler=wsd", "scheduler.shape=round"], "scheduler.shape=round: must be one of linear, sqrt"),
    (["scheduler=cosine_restarts", "scheduler.growth=0"], "scheduler.growth=0: must be"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "message"), REFUSED, ids=[" ".join(typed) for typed, _ in REFUSED])
def test_it_is_refused_in_one_line(command, typed, message):
    outcome = command("data=digits", "trainer.max_epochs=1", *typed)
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
    assert not list(command.folder.rglob("config.yaml"))


def test_a_missing_extra_is_named(command, monkeypatch):
    monkeypatch.setattr("cifar_lightning.optim.extra.find_spec", lambda name: None)
    outcome = command("data=digits", "optimizer=extra", "trainer.max_epochs=1")
    assert outcome.code == 1
    assert "pip install 'cifar-lightning[optimizers]'" in outcome.err
