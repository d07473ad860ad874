"""A real TensorBoard, asked over HTTP for what a run and a sweep show there."""

import csv
import io
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlencode

import numpy as np
import pytest
from helpers.command import Command
from PIL import Image

from cifar_lightning.commands import report
from cifar_lightning.reporting.tables import percent
from cifar_lightning.runs.record import hparams

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "optimizer=adam", "scheduler=none", "trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    """One run of its own, and a sweep over a group and a key that is none of the usual columns."""
    folder = tmp_path_factory.mktemp("dashboard")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        command = Command(folder, monkeypatch, SimpleNamespace(readouterr=lambda: ("", "")))
        assert command(*QUICK, "seed=7").code == 0
        assert command("-m", *QUICK, "activation=relu,tanh", "model.dropout=0.25").code == 0
    return folder / "logs"


@pytest.fixture(scope="module")
def folders(logs) -> dict[str, Path]:
    """The runs' folders by the names that TensorBoard gives them."""
    found = {path.parent.relative_to(logs).as_posix(): path.parent for path in logs.rglob("metrics.json")}
    assert len(found) == 3
    return found


@pytest.fixture(scope="module")
def ask(logs, folders):
    """`ask("data/runs")` is TensorBoard's answer: bytes, or what the JSON says."""
    call = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "localhost", "--port", "0"]
    server = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(server.stderr.readline, "")
        address = next(found[0] for line in lines if (found := re.search(r"http://localhost:\d+/", line)))
        threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop it

        def get(path: str, body: dict | None = None, **query: str):
            request = urllib.request.Request(f"{address}{path}?{urlencode(query)}")
            if body is not None:
                request = urllib.request.Request(request.full_url, json.dumps(body).encode())
                request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, timeout=20) as answer:
                content = answer.read()
                return json.loads(content) if "json" in answer.headers["Content-Type"] else content

        # The last thing that a run writes.
        while len(sessions(get)) < len(folders) or len(get("data/plugin/images/tags")) < len(folders):
            time.sleep(0.3)
        yield get
    finally:
        server.terminate()
        server.wait(20)
        server.stderr.close()


