import logging
import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

import cifar_lightning.sweeps.job  # noqa: F401 (registers the resolvers of the launchers' configs)
from cifar_lightning.config.compose import compose
from cifar_lightning.errors import UserError
from cifar_lightning.sweeps import parallel

ONE_DEVICE = OmegaConf.create({"accelerator": "auto", "devices": 1})


def launcher(name):
    return compose([f"hydra/launcher={name}"], return_hydra_config=True).hydra.launcher


@pytest.mark.parametrize(
    ("named", "expected"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("GPU-5f, GPU-6a", ["GPU-5f", "GPU-6a"])]
)
def test_gpus_are_those_that_cuda_may_see(monkeypatch, named, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert parallel.visible_gpus() == expected


@pytest.mark.parametrize(("gpus", "expected"), [(0, []), (3, ["0", "1", "2"])])
def test_gpus_are_counted_by_nvidia_smi(monkeypatch, tmp_path, gpus, expected):
    program = tmp_path / "nvidia-smi"
    lines = "".join(f"echo 'GPU {i}: NVIDIA H100 (UUID: GPU-{i})'\necho '  MIG 1g.10gb'\n" for i in range(gpus))
    program.write_text(f"#!/bin/sh\n{lines}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert parallel.visible_gpus() == expected
    assert parallel.jobs_at_once() == (gpus or parallel.cores())


def test_jobs_spread_over_the_gpus_before_two_share_one(monkeypatch, tmp_path):
    program = (
        "from omegaconf import OmegaConf; from cifar_lightning.sweeps import parallel; import os, sys\n"
        "trainer = OmegaConf.create({'accelerator': 'auto', 'devices': 1})\n"
        "print(parallel.claim_gpu(trainer), parallel.claim_gpu(trainer), os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "sys.stdout.flush()\n"
        "sys.stdin.read()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), parallel.GPUS: "4,7"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    jobs = []
    for _ in range(3):
        jobs.append(subprocess.Popen([sys.executable, "-c", program], **pipes))
        jobs[-1].said = jobs[-1].stdout.readline().split()
    # A process keeps the GPU that it has: the second claim chooses nothing.
    assert [job.said for job in jobs] == [["4", "None", "4"], ["7", "None", "7"], ["4", "None", "4"]]
    jobs[1].communicate()  # its GPU is free again
    jobs.append(subprocess.Popen([sys.executable, "-c", program], **pipes))
    assert jobs[3].stdout.readline().split()[0] == "7"
    for job in (jobs[0], jobs[2], jobs[3]):
        job.communicate()


def test_a_job_that_wants_no_gpu_or_several_is_given_none(monkeypatch):
    monkeypatch.setenv(parallel.GPUS, "4,7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert parallel.claim_gpu(OmegaConf.create({"accelerator": "cpu", "devices": 1})) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert parallel.claim_gpu(OmegaConf.create({"accelerator": "auto", "devices": 2})) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"  # all of them, whatever the launcher has hidden


def test_without_gpus_there_is_nothing_to_choose(monkeypatch):
    monkeypatch.setenv(parallel.GPUS, "")
    assert parallel.claim_gpu(ONE_DEVICE) is None


def test_local_jobs_share_the_cores_and_the_environment_is_put_back(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(parallel, "cores", lambda: 8)
    with parallel.shared_machine(launcher("joblib"), None):  # one job a GPU
        assert os.environ["OMP_NUM_THREADS"] == "4"
        assert os.environ[parallel.GPUS] == "2,3"
    assert "OMP_NUM_THREADS" not in os.environ
    assert parallel.GPUS not in os.environ
    with parallel.shared_machine(launcher("submitit_local"), 3):
        assert os.environ["OMP_NUM_THREADS"] == "2"
    with parallel.shared_machine(launcher("submitit_slurm"), None):  # SLURM says what a job has
        assert parallel.GPUS not in os.environ


@pytest.mark.parametrize("name", ["basic", "joblib", "submitit_local", "submitit_slurm", "ray"])
def test_a_launcher_is_known_by_its_name(name):
    assert parallel.launcher_name(launcher(name)) == name


@pytest.mark.parametrize(("name", "extra"), [("joblib", "joblib"), ("submitit_slurm", "submitit"), ("ray", "ray")])
def test_a_missing_launcher_is_one_line_with_its_extra(monkeypatch, name, extra):
    monkeypatch.setattr(parallel, "find_distributions", lambda name: [])
    with pytest.raises(UserError, match=rf"hydra/launcher={name} needs .*pip install 'cifar-lightning\[{extra}\]'"):
        parallel.check_installed(launcher(name))
    parallel.check_installed(launcher("basic"))


def test_log_lines_of_a_job_start_with_its_number(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    parallel.number_log_lines(3)
    logging.getLogger("a.b").warning("epoch %s", "1/2")
    assert capsys.readouterr().out == "[#3] epoch 1/2\n"
