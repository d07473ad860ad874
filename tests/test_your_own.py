"""The examples of docs/your_own.md run as they stand there, go on and are evaluated."""

import json
import re
import shlex
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[1] / "docs" / "your_own.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
LINES = [line for block in re.findall(r"```bash\n(.*?)```", DOCUMENT, flags=re.DOTALL) for line in block.splitlines()]


SOME = [pytest.param(line, marks=() if "mine.Data" in line else pytest.mark.slow) for line in LINES]


@pytest.mark.parametrize("line", SOME, ids=lambda line: re.search(r"mine\.\w+", line)[0])
def test_an_example_runs_goes_on_and_is_evaluated(command, monkeypatch, line):
    Path("mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(command.folder))
    outcome = command(*shlex.split(line)[3:], "hydra.run.dir=run", "logger=none", "callbacks.model_summary=null")
    assert outcome.code == 0, outcome.err
    first = json.loads(Path("run/metrics.json").read_text())
    assert first["test/acc"] > 0.6
    assert first["val/acc"] > 0.6
    outcome = command("ckpt_path=run", f"trainer.max_epochs={first['epochs'] + 1}")
    assert outcome.code == 0, outcome.err
    second = json.loads(Path("run/metrics.json").read_text())
    assert second["epochs"] == first["epochs"] + 1
    outcome = command("evaluate", "run", "trust=mine")
    assert outcome.code == 0, outcome.err
    tested = json.loads(Path("run/checkpoints/best_test/evaluation.json").read_text())
    assert tested["test/acc"] == pytest.approx(second["test/acc"])