def sessions(ask) -> list[dict]:
    """The rows of the HPARAMS page."""
    experiment = ask("data/plugin/hparams/experiment", {})
    if not experiment.get("hparamInfos"):
        return []
    columns = {"colParams": [{"metric": info["name"]} for info in experiment["metricInfos"]]}
    page = {"startIndex": 0, "sliceSize": 100, "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN"]}
    return ask("data/plugin/hparams/session_groups", columns | page).get("sessionGroups", [])


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def history(folder: Path, name: str) -> list[float]:
    with (folder / "history.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_runs_have_their_folders_names_and_those_of_a_sweep_stand_together(ask, folders):
    assert set(ask("data/runs")) == set(folders)
    (single,) = (name for name in folders if name.startswith("train/runs/"))
    assert "seed=7" in single
    swept = [name.rpartition("/") for name in folders if name.startswith("train/multiruns/")]
    assert len({sweep for sweep, _, _ in swept}) == 1
    assert sorted(re.search(r"activation=\w+", name)[0] for _, _, name in swept) == [
        "activation=relu",
        "activation=tanh",
    ]


@pytest.mark.parametrize("name", ["train/loss", "train/acc", "val/loss", "val/acc"])
def test_curves_are_those_of_the_history(ask, folders, name):
    for run, folder in folders.items():
        points = ask("data/plugin/scalars/scalars", run=run, tag=name)
        assert [value for _, _, value in points] == pytest.approx(history(folder, name), rel=1e-6)


def test_there_is_no_curve_of_epochs_against_steps(ask, folders):
    for tags in ask("data/plugin/scalars/tags").values():
        assert "epoch" not in tags
        assert {"lr", "test/acc", "train/loss_step"} <= set(tags)


def test_a_chart_holds_training_and_validation(ask, folders):
    (category,) = ask("data/plugin/custom_scalars/layout")["category"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
    assert set(charts) == {"loss", "accuracy", "learning rate"}
    for run, folder in folders.items():
        for title, names in (("loss", ["train/loss", "val/loss"]), ("accuracy", ["train/acc", "val/acc"])):
            drawn = {}
            for pattern in charts[title]:
                drawn |= ask("data/plugin/custom_scalars/scalars", run=run, tag=pattern)["tag_to_events"]
            assert set(drawn) == set(names)
            for name in names:
                assert [point[2] for point in drawn[name]] == pytest.approx(history(folder, name), rel=1e-6)


def test_hparams_have_a_column_for_what_was_swept_and_results_as_metrics(ask, folders):
    experiment = ask("data/plugin/hparams/experiment", {})
    columns = [info["name"] for info in experiment["hparamInfos"]]
    assert {"activation", "model.dropout", "seed", "optimizer.lr", "model", "data"} <= set(columns)
    assert "ema_decay" not in columns
    differing = {info["name"] for info in experiment["hparamInfos"] if info.get("differs")}
    assert differing == {"activation", "seed"}
    assert columns[:2] == ["activation", "seed"]  # those come first
    first = [info["name"]["tag"] for info in experiment["metricInfos"]][:5]  # shown without a click
    assert first == ["hp/test/acc", "hp/test/loss", "hp/train_seconds", "hp/val/acc", "hp/val/loss"]

    rows = {group["sessions"][0]["name"]: group for group in sessions(ask)}
    assert set(rows) == set(folders)
    for run, folder in folders.items():
        expected, hparams = metrics(folder), rows[run]["hparams"]
        assert hparams["seed"] == expected["seed"]
        assert hparams["activation"] == ("tanh" if "activation=tanh" in run else "relu")
        assert hparams.get("model.dropout") == (0.25 if "multiruns" in run else None)
        shown = {value["name"]["tag"]: value["value"] for value in rows[run]["metricValues"]}
        for name in ("val/acc", "val/loss", "test/acc", "test/loss", "train_seconds"):
            assert shown[f"hp/{name}"] == pytest.approx(expected[name], rel=1e-6)


def test_every_override_that_matters_is_a_column_with_the_value_of_the_config():
    config = {
        "choices": {"model": "cnn2", "experiment": None, "trainer": "ddp", "logger": "none"},
        "seed": 3,
        "data": {"batch_size": 64},
        "model": {"hidden": [5, 6], "dropout": 0.25},
        "trainer": {"max_epochs": 2},
    }
    typed = [
        "seed=3",
        "model=cnn2",
        "model.hidden=[5,6]",
        "+model.dropout=25e-2",
        "trainer=ddp",
        "~callbacks.best_checkpoint",
    ]
    assert hparams(config, [*typed, "logger=none", "data.root=/data", "+model.extra={a: 1}"]) == {
        "model": "cnn2", "seed": 3, "data.batch_size": 64, "trainer.max_epochs": 2, "model.hidden": [5, 6],
        "model.dropout": 0.25, "trainer": "ddp", "~callbacks.best_checkpoint": "removed", "model.extra": "{a: 1}",
    }  # fmt: skip


def test_images_are_the_runs_figures(ask, folders):
    tags = ask("data/plugin/images/tags")
    for run in folders:
        names = {"accuracy_per_class", "augmented training images", "confusion_matrix", "learning_curves", "mistakes"}
        assert set(tags[run]) == {f"figures/{name}" for name in names}
        (listed,) = ask("data/plugin/images/images", run=run, tag="figures/learning_curves", sample="0")
        shown = pixels(io.BytesIO(ask("data/plugin/images/individualImage", **dict(parse_qsl(listed["query"])))))
        # Drawn twice, so letters may lie a pixel apart; of all runs' curves they are this run's.
        files = {name: pixels(other / "figures" / "learning_curves.png") for name, other in folders.items()}
        assert min(files, key=lambda name: np.abs(files[name] - shown).mean()) == run


def pixels(file) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB")).astype(float)


def test_the_graph_shows_the_networks_layers(ask, folders):
    for run in folders:
        assert b"Conv2d" in ask("data/plugin/graphs/graph", run=run)


def test_the_report_of_a_real_run_and_of_a_real_sweep_holds_their_results(folders, tmp_path):
    for folder in folders.values():
        page = tmp_path / "run.html"
        assert report.main([str(folder), f"out={page}"]) == 0
        assert percent(metrics(folder)["test/acc"]) in page.read_text().replace("\N{NO-BREAK SPACE}", " ")
        assert page.read_text().count("<img ") == 5
    sweep = next(folder.parent for run, folder in folders.items() if "multiruns" in run)
    assert report.main([str(sweep), f"out={tmp_path / 'sweep.html'}"]) == 0
    text = (tmp_path / "sweep.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "Sweep over activation" in text
    for run, folder in folders.items():
        assert (percent(metrics(folder)["val/acc"]) in text) == ("multiruns" in run)
