import json
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_lightning.commands.summarize import main


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """Three seeds of two activations, in a folder that is the current one's `logs`."""
    monkeypatch.chdir(tmp_path)
    for activation, start in (("relu", 0.80), ("tanh", 0.70)):
        for seed in (1, 2, 3):
            folder = tmp_path / "logs" / f"{activation}_{seed}"
            folder.mkdir(parents=True)
            metrics = {
                "test/acc": start + seed / 100, "val/acc": start + seed / 50, "parameters": 175258, "epochs": 5,
                "train_seconds": 30.5, "images_per_second": 12345.6, "checkpoint": "best", "experiment": None,
                "model": "resnet", "overrides": [f"activation={activation}", f"seed={seed}"], "seed": seed,
                "precision": "32-true", "hardware": "2 cores", "versions": {"torch": "2.15.0"}, "date": "2026-11-21",
            }  # fmt: skip
            (folder / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path / "logs"


def test_prints_a_row_for_each_setting_and_writes_the_same_as_markdown(logs, capsys):
    assert main(["logs", "out=out/RESULTS.md"]) == 0
    printed = capsys.readouterr().out
    relu, tanh = (" ".join(line.split()) for line in printed.splitlines() if "activation=" in line)
    assert relu == "activation=relu 175,258 82.00 ± 1.00 (3) 84.00 ± 2.00 30 12,346"
    assert tanh == "activation=tanh 175,258 72.00 ± 1.00 (3) 74.00 ± 2.00 30 12,346"
    markdown = (logs.parent / "out" / "RESULTS.md").read_text(encoding="utf-8")
    header, _, first, second, *notes = markdown.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, first, second)]
    assert cells == [
        ["run", "parameters", "test accuracy", "validation", "seconds", "images/s"],
        ["activation=relu", "175,258", "82.00 ± 1.00 (3)", "84.00 ± 2.00", "30", "12,346"],
        ["activation=tanh", "175,258", "72.00 ± 1.00 (3)", "74.00 ± 2.00", "30", "12,346"],
    ]
    assert "Made on: 2 cores; torch 2.15.0." in notes
    assert str(logs.parent) not in markdown


def test_unusable_files_are_named_the_rest_is_summarised_and_the_exit_code_is_1(logs, capsys):
    (logs / "relu_2" / "metrics.json").write_text("{")
    assert main(["logs"]) == 1
    out, err = capsys.readouterr()
    assert "82.00 ± 1.41 (2)" in out
    assert err.startswith("left out: logs/relu_2/metrics.json: not a JSON file")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "error: no run to summarise: no usable metrics.json below empty.\n"),
        (["nowhere"], "error: nowhere is not a folder. Give folders that hold runs, such as logs.\n"),
        (["logs", "by=modle"], "error: by=modle: no run has or overrides modle. Did you mean model?\n"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(logs, capsys, arguments, message):
    (logs.parent / "empty").mkdir()
    assert main(arguments) == 1
    assert capsys.readouterr() == ("", message)


def test_a_place_that_can_not_be_written_is_an_error_after_the_table(logs, capsys):
    (logs.parent / "file").write_text("old")
    assert main(["logs", "out=file/RESULTS.md"]) == 1
    out, err = capsys.readouterr()
    assert "activation=relu" in out
    assert err.startswith("error: can't write file/RESULTS.md: a part of its path is a file.")
    assert err.count("\n") == 1


def test_by_groups_by_other_keys(logs, capsys):
    assert main(["logs", "by=model,seed"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("resnet")]
    assert rows == [["resnet", "3"], ["resnet", "2"], ["resnet", "1"]]


def test_help_is_short_and_shows_examples():
    result = subprocess.run(
        [sys.executable, "-m", "cifar_lightning", "summarize", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 115
    assert len(lines) < 35
    assert "python -m cifar_lightning summarize logs" in result.stdout


def test_heavy_packages_are_not_imported():
    code = "import sys, cifar_lightning.commands.summarize; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "matplotlib", "hydra", "lightning"} & set(modules)


def test_title_and_notes_stand_above_the_table(logs, capsys):
    assert main(["logs", "out=RESULTS.md", "title=Recipes", "note=One.", "note=Two."]) == 0
    text = Path("RESULTS.md").read_text()
    assert text.startswith("# Recipes\n\nOne.\n\nTwo.\n\n| ")


def test_a_folder_gets_the_table_as_csv_and_markdown_and_the_figures(logs, capsys):
    assert main(["logs", "out=compared"]) == 0
    assert capsys.readouterr().out.endswith("Written to compared: summary.csv, summary.md, figures\n")
    assert "activation=tanh" in Path("compared/summary.md").read_text()
    assert Path("compared/summary.csv").read_text().startswith("activation,n,seeds,")
    assert {path.name for path in Path("compared/figures").iterdir()} == {"accuracy.png", "accuracy_and_time.png"}
    assert not list(logs.glob("*.md"))


def test_a_sweep_is_summarised_in_its_own_folder_with_what_has_no_result(logs, capsys):
    (logs / "multirun.yaml").touch()
    (logs / "elu_1" / ".hydra").mkdir(parents=True)
    (logs / "elu_1" / "failure.json").write_text('{"reason": "no memory"}')
    assert main(["logs"]) == 0
    assert "failed: no memory" in capsys.readouterr().out
    assert "| elu_1 | failed: no memory |" in (logs / "summary.md").read_text()
    assert (logs / "figures" / "accuracy.png").exists()
