"""What makes a step cheaper changes nothing but its cost."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.profilers import SimpleProfiler
from torch import nn

from cifar_lightning.api import compose, load_data
from cifar_lightning.callbacks import progress
from cifar_lightning.callbacks.history import History
from cifar_lightning.runs.build import build_callbacks, build_module, build_trainer
from cifar_lightning.training.metrics import PENDING, Sums
from cifar_lightning.training.profiling import NoProfiler


@pytest.fixture(scope="module")
def classifier():
    config = compose(["data=digits", "model=cnn2"])
    return build_module(config, load_data(config))


def test_answers_that_are_compared_later_are_counted_at_any_time():
    generator = torch.Generator().manual_seed(0)
    sums, correct = Sums(torch.device("cpu")), 0
    for step in range(2 * PENDING + 3):
        logits = torch.randn(4, 3, generator=generator)
        labels = torch.randint(3, (4,), generator=generator)
        sums.add(torch.tensor(1.0), logits, labels)
        correct += sum(int(row.argmax() == label) for row, label in zip(logits, labels, strict=True))
        if step in (0, 5, PENDING, 2 * PENDING + 2):
            assert sums.state().tolist() == [4.0 * (step + 1), correct, 4 * (step + 1)]


def test_a_module_or_parameter_that_takes_a_plain_attributes_place_is_trained(classifier):
    classifier.extra, classifier.weight = None, "none yet"
    classifier.extra, classifier.weight = nn.Linear(1, 1), nn.Parameter(torch.zeros(1))
    assert {"extra.weight", "extra.bias", "weight"} <= dict(classifier.named_parameters()).keys()
    classifier.extra = classifier.weight = None
    assert not {"extra.weight", "weight"} & dict(classifier.named_parameters()).keys()


def test_a_batch_is_moved_unless_it_is_there(classifier):
    batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    assert classifier.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    moved = classifier.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert [part.device.type for part in moved] == ["meta", "meta"]


@pytest.mark.parametrize(("asked_for", "profiler"), [("null", NoProfiler), ("simple", SimpleProfiler)])
def test_a_profiler_that_is_asked_for_measures(tmp_path, asked_for, profiler):
    config = compose(["data=digits", f"trainer.profiler={asked_for}", "callbacks=none", "logger=none"])
    data = load_data(config)
    trainer = build_trainer(config, [History(tmp_path / "history.csv"), *build_callbacks(config, data)], [])
    assert isinstance(trainer.profiler, profiler)
    with trainer.profiler.profile("outer"), trainer.profiler.profile("inner"):
        pass


def test_the_progress_bar_is_drawn_a_few_times_a_second_and_at_the_end(monkeypatch):
    clock, drawn = iter(range(100)), []
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock) / 10 + 50)  # a step takes 0.1 s
    monkeypatch.setattr(RichProgressBar, "on_train_batch_end", lambda *arguments: drawn.append(arguments[-1]))
    bar = progress.ProgressBar(refresh_rate=4)
    for step in range(12):
        trainer = SimpleNamespace(world_size=1, is_last_batch=step == 11)
        bar.on_train_batch_end(trainer, None, None, (None, [0, 1]), step)
    assert drawn == [0, 3, 6, 9, 11]
