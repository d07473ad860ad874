"""Whole runs on the digits: what they leave behind, and that what they say is true."""

import pytest
import torch
from helpers.processes import metrics
from sklearn.metrics import accuracy_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar_lightning.data.digits import load_digits
from cifar_lightning.reporting.files import read_csv

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "optimizer=adam", "scheduler=none", "optimizer.lr=0.003"]
KEYS = {
    "val/acc", "val/loss", "test/acc", "test/loss", "test/top5", "test/ece", "test/acc_per_class",
    "test/precision_per_class", "test/recall_per_class", "test/f1_per_class", "test/confusion_matrix", "parameters",
    "epochs", "train_seconds", "images_per_second", "train_images", "checkpoint", "command", "overrides", "seed",
    "precision", "data_checksum", "hardware", "versions", "published_test_acc", "date", "experiment", "model",
}  # fmt: skip


@pytest.mark.figures
def test_a_run_leaves_its_record_and_curves_in_its_folder(command):
    outcome = command(*QUICK, "trainer.max_epochs=3", "seed=3")
    assert outcome.code == 0, outcome.err
    (folder,) = command.runs()
    check_record(folder, outcome)
    check_tensorboard(folder)


def check_record(folder, outcome):
    result = metrics(folder)
    assert set(result) >= KEYS
    assert result["parameters"] == 69_402
    assert result["epochs"] == 3
    assert result["train_images"] == 1_149
    assert result["test/acc"] > 0.5
    assert f"{result['test/acc']:.2%}".replace("%", " %") in outcome.out
    assert "tensorboard --logdir logs --host localhost" in outcome.out
    for name in ("config.yaml", "history.csv", "predictions.csv", "cifar_lightning.log", "checkpoints/best.ckpt",
                 "checkpoints/last.ckpt"):  # fmt: skip
        assert (folder / name).is_file()
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert figures == {"accuracy_per_class", "confusion_matrix", "learning_curves", "mistakes", "samples"}

    history = read_csv(folder / "history.csv")
    assert [int(row["epoch"]) for row in history] == [1, 2, 3]
    best = max(history, key=lambda row: float(row["val/acc"]))
    assert float(best["val/acc"]) == pytest.approx(result["val/acc"])
    assert float(best["val/loss"]) == pytest.approx(result["val/loss"])

    predictions = read_csv(folder / "predictions.csv")
    labels = [int(row["label"]) for row in predictions]
    assert labels == load_digits().test.labels.tolist()
    assert accuracy_score(labels, [int(row["prediction"]) for row in predictions]) == pytest.approx(result["test/acc"])


def check_tensorboard(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "train/acc", "val/loss", "val/acc", "test/acc", "train/loss_step"} <= scalars
    assert {"hp/val/acc", "hp/test/acc"} <= scalars
    assert any(tag.startswith("lr") for tag in scalars)
    assert len(events.Scalars("val/acc")) == 3
    images = " ".join(events.Tags()["images"])
    for name in ("augmented training images", "confusion_matrix", "accuracy_per_class", "mistakes"):
        assert name in images
    assert events.Graph().node


def test_the_checkpoint_that_is_tested_is_the_best_one(command):
    # A learning rate that wrecks the network after the first epochs makes the last checkpoint worse than the best.
    wreck = ["optimizer=sgd", "optimizer.lr=0.02", "optimizer.momentum=0.9", "trainer.max_epochs=6", "seed=1"]
    clipped = ["scheduler.gamma=100", "trainer.gradient_clip_val=1.0"]  # so that no loss becomes NaN, which ends a run
    command(*QUICK, *wreck, "scheduler=multistep", "scheduler.milestones=[5]", *clipped)
    (folder,) = command.runs()
    history = read_csv(folder / "history.csv")
    assert float(history[-1]["val/acc"]) < 0.5 < metrics(folder)["val/acc"]
    assert metrics(folder)["test/acc"] > 0.5


