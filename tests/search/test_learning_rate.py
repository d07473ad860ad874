"""lr_find: Lightning's steps, the loss of each, and a suggestion that can be typed."""

import csv
import json
import math
import shlex
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.tuner import Tuner
from omegaconf import OmegaConf
from scipy.ndimage import gaussian_filter1d
from torch.nn.functional import cross_entropy

from cifar_lightning import api
from cifar_lightning.config.compose import conf_dir
from cifar_lightning.runs.build import build_datamodule, build_module
from cifar_lightning.search.learning_rate import SMOOTHING, learning_rates, smoothed

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "trainer.precision=32"]
SHORT = ["steps=30", "min_lr=1e-4", "max_lr=0.1", "out=here"]
ADAM = "optimizer=adam"


def results(folder: Path):
    with (folder / "lr_find.csv").open(newline="") as file:
        rows = [{key: float(value) if value else None for key, value in row.items()} for row in csv.DictReader(file)]
    return json.loads((folder / "lr_find.json").read_text()), rows


def start(*words):
    """Data and module as a run of these overrides has them before its first step, with a constant rate."""
    config = OmegaConf.create(OmegaConf.to_container(api.compose([*QUICK, *words]), resolve=True))
    config.scheduler = {"_target_": "cifar_lightning.optim.schedules.constant"}
    L.seed_everything(config.seed, verbose=False)
    data = build_datamodule(config)
    data.setup("fit")
    return data, build_module(config, data)


