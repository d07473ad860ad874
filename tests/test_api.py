"""What a program or a notebook does: compose, train, sweep, and use a checkpoint."""

import json
import logging
import os
import signal
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from helpers.checkpoints import write_checkpoint
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError
from PIL import Image

from cifar_lightning.api import Predictions, compose, load, load_data, summarize, sweep, train, untrained
from cifar_lightning.callbacks.history import History
from cifar_lightning.config.compose import compose as compose_as_command
from cifar_lightning.data.digits import load_digits
from cifar_lightning.errors import UserError
from cifar_lightning.runs import folders as runs
from cifar_lightning.sweeps.folders import digest

IMAGES = torch.from_numpy(load_digits().test.images[:7])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return load(write_checkpoint(tmp_path_factory.mktemp("run") / "a.ckpt"), accelerator="cpu")


def test_predictions_are_the_softmax_of_the_networks_logits(classifier):
    with torch.no_grad():
        logits = classifier.module(IMAGES)
    predictions = classifier.predict(IMAGES)
    torch.testing.assert_close(predictions.probabilities, logits.softmax(1))
    assert torch.equal(predictions.classes, logits.argmax(1))
    assert predictions.names == [str(i) for i in logits.argmax(1).tolist()]
    torch.testing.assert_close(predictions.confidences, logits.softmax(1).amax(1))
    assert len(predictions) == 7


def test_files_pil_images_arrays_and_tensors_are_the_same_images(classifier, tmp_path):
    pictures = [Image.fromarray(image.numpy().transpose(1, 2, 0)) for image in IMAGES]
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    expected = classifier.predict(IMAGES).probabilities
    for given in (pictures, paths, list(map(str, paths)), IMAGES.numpy(), IMAGES / 255, (IMAGES / 255).double()):
        torch.testing.assert_close(classifier.predict(given).probabilities, expected, rtol=1e-5, atol=1e-6)
    for given in (pictures[2], paths[2], str(paths[2]), IMAGES[2], IMAGES[2].numpy()):
        torch.testing.assert_close(classifier.predict(given).probabilities, expected[2:3], rtol=1e-5, atol=1e-6)


def test_many_images_are_predicted_in_batches(classifier):
    images = IMAGES.repeat(30, 1, 1, 1)
    expected = classifier.predict(IMAGES).probabilities.repeat(30, 1)
    torch.testing.assert_close(classifier.predict(images).probabilities, expected, rtol=1e-5, atol=1e-6)


def test_the_most_probable_classes_come_first():
    predictions = Predictions(torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), ("a", "b", "c"))
    top = predictions.top(2)
    assert [[name for name, _ in row] for row in top] == [["b", "c"], ["a", "b"]]
    assert [p for _, p in top[0]] == pytest.approx([0.5, 0.3])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.uint8), r"shape \(2, 32, 32, 3\): an array must be \[N, 3, 32, 32\]"),
        (np.zeros((2, 3, 64, 64), np.uint8), "paths and PIL images are resized"),
        (np.zeros((0, 3, 32, 32), np.uint8), "must be"),
        (np.zeros((1, 3, 32, 32), np.int64), "give uint8 from 0 to 255"),
        (np.full((1, 3, 32, 32), 255.0), r"in \[0, 1\]"),
        (np.full((1, 3, 32, 32), np.nan), r"in \[0, 1\]"),
        ([], "no images"),
        ("nowhere.png", "nowhere.png: no such file"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(classifier, images, message):
    with pytest.raises(UserError, match=message):
        classifier.predict(images)


def test_a_classifier_knows_its_run(classifier):
    assert classifier.class_names == tuple("0123456789")
    assert classifier.config["data"]["name"] == "digits"


def test_class_names_that_are_not_the_networks_are_noticed(tmp_path):
    path = write_checkpoint(tmp_path / "a.ckpt", class_names=("cat", "dog"))
    with pytest.raises(UserError, match="10 outputs, but there are 2 class names"):
        load(path, accelerator="cpu").predict(IMAGES)


SMALL = ["data=digits", "model=cnn2", "trainer.max_epochs=1", "trainer.limit_train_batches=4", "logger=none"]
QUICK = [*SMALL, "test=false", "callbacks.model_summary=null"]  # fewer figures


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_config_can_not_be_changed_past_the_record():
    config = compose(SMALL)
    with pytest.raises(ReadonlyConfigError):
        config.optimizer.lr = 1.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=cnn22"], "model=cnn22: there is no such choice; did you mean cnn2"),
        (["optimizer.lr=-1"], "optimizer.lr=-1: must be a number above 0"),
        (["hydra.run.dir=there"], r"hydra.run.dir=there: .*output_dir"),
        (["seed="], "seed=: must be an integer"),
        (["model"], "can't read the override 'model'"),
    ],
)
def test_a_mistake_is_explained_as_on_the_command_line(overrides, message):
    with pytest.raises(UserError, match=message):
        compose(overrides)


