"""`kill -9` at any moment, also while a checkpoint is being written: the run goes on and ends identical."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.records import assert_same_record


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "seed"), [(2, 0), pytest.param(20, 1, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_as_if_never_killed(tmp_path, kills, seed):
    script = [sys.executable, Path(__file__).parents[1] / "helpers" / "killed.py", str(kills), str(seed)]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout) == kills, (tmp_path / "output").read_text()
    assert_same_record(tmp_path / "part", tmp_path / "whole")
    names = {path.name for path in (tmp_path / "part" / "checkpoints").iterdir()}
    assert names - {".last.ckpt.tmp", ".best.ckpt.tmp"} == {"best.ckpt", "last.ckpt"}
    for name in ("best.ckpt", "last.ckpt"):
        torch.load(tmp_path / "part" / "checkpoints" / name, weights_only=True)