def test_two_runs_with_one_seed_are_identical_and_another_seed_differs(command):
    results = []
    for seed in (0, 0, 1):
        command(
            "experiment=demo", "trainer.max_epochs=2", "trainer.limit_train_batches=8", "logger=none", f"seed={seed}"
        )
        folder = sorted((command.folder / "logs" / "demo" / "runs").glob("*"), key=lambda p: p.stat().st_mtime)[-1]
        history = [{k: v for k, v in row.items() if k != "seconds"} for row in read_csv(folder / "history.csv")]
        results.append((history, metrics(folder)["test/loss"], (folder / "predictions.csv").read_text()))
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_without_validation_part_the_last_checkpoint_is_tested(command):
    outcome = command(*QUICK, "data.val_size=0", "trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    (folder,) = command.runs()
    result = metrics(folder)
    assert (result["val/acc"], result["val/loss"], result["checkpoint"]) == (None, None, "last")
    assert result["train_images"] == 1_437
    assert {row["val/acc"] for row in read_csv(folder / "history.csv")} == {None}


def test_a_step_on_a_cpu_does_not_look_for_gpus(command, monkeypatch):
    looks = []
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: looks.append(1) or 0)
    counts = []
    for steps in (1, 9):
        looks.clear()
        monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as importing Lightning leaves it
        length = ["trainer.max_epochs=1", f"trainer.limit_train_batches={steps}"]
        assert command(*QUICK, *length, "trainer=cpu", "logger=none", "test=false").code == 0
        counts.append(len(looks))
    assert counts[0] == counts[1]


def test_without_callbacks_the_weights_in_memory_are_tested(command):
    command(*QUICK, "callbacks=none", "logger=none", "trainer.max_epochs=2")
    (folder,) = command.runs()
    assert not (folder / "checkpoints").exists()
    assert metrics(folder)["checkpoint"] is None
    assert metrics(folder)["test/acc"] > 0.3


def test_train_false_tests_the_named_checkpoint_in_a_folder_of_its_own(command):
    command(*QUICK, "trainer.max_epochs=3", "logger=none")
    (folder,) = command.runs()
    before = (folder / "metrics.json").read_text()
    outcome = command("train=false", f"ckpt_path={folder / 'checkpoints' / 'best.ckpt'}")
    assert outcome.code == 0, outcome.err
    again = next(path for path in command.runs() if path != folder)
    for key in ("test/acc", "test/loss", "val/acc", "model", "seed", "data"):
        assert metrics(again)[key] == pytest.approx(metrics(folder)[key])
    assert (folder / "metrics.json").read_text() == before


def test_a_checkpoint_holds_plain_types_and_all_that_is_needed(command):
    command(*QUICK, "trainer.max_epochs=1", "logger=none", "ema_decay=0.9")
    (folder,) = command.runs()
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    ours = checkpoint["cifar_lightning"]
    assert ours["config"]["model"]["_target_"] == "cifar_lightning.models.convnet.ConvNet"
    assert ours["class_names"] == [str(digit) for digit in range(10)]
    assert len(ours["mean"]) == len(ours["std"]) == 3


@pytest.mark.parametrize("debug", ["fast", "limit", pytest.param("profiler", marks=pytest.mark.slow)])
def test_every_debug_choice_runs(command, debug):
    outcome = command(*QUICK, f"debug={debug}", "data.batch_size=32")
    assert outcome.code == 0, outcome.err


def test_overfit_learns_its_batches_by_heart(command):
    outcome = command(*QUICK, "debug=overfit", "data.batch_size=32")
    assert outcome.code == 0, outcome.err
    (folder,) = command.runs()
    assert float(read_csv(folder / "history.csv")[-1]["train/acc"]) == 1.0


def test_several_loggers_write_at_once(command):
    command(*QUICK, "logger=[tensorboard,csv]", "trainer.max_epochs=1", "test=false")
    (folder,) = command.runs()
    assert list(folder.glob("events.out.tfevents.*"))
    assert any("val/acc" in row for row in read_csv(folder / "csv" / "metrics.csv"))


def test_every_training_key_changes_what_is_learnt(command):
    typed = [
        "seed=0",
        "loss.label_smoothing=0.1",
        "trainer.gradient_clip_val=0.01",
        "ema_decay=0.9",
        "channels_last=false trainer.precision=32-true",
        "trainer.accumulate_grad_batches=2",
        "data.normalize=half",
        "optimizer.weight_decay=0.5 optimizer.decay_norms_and_biases=false",
    ]
    losses = {}
    for i, overrides in enumerate(typed):
        short = ["trainer.max_epochs=1", "trainer.limit_train_batches=6", "test=false", "callbacks=none", "logger=none"]
        outcome = command(*QUICK, *short, f"hydra.run.dir=run{i}", *overrides.split())
        assert outcome.code == 0, outcome.err
        losses[metrics(command.folder / f"run{i}")["val/loss"]] = overrides
    assert list(losses.values()) == typed
