"""A signal ends a run of several processes: all stop at one step, one checkpoint is written, and it goes on exactly."""

import os
import shlex
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers.processes import QUICK, metrics, relatives, run, start

TRAINING = [*QUICK, "trainer=ddp_sim", "data.batch_size=16", "scheduler=none", "callbacks.model_summary=null"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes by Linux's /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_processes_at_one_step(tmp_path, how):
    process = start(tmp_path, *TRAINING, "trainer.max_epochs=1000", "hydra.run.dir=part")
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    if how == signal.SIGINT:  # Ctrl-C in a terminal is for all
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    _, err = process.communicate()
    assert process.returncode == 128 + how
    assert f"stopped by {how.name}. Resume with:" in err
    assert "Traceback" not in err
    assert relatives(tmp_path) == []

    epochs = f"trainer.max_epochs={torch.load(last, weights_only=True)['epoch'] + 2}"
    assert run(tmp_path, *TRAINING, epochs, "hydra.run.dir=whole")[0] == 0
    code, _, err = run(tmp_path, *shlex.split(err.splitlines()[-1])[3:], epochs)
    assert code == 0, err
    for key in ("test/loss", "val/loss", "epochs", "processes"):
        assert metrics(tmp_path / "part")[key] == metrics(tmp_path / "whole")[key]