def test_training_does_what_the_command_does(command, here):
    typed = [*SMALL, "seed=3", "activation=tanh", "callbacks.model_summary=null"]
    assert command(*typed).code == 0
    (folder,) = command.runs()
    result = train(compose(typed))
    assert result.folder.parent == folder.parent
    assert result.folder.name.split("_data=")[1] == folder.name.split("_data=")[1]
    assert {p.name for p in result.folder.iterdir()} == {p.name for p in folder.iterdir()} - {".hydra"}

    expected, metrics = (json.loads((f / "metrics.json").read_text()) for f in (folder, result.folder))
    for changing in ("date", "train_seconds", "images_per_second", "test_look"):
        del expected[changing], metrics[changing]
    assert metrics == expected
    assert [row["val/acc"] for row in result.history] == [expected["val/acc"]]

    of_command, config = (without_folder(f) for f in (folder, result.folder))
    assert {name: of_command["choices"].pop(name) for name in [*of_command["choices"]] if name.startswith("hydra")}
    assert {name: config["choices"].pop(name) for name in [*config["choices"]] if name.startswith("hydra")}
    assert config == of_command


def without_folder(folder):
    text = (folder / "config.yaml").read_text().replace(folder.name, "FOLDER")
    return OmegaConf.to_container(OmegaConf.create(text))


def test_a_second_training_has_its_own_folder_and_the_same_result_and_can_be_quiet(here, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a notebook: pytest has set up its own
    config = compose(QUICK)
    first = train(config)
    assert "epoch 1/1  train" in capsys.readouterr().out
    assert logging.getLogger().handlers == []
    second = train(config, quiet=True)
    assert capsys.readouterr().out == ""
    assert first.folder != second.folder
    assert first.metrics["val/loss"] == second.metrics["val/loss"]
    for result in (first, second):
        assert "epoch 1/1  train" in (result.folder / "cifar_lightning.log").read_text()


def test_a_run_goes_on_in_its_own_folder(here):
    first = train(compose(QUICK, output_dir="my/run"))
    assert first.folder == here / "my" / "run"
    more = train(compose([f"ckpt_path={first.folder}/checkpoints/last.ckpt", "trainer.max_epochs=2"]))
    assert more.folder == first.folder
    assert [row["epoch"] for row in more.history] == [1, 2]
    assert more.history[0] == first.history[0]


def test_an_interrupted_training_ends_in_a_way_that_a_notebook_survives(here):
    class Press(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        train(compose(SMALL, output_dir="run"), callbacks=[Press()], quiet=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert (here / "run" / "checkpoints" / "last.ckpt").exists()


def test_a_run_is_used_by_its_folder(here):
    result = train(compose([*SMALL, "trainer.precision=32-true"]))
    classifier, data = load(result.folder, accelerator="cpu"), load_data(compose(SMALL))
    right = classifier.predict(data.test.images).classes == data.test.labels
    assert right.double().mean().item() == pytest.approx(result.metrics["test/acc"])
    assert torch.equal(load_data(classifier.config).val.images, data.val.images)


def test_an_untrained_classifier_has_the_weights_that_training_begins_with(here):
    class Keep(L.Callback):
        def on_train_start(self, trainer, pl_module):
            self.weights = {key: value.clone() for key, value in pl_module.network.state_dict().items()}

    keep, config = Keep(), compose([*QUICK, "seed=5"])
    train(config, callbacks=[keep], quiet=True)
    before = torch.get_rng_state()
    weights = untrained(config, load_data(config)).module.network.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[key], value) for key, value in keep.weights.items())


@pytest.mark.parametrize("activations", [["relu"], pytest.param(["relu", "tanh"], marks=pytest.mark.slow)])
def test_a_sweep_trains_each_combination_and_leaves_its_summary(here, capsys, activations):
    small = [*SMALL, "callbacks=none", "test=false"]
    results = sweep([*small, f"activation={','.join(activations)}", "seed=1,2"], output_dir="sweep")
    told = [(r.metrics["seed"], "activation=tanh" in r.metrics["overrides"]) for r in results]
    assert told == [(seed, a == "tanh") for a in activations for seed in (1, 2)]  # relu is the default
    assert len({r.folder for r in results}) == len(told)
    assert {r.folder.parent for r in results} == {here / "sweep"}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"{i + 1}/{len(told)}" for i in range(len(told))]
    assert all(f"seed={seed}" in line for (seed, _), line in zip(told, lines, strict=True))
    summary = summarize(results, by=["activation"])
    assert sorted(row["activation"] for row in summary.rows) == activations
    assert all(row["validation"].endswith("(2)") for row in summary.rows)
    assert (here / "sweep" / "summary.csv").read_text().count("\n") == 1 + len(activations)


