"""The benchmarks run with tiny settings and write well-formed records; the measured values are not tested."""

import re

import pytest
import torch
from helpers.sampling import sampled
from torchvision.transforms import v2

from benchmarks import (
    memory,
    overhead,
    pipeline,
    plain,
    reading,
    recipes,
    record,
    soak,
    startup,
    sweep,
    time_to_accuracy,
)
from cifar_lightning.api import compose, load_data

DIGITS = ["--digits", "--repetitions", "1"]


def rows_of(text: str) -> list[list[str]]:
    """The cells of a section's table, header first."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "RESULTS.md"


@pytest.mark.parametrize(
    ("benchmark", "arguments", "rows"),
    [
        (pipeline, ["flip_crop_cutout", "--images", "64"], 1),
        pytest.param(overhead, ["cnn_relu", "--steps", "2"], 1, marks=pytest.mark.slow),
        (reading, ["--images", "100"], 3),
        pytest.param(recipes, ["cnn_relu", "lenet3_augmented", "--seconds", "0.02"], 2, marks=pytest.mark.slow),
        pytest.param(
            time_to_accuracy,
            ["--experiment", "demo", "--set", "trainer.max_epochs=1", "trainer.limit_train_batches=2"],
            1,
            marks=pytest.mark.slow,
        ),
        pytest.param(soak, ["--epochs", "2", "--jobs", "2"], 4, marks=pytest.mark.slow),
        pytest.param(sweep, ["--jobs", "2", "--steps", "2"], 2, marks=pytest.mark.slow),
        pytest.param(startup, [], 5, marks=pytest.mark.slow),
        pytest.param(memory, ["lenet3", "--steps", "1"], 1, marks=pytest.mark.slow),
    ],
)
def test_a_benchmark_writes_its_section(benchmark, arguments, rows, results):
    assert benchmark.main([*arguments, *DIGITS, "--out", str(results)]) == 0
    text = results.read_text()
    name = benchmark.__name__.rpartition(".")[2]
    assert re.findall(r"^## (.*)", text, flags=re.MULTILINE) == [name]
    for line in ("- Goal: ", "- Expected: ", "- Seen: ", f"`python -m benchmarks.{name} ", "torch ", "embedded digits"):
        assert line in text
    header, *cells = rows_of(text)
    assert len(cells) == rows
    for row in cells:
        assert len(row) == len(header)
        assert float(row[1].replace(",", "")) > 0


def test_a_run_replaces_its_own_section_only(results):
    for name, text in (("pipeline", "old\n"), ("memory", "kept\n"), ("pipeline", "new\n")):
        record.update(results, name, f"## {name}\n\n{text}")
    assert results.read_text() == f"{record.HEADING}\n## memory\n\nkept\n\n## pipeline\n\nnew\n"


def test_programs_take_turns_and_the_first_turn_does_not_count():
    calls = []

    def program(name):
        return lambda: calls.append(name) or float(len(calls))

    results = record.in_turns({"a": program("a"), "b": program("b")}, repetitions=2)
    assert calls == ["a", "b"] * 3
    assert results == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert record.median_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 4.0]) == 2.0  # of 2, 3 and 2, not 8 / 3


def test_missing_data_is_one_line(results, capsys):
    assert pipeline.main(["--root", "nowhere", "--out", str(results)]) == 1
    assert re.fullmatch(r"error: .*cifar-10-batches-py.* nowhere.*\n", capsys.readouterr().err)
    assert not results.exists()


@pytest.mark.parametrize("name", sampled(recipes.names(), every=5))
def test_the_plain_script_feeds_the_recipes_images(name, monkeypatch):
    monkeypatch.setattr(plain, "WORKERS", {})
    config = compose([f"experiment=classic/{name}", "data=digits", "data.val_size=0.2", "data.batch_size=4"])
    split = load_data(config).train
    images, labels = next(iter(plain.build_loader(config, split)))
    assert images.shape == (4, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    low = {"none": 0.0, "half": -1.0}[config.data.normalize]
    assert low <= images.min() < images.max() <= 1.0


def test_the_plain_images_are_the_splits(results):
    config = compose(["experiment=classic/lenet", "data=digits", "data.val_size=0"])
    split = load_data(config).train
    image, label = plain.PilImages(split, v2.Compose([v2.PILToTensor()]))[3]
    assert torch.equal(image, split.images[3])
    assert label == split.labels[3]