def plain_losses(data, module, optimizer, factors, rates):
    """A loop without Lightning: the group i of the optimizer has the rate of the step times `factors[i]`."""
    epoch, losses = 0, []
    loader = data._training_loader(device=torch.device("cpu"), num_workers=0, current_epoch=lambda: epoch)
    while True:
        for images, labels in loader:
            if len(losses) == len(rates):
                return losses
            for group, factor in zip(optimizer.param_groups, factors, strict=True):
                group["lr"] = factor * rates[len(losses)]
            loss = cross_entropy(module(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epoch += 1


def test_the_losses_are_those_of_a_loop_without_lightning(command):
    outcome = command("lr_find", *QUICK, ADAM, *SHORT)
    assert outcome.code == 0, outcome.err
    record, rows = results(command.folder / "here")
    rates = [row["learning_rate"] for row in rows]
    assert (rates[0], len(rates)) == (1e-4, 30)
    assert np.diff(np.log(rates[1:])) == pytest.approx(math.log(1e3) / 30, rel=1e-3)
    data, module = start(ADAM)
    expected = plain_losses(data, module, torch.optim.Adam(module.network.parameters()), [1], rates)
    assert [row["loss"] for row in rows] == pytest.approx(expected, rel=1e-3)
    assert record["suggestion"] == min(rows, key=lambda row: row["smoothed"])["learning_rate"]
    assert 1e-4 < record["steepest"] <= record["suggestion"]
    assert outcome.out.splitlines()[-1].endswith(f"optimizer.lr={record['suggestion']:.2g}")


def test_other_rates_keep_their_ratio_to_the_one_that_is_searched(command):
    words = [ADAM, "optimizer.lr=0.01", "+optimizer.groups={classifier: {lr: 0.1}}"]
    outcome = command("lr_find", *QUICK, *words, *SHORT)
    assert outcome.code == 0, outcome.err
    record, rows = results(command.folder / "here")
    data, module = start(*words)
    groups = [{"params": part.parameters()} for part in (module.network.features, module.network.classifier)]
    expected = plain_losses(data, module, torch.optim.Adam(groups), [1, 10], [row["learning_rate"] for row in rows])
    assert [row["loss"] for row in rows] == pytest.approx(expected, rel=1e-3)
    own, head = (float(override.partition("=")[2]) for override in record["overrides"])
    assert head == pytest.approx(10 * own, rel=0.05)
    typed = outcome.out.splitlines()[-1]
    assert shlex.split(typed)[3:] == [*QUICK, words[0], words[2], *record["overrides"]]
    assert api.compose(shlex.split(typed)[3:]).optimizer.groups.classifier.lr == head


def test_the_steps_are_those_of_lightnings_finder(command, tmp_path):
    assert command("lr_find", *QUICK, ADAM, *SHORT).code == 0
    record, rows = results(command.folder / "here")
    data, module = start(ADAM)
    trainer = L.Trainer(
        max_epochs=100, check_val_every_n_epoch=1000, accelerator="cpu", logger=False, default_root_dir=tmp_path,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    found = Tuner(trainer).lr_find(
        module, datamodule=data, min_lr=1e-4, max_lr=0.1, num_training=30, update_attr=False
    )  # fmt: skip
    assert [row["learning_rate"] for row in rows] == pytest.approx(found.results["lr"])
    assert record["suggestion_of_lightning"] == pytest.approx(found.suggestion())


def test_nothing_of_the_training_is_kept_but_the_three_files(command):
    words = ["experiment=demo", "trainer.precision=32", "scheduler=cosine"]
    outcome = command("lr_find", *words, "steps=12", "min_lr=0.001", "max_lr=0.01")
    (folder,) = (command.folder / "logs" / "lr_find" / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} == {"lr_find.csv", "lr_find.json", "lr_find.png"}
    assert [path.name for path in command.folder.iterdir()] == ["logs"]
    assert (outcome.code, outcome.err) == (0, "")
    assert "experiment=demo" in folder.name
    assert json.loads((folder / "lr_find.json").read_text())["command"].endswith("steps=12 min_lr=0.001 max_lr=0.01")


def test_a_loss_that_diverges_ends_the_search_early(command):
    outcome = command("lr_find", *QUICK, ADAM, "steps=60", "min_lr=1e-4", "max_lr=1e4", "out=here")
    record, rows = results(command.folder / "here")
    first = rows[0]["smoothed"]
    assert record["too_high"] == next(r["learning_rate"] for r in rows if r["smoothed"] > 1.2 * first)
    assert record["suggestion"] < record["too_high"]
    assert 10 < len(rows) < 60
    assert "too high from " in outcome.out


def test_a_loss_that_does_not_fall_gives_no_suggestion(command):
    outcome = command("lr_find", *QUICK, ADAM, "steps=12", "min_lr=1e-12", "max_lr=1e-11", "out=here")
    assert outcome.code == 1
    assert outcome.err == "error: the loss did not fall from 1e-12 to 1e-11: try more steps, or another range\n"
    assert results(command.folder / "here")[0]["suggestion"] is None


def test_the_smoothing_is_scipys_gaussian():
    exponents, losses = np.linspace(-6, 1, 100), np.random.default_rng(0).normal(size=100)
    spacing = exponents[1] - exponents[0]
    expected = gaussian_filter1d(losses, SMOOTHING / spacing, mode="constant", truncate=50)
    expected /= gaussian_filter1d(np.ones(100), SMOOTHING / spacing, mode="constant", truncate=50)
    np.testing.assert_allclose(smoothed(exponents, losses), expected, atol=1e-9)


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml")))
def test_every_optimizer_has_rates(name):
    found = learning_rates(OmegaConf.to_container(api.compose([f"optimizer={name}"]).optimizer, resolve=True))
    assert set(found) == {"optimizer.lr"} | ({"optimizer.sgd_lr"} if name == "muon" else set())


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=muon"],
        pytest.param(["optimizer=sgd", "ema_decay=0.9"], marks=pytest.mark.slow),
        pytest.param(["optimizer=sgd", "trainer.accumulate_grad_batches=2"], marks=pytest.mark.slow),
        pytest.param(["optimizer=sgd", "optimizer.sam_rho=0.05"], marks=pytest.mark.slow),
        pytest.param(["optimizer=torch", "optimizer.name=LBFGS"], marks=pytest.mark.slow),
        pytest.param(["optimizer=adam", "compile=false", "data.keep_hardest=0.5"], marks=pytest.mark.slow),
        pytest.param(["optimizer=adam", "augmentation=rand_augment", "data.num_workers=1"], marks=pytest.mark.slow),
    ],
)
def test_it_works_with_other_methods(command, words):
    outcome = command("lr_find", *QUICK, *words, "steps=12", "min_lr=0.001", "max_lr=0.1", "out=here")
    assert outcome.code == 0 or "did not fall" in outcome.err, outcome.err
    assert len(results(command.folder / "here")[1]) >= 11


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["min_lr=1", "max_lr=0.1"], "min_lr=1 must be below max_lr=0.1"),
        (["min_lr=0"], "min_lr=0: must be a number above 0"),
        (["max_lr=high"], "max_lr=high: must be a number above 0"),
        (["steps=9"], "steps=9: must be an integer above 9"),
        (["steps=2.5"], "steps=2.5: must be an integer above 9"),
        (["min_rl=1"], "did you mean min_lr?"),
        (["modle=cnn2"], "did you mean model?"),
        (["ckpt_path=a.ckpt"], "ckpt_path=a.ckpt: leave it out; lr_find trains a few steps from scratch"),
        (["train=false"], "leave it out"),
        (["hydra.run.dir=x"], "leave it out"),
        (["trainer=ddp_sim"], "lr_find needs one process"),
        (["trainer.devices=2"], "lr_find needs one process"),
        (["trainer.fast_dev_run=true"], "one step tells nothing"),
        (["optimizer._target_=mine.Own", "~optimizer.lr"], "optimizer._target_=mine.Own has no lr"),
        (["--min_lr"], "options are written key=value"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(command, words, message):
    outcome = command("lr_find", "data=digits", *words)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1), outcome.err
    assert message in outcome.err
    assert list(command.folder.iterdir()) == []
