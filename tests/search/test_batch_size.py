"""batch_size_find: training measured at each size, and the smallest that is as fast as any."""

import csv
import json

import pytest
import torch

from cifar_lightning.search import batch_size
from cifar_lightning.search.batch_size import Measured, find_batch_size, no_faster

QUICK = ["data=digits", "model=cnn2", "optimizer=adam", "trainer.precision=32"]
SHORT = ["seconds=0.05", "min_batch_size=64", "max_batch_size=256"]


def record(folder):
    return json.loads((folder / "batch_size_find.json").read_text())


def measured(*speeds, first=16):
    return [Measured(first * 2**i, speed, 1.0, 1, None) for i, speed in enumerate(speeds)]


@pytest.fixture
def speeds(monkeypatch):
    """`speeds({16: 100.0, …})` replaces the clock; a size that is missing does not fit into the memory."""

    def use(by_size, memory=None):
        def measure(config, datamodule, module, size, seconds):
            if size not in by_size:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return Measured(size, by_size[size], 1000 * size / by_size[size], 7, memory)

        monkeypatch.setattr(batch_size, "measure", measure)

    return use


def test_every_size_is_trained_with_and_measured(command):
    outcome = command("batch_size_find", *QUICK, *SHORT)
    assert (outcome.code, outcome.err) == (0, "")
    (folder,) = (command.folder / "logs" / "batch_size_find" / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} == {f"batch_size_find.{kind}" for kind in ("csv", "json", "png")}
    assert [path.name for path in command.folder.iterdir()] == ["logs"]
    rows = record(folder)["measured"]
    assert [row["batch_size"] for row in rows] == [64, 128, 256]
    assert [row["steps_per_epoch"] for row in rows] == [-(-1149 // 64), -(-1149 // 128), -(-1149 // 256)]
    for row in rows:  # steps of the last, smaller batch of an epoch included
        assert 0 < row["images_per_second"] <= 1000 * row["batch_size"] / row["step_ms"] * (1 + 1e-9)
    with (folder / "batch_size_find.csv").open(newline="") as file:
        assert [int(row["batch_size"]) for row in csv.DictReader(file)] == [64, 128, 256]


def test_a_size_is_what_the_training_gets(command, monkeypatch):
    seen = []
    original = batch_size.Stopwatch.on_train_batch_end

    def note(self, trainer, module, outputs, batch, batch_idx):
        seen.append(len(batch[1]))
        original(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(batch_size.Stopwatch, "on_train_batch_end", note)
    assert command("batch_size_find", *QUICK, *SHORT).code == 0
    assert {64, 128, 256} <= set(seen)


def test_the_suggestion_is_the_smallest_within_5_percent_of_the_fastest(command, speeds):
    speeds({16: 100.0, 32: 180.0, 64: 240.0, 128: 250.0, 256: 250.1, 512: 230.0})
    outcome = command("batch_size_find", *QUICK, "max_batch_size=512", "out=here", "data.batch_size=20")
    assert outcome.code == 0, outcome.err
    assert record(command.folder / "here")["chosen"] == 64
    assert "fastest at 256: 250 images/s" in outcome.out
    typed = outcome.out.splitlines()[-1].split()
    assert typed == ["python", "-m", "cifar_lightning", "lr_find", *QUICK, "data.batch_size=64"]


def test_a_cpu_stops_where_two_sizes_were_no_faster_and_a_gpu_goes_on(command, speeds):
    by_size = {16: 100.0, 32: 200.0, 64: 201.0, 128: 202.0, 256: 203.0}
    for memory, tried in ((None, 4), (1 << 30, 5)):
        speeds(by_size, memory)
        outcome = command("batch_size_find", *QUICK, "max_batch_size=256", f"out=here{tried}")
        assert len(record(command.folder / f"here{tried}")["measured"]) == tried
        assert ("the last 2 were no faster" in outcome.out) == (memory is None)


def test_the_largest_that_fits_is_named(command, speeds):
    speeds({16: 100.0, 32: 200.0, 64: 300.0}, 3 << 30)
    outcome = command("batch_size_find", *QUICK, "out=here")
    assert "largest tried: 64; ended: 128 does not fit into the memory" in outcome.out
    assert "3.00 GiB" in outcome.out
    speeds({})
    outcome = command("batch_size_find", *QUICK, "out=nowhere")
    assert outcome.code == 1
    assert outcome.err == (
        "error: 16 does not fit into the memory: give a smaller min_batch_size, or a smaller network\n"
    )
    assert not (command.folder / "nowhere").exists()


def test_the_data_limit_the_size(tmp_path, monkeypatch, speeds):
    monkeypatch.chdir(tmp_path)
    speeds({512: 1.0, 1024: 2.0, 2048: 3.0})
    found = find_batch_size(QUICK, 512, 8192, 1.0, tmp_path / "here", "")
    assert [one.batch_size for one in found.measured] == [512, 1024]
    assert found.ended == "the training split has 1,149 images"


@pytest.mark.parametrize(
    ("values", "expected"),
    [([100, 200], False), ([100, 101], False), ([100, 101, 102], True), ([100, 90, 106], False), ([9, 9, 9, 9], True)],
)
def test_no_faster_means_less_than_5_percent_in_two_steps(values, expected):
    assert no_faster(measured(*values)) is expected


@pytest.mark.slow
@pytest.mark.parametrize("words", [["ema_decay=0.9"], ["data.size_schedule=[[0.5,20]]"], ["augmentation=rand_augment"]])
def test_it_works_with_other_methods(command, words):
    outcome = command("batch_size_find", *QUICK, *SHORT, *words)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["min_batch_size=64", "max_batch_size=32"], "min_batch_size=64 is above max_batch_size=32"),
        (["min_batch_size=0"], "min_batch_size=0: must be an integer above 0"),
        (["max_batch_size=1.5"], "max_batch_size=1.5: must be an integer above 0"),
        (["seconds=0"], "seconds=0: must be a number above 0"),
        (["second=1"], "did you mean seconds?"),
        (["min_batch_size=5000"], "min_batch_size=5000: the training split has only 1,149 images"),
        (["ckpt_path=last"], "ckpt_path=last: leave it out; batch_size_find trains"),
        (["trainer=ddp"], "batch_size_find needs one process"),
    ],
)
def test_bad_input_ends_in_one_line_and_leaves_nothing(command, words, message):
    outcome = command("batch_size_find", "data=digits", "model=cnn2", *words)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1), outcome.err
    assert message in outcome.err
    assert list(command.folder.iterdir()) == []
