import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.small import Batches
from helpers.two_processes import experiment
from torch.testing import assert_close


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).parents[1] / "helpers" / "two_processes.py"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(launch, check=True, timeout=300, env=environment, capture_output=True)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.slow
def test_two_processes_train_and_test_as_one_with_their_batches(results, tmp_path):
    one, two = experiment(tmp_path, 16), results["plain"]
    assert_close(two["weights"], one["weights"], rtol=1e-5, atol=1e-6)
    assert torch.equal(two["labels"], Batches(n=21, seed=1).labels)
    assert_close(two["logits"], one["logits"], rtol=1e-5, atol=1e-5)
    assert two["figures"] == pytest.approx(one["figures"], rel=1e-5)
    for name in ("train/acc", "val/acc", "test/acc"):
        assert two["figures"][name] == pytest.approx(one["figures"][name], rel=1e-7)


@pytest.mark.slow
def test_two_processes_resume_each_with_its_own_random_state(results):
    assert results["resumed"]["figures"] == results["dropout"]["figures"]
    assert all(torch.equal(results["resumed"]["weights"][k], v) for k, v in results["dropout"]["weights"].items())