def test_a_sweep_into_the_same_folder_goes_on_where_it_was_cut_off(here, monkeypatch):
    small = [*SMALL, "callbacks.last_checkpoint.every_minutes=null", "trainer.max_epochs=2", "test=false"]
    end_epoch, begun = History.on_train_epoch_end, []

    def killed(self, trainer, module):
        begun.append((module.config["seed"], trainer.current_epoch))
        if begun[-1] == (2, 1) and begun.count((2, 1)) == 1:
            raise SystemExit(1)
        end_epoch(self, trainer, module)

    monkeypatch.setattr(History, "on_train_epoch_end", killed)
    monkeypatch.setattr("cifar_lightning.runs.record.draw", lambda *_: {})
    monkeypatch.setattr("cifar_lightning.reporting.comparison_figures.comparison_figures", lambda _: {})
    with pytest.raises(SystemExit):
        sweep([*small, "seed=1,2"], output_dir="sweep")
    results = sweep([*small, "seed=2,1"], output_dir="sweep")
    assert begun == [(1, 0), (1, 1), (2, 0), (2, 1), (2, 1)]
    assert [result.folder.name for result in results] == ["seed=2", "seed=1"]
    assert [len(result.history) for result in results] == [2, 2]
    assert [result.metrics["seed"] for result in results] == [2, 1]
    with runs.claim(here / "sweep" / "seed=1"), pytest.raises(UserError, match="another process"):
        sweep([*small, "seed=1"], output_dir="sweep")


def test_a_job_is_the_same_from_here_and_from_the_command(here):
    words = ["model=cnn2", "activation=tanh", "seed=2"]
    config = compose_as_command([*words, f"hydra.sweep.dir={here}"], return_hydra_config=True)
    config.paths.output_dir = "logs/multiruns/sweep/activation=tanh"
    assert digest(compose(words, output_dir=here)) == digest(config)


def test_a_sweep_is_checked_before_its_first_run(here):
    with pytest.raises(UserError, match="did you mean tanh"):
        sweep([*SMALL, "activation=relu,tanhh"])
    with pytest.raises(UserError, match="matches nothing"):
        sweep([*SMALL, "activation=glob(x*)"])
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*SMALL, "trainer=ddp_sim"], "one process"),
        (["train=false"], "give its path with ckpt_path"),
        (["ckpt_path=nowhere.ckpt"], "no such file"),
        ([*SMALL, "data.batch_size=1140", "data.val_size=0.3"], "batch_size"),
    ],
)
def test_what_can_not_be_trained_is_explained(here, overrides, message):
    with pytest.raises(UserError, match=message):
        train(compose(overrides))


def test_a_folder_that_can_not_be_made_is_explained(here):
    Path("logs").write_text("in the way")
    with pytest.raises(UserError, match="can't create the folder"):
        train(compose(SMALL))


def test_a_config_from_elsewhere_is_refused(here):
    with pytest.raises(UserError, match=r"api\.compose"):
        train(OmegaConf.create({"model": {}}))
