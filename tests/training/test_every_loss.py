"""Every choice of the group `loss` trains through the command, resumes bit for bit, and takes soft targets."""

import json
from pathlib import Path

import pytest
import torch

from cifar_lightning.config.compose import compose, instantiate, plain
from cifar_lightning.config.hints import choices
from cifar_lightning.runs.build import parameters_of

QUICK = [
    "data=digits", "model=cnn2", "optimizer=adam", "optimizer.lr=0.003", "scheduler=none", "logger=none",
    "data.imbalance=5", "trainer.precision=32-true", "callbacks.model_summary=null",
]  # fmt: skip


LOSSES = [pytest.param(n, marks=() if n in ("ldam", "focal") else pytest.mark.slow) for n in choices("loss")]


@pytest.mark.parametrize("loss", LOSSES)
def test_it_trains_and_resumes_as_if_never_stopped(command, loss):
    # LDAM counts classes differently from half of the epochs on, in which the second run is stopped.
    late = ["loss.reweight_from=0.5"] if loss == "ldam" else []
    typed = [*QUICK, "augmentation=none", f"loss={loss}", *late]
    assert command(*typed, "trainer.max_epochs=3", "hydra.run.dir=whole").code == 0
    assert json.loads(Path("whole/metrics.json").read_text())["test/acc"] > 0.3
    assert command(*typed, "trainer.max_epochs=3", "trainer.max_steps=50", "hydra.run.dir=two", "test=false").code == 0
    outcome = command("ckpt_path=two", "trainer.max_steps=-1", "test=true")
    assert outcome.code == 0, outcome.err
    weights = [torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("whole", "two")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_ldam_is_told_when_its_late_epochs_begin(command):
    for late in ("0.5", "1.0"):
        typed = [*QUICK, "augmentation=none", "loss=ldam", f"loss.reweight_from={late}", "trainer.max_epochs=2"]
        assert command(*typed, f"hydra.run.dir={late}").code == 0
    first, second = (Path(late, "history.csv").read_text().splitlines()[1:] for late in ("0.5", "1.0"))
    assert first[0].rpartition(",")[0] == second[0].rpartition(",")[0]  # but for the seconds
    assert first[1].rpartition(",")[0] != second[1].rpartition(",")[0]


@pytest.mark.parametrize("loss", choices("loss"))
def test_it_takes_the_soft_targets_of_mixup(command, loss):
    outcome = command(*QUICK, "augmentation=mixup", f"loss={loss}", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(("loss", "keys"), [*((loss, {}) for loss in choices("loss")), ("focal", {"gamma": 0.5})])
def test_gradients_are_finite_for_the_surest_logits(loss, keys):
    """A probability that underflows to 0, or rounds to 1, must not end a training."""
    settings = plain(compose([f"loss={loss}"]).loss)
    counts = {"class_counts": [5, 3, 1]} if "class_counts" in parameters_of(settings["_target_"]) else {}
    criterion = instantiate({**settings, **keys, **counts})
    logits = torch.tensor([[300.0, 0, -300], [-300, 300, 0], [0, 0, 0]], requires_grad=True)
    criterion(logits, torch.tensor([0, 0, 1])).backward()
    assert logits.grad.isfinite().all()


def test_a_class_without_images_is_one_line(command):
    Path("mine.py").write_text(
        "from cifar_lightning.data.datamodule import ImageDataModule\n"
        "class Data(ImageDataModule):\n"
        "    def setup(self, stage=None):\n"
        "        super().setup(stage)\n"
        "        self.train.labels[self.train.labels == 3] = 4\n"
    )
    outcome = command(*QUICK, "data._target_=mine.Data", "loss=logit_adjusted", "trainer.max_epochs=1")
    assert outcome.code == 1
    assert "class 3 has no training images" in outcome.err
