"""Files of runs that others made: what can't be used is one line, and the others are shown."""

import json
import os
from pathlib import Path

import pytest

from cifar_lightning.commands.report import main as report
from cifar_lightning.commands.summarize import main as summarize
from cifar_lightning.reporting.files import read_csv, write_csv

GOOD = {"overrides": ["optimizer.lr=0.1"], "test/acc": 0.5, "val/acc": 0.5, "seed": 0, "model": "cnn2", "parameters": 9}


def run(name: str, metrics: object) -> Path:
    folder = Path("logs") / name
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(metrics if isinstance(metrics, str) else json.dumps(metrics))
    return folder


@pytest.fixture
def good(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return run("good", GOOD)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", [summarize, report])
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("[" * 100_000, "not a JSON file"),
        ({**GOOD, "test/acc": float("nan")}, "test/acc"),
        ({**GOOD, "parameters": 10**400}, "parameters"),
        ({**GOOD, "seed": [1]}, "seed"),
        ({**GOOD, "model": {"a": 1}}, "model"),
        ({**GOOD, "overrides": [3]}, "not the result of a run"),
        ([GOOD], "not the result of a run"),
        ("pipe", "is a pipe"),
        ("link", "is a symbolic link"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_broken_result_is_one_line_and_the_others_are_shown(good, capsys, command, broken, message):
    folder = run("broken", broken)
    if broken in ("pipe", "link"):
        (folder / "metrics.json").unlink()
        os.mkfifo(folder / "metrics.json") if broken == "pipe" else (folder / "metrics.json").symlink_to(
            "/etc/hostname"
        )
    command(["logs"])
    printed = capsys.readouterr()
    (line,) = [line for line in (printed.out + printed.err).splitlines() if "broken" in line]
    assert message in line
    assert "Traceback" not in printed.err
    assert "lr=0.1" in printed.out or any(Path("logs").glob("*.html"))


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopqrstuvwxy", "bcdefghijklmnopqrstuvwxyz", strict=True)
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["config.yaml", "../multirun.yaml"])
def test_a_file_that_refers_to_itself_stands_for_no_more_than_it_is(good, capsys, name):
    (good / name).write_text(BOMB)
    for command in (summarize, report):
        command(["logs"])
        assert "Traceback" not in capsys.readouterr().err


def test_no_cell_is_a_formula(tmp_path):
    values = ["=1+1", "+cmd", "-cmd", "@SUM", "-0.5", "+3", "plain", "a\x1b[31m", "two\nlines"]
    write_csv(tmp_path / "file.csv", [{"value": value} for value in values])
    assert [row["value"] for row in read_csv(tmp_path / "file.csv")] == [
        *("'=1+1", "'+cmd", "'-cmd", "'@SUM", -0.5, 3, "plain", "a\\x1b[31m", "two\\nlines")
    ]
