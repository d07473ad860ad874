"""Jobs in other processes: each launcher runs a sweep of two jobs for real, SLURM's with stand-ins for its programs."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = ["data=digits", "model=cnn2", "augmentation=none", "logger=none", "trainer.max_epochs=1",
         "trainer.limit_train_batches=4", "hydra.sweep.dir=sweep"]  # fmt: skip


def sweep(folder, *overrides, code=0, **environment):
    """Run the command in `folder`; returns the finished jobs and what was printed."""
    program = [sys.executable, "-m", "cifar_lightning", "-m", *QUICK, *overrides]
    done = subprocess.run(program, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert (folder / "sweep" / "summary.csv").exists()
    return sorted(path.parent.name for path in folder.glob("sweep/*/metrics.json")), done


def threads(folder, job):
    return json.loads((folder / "sweep" / job / "metrics.json").read_text())["hardware"].split()[0]


def test_workers_of_joblib_find_what_is_finished_and_say_what_fails(command):
    """They need no torch for either, which keeps this test short; the slow one trains."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    given = ["-m", *QUICK, "callbacks=none"]
    assert command(*given, "seed=1").code == 0
    outcome = command(
        *given, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.strategy=auto,ddp_spawn", "seed=1"
    )
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
    assert outcome.code == 1
    assert outcome.err.startswith("error: trainer.strategy=ddp_spawn: trainer.strategy=ddp_spawn: ")
    assert len(list(Path("sweep").glob("*/metrics.json"))) == len(list(Path("sweep").glob("*/failure.json"))) == 1
    assert "trainer.strategy=ddp_spawn" in Path("sweep/summary.md").read_text()


@pytest.mark.slow
def test_joblib(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    given = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "model.dropout=0.1,0.2,2"]
    jobs, done = sweep(tmp_path, *given, code=1)
    assert jobs == ["model.dropout=0.1", "model.dropout=0.2"]
    # A job of another process says why it failed, too.
    assert done.stderr.startswith("error: model.dropout=2: ")
    assert "dropout probability has to be between 0 and 1" in done.stderr
    lines = [line for line in done.stdout.splitlines() if "epoch 1/1" in line]
    assert sorted(line.split()[0] for line in lines) == ["[#0]", "[#1]"]
    assert all(line.count("epoch") == 1 for line in lines)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads(tmp_path, jobs[0]) == os.environ.get("OMP_NUM_THREADS", str(max(1, cores // 2)))


@pytest.mark.slow
def test_submitit_local(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    jobs, done = sweep(tmp_path, "hydra/launcher=submitit_local", "seed=1,2")
    assert jobs == ["seed=1", "seed=2"]
    logs = [path.read_text() for path in tmp_path.glob("sweep/.submitit/*/*_log.out")]
    assert sorted(line.split()[0] for log in logs for line in log.splitlines() if "epoch 1/1" in line) == [
        "[#0]",
        "[#1]",
    ]
    assert "epoch 1/1" not in done.stdout


@pytest.mark.slow
def test_ray_on_this_machine(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    jobs, _ = sweep(tmp_path, "hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2", "seed=1,2")
    assert jobs == ["seed=1", "seed=2"]
    assert threads(tmp_path, "seed=1") == "1"


SBATCH = """#!/usr/bin/env python3
# Stands in for SLURM's sbatch: keeps the script, and runs it once for each task of the array.
import os, re, shutil, subprocess, sys
script = open(sys.argv[1]).read()
shutil.copy(sys.argv[1], os.environ["KEPT"])
last = int(re.search(r"--array=0-([0-9]+)", script)[1])
for task in range(last + 1):
    slurm = {"SLURM_JOB_ID": str(900 + task), "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(task),
             "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0",
             "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NAME": "cifar_lightning"}
    subprocess.Popen(["bash", sys.argv[1]], env={**os.environ, **slurm}, stdin=subprocess.DEVNULL,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 77")
"""
SRUN = """#!/usr/bin/env python3
# Stands in for SLURM's srun: runs the command, and writes what it prints where it was told.
import os, subprocess, sys
arguments = sys.argv[1:]
output = None
while arguments[0].startswith("--"):
    if arguments.pop(0) == "--output":
        output = arguments.pop(0)
task = os.environ["SLURM_ARRAY_TASK_ID"]
output = output.replace("%A", "77").replace("%a", task).replace("%t", "0")
os.makedirs(os.path.dirname(output), exist_ok=True)
with open(output, "a") as file:
    sys.exit(subprocess.run(arguments, stdout=file, stderr=file).returncode)
"""
SACCT = "#!/bin/sh\necho 'JobID|State|NodeList'\n"


@pytest.fixture
def slurm(tmp_path):
    """A folder with programs named like SLURM's, first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "KEPT": str(tmp_path / "script.sh")}


@pytest.mark.slow
def test_slurm_gets_an_array_of_the_jobs_and_a_script_that_says_what_they_need(tmp_path, slurm):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    options = ["partition=gpu", "timeout_min=90", "mem_gb=8", "cpus_per_task=2", "array_parallelism=1",
               "setup=['export SETUP=1']"]  # fmt: skip
    options = [f"hydra.launcher.{option}" for option in options]
    options.append("+hydra.launcher.additional_parameters.mail-type=END")
    jobs, _ = sweep(tmp_path, "hydra/launcher=submitit_slurm", *options, "seed=1,2", **slurm)
    assert jobs == ["seed=1", "seed=2"]
    script = Path(slurm["KEPT"]).read_text().splitlines()
    wanted = ["array=0-1%1", "partition=gpu", "time=90", "mem=8GB", "cpus-per-task=2", "gpus-per-node=1", "nodes=1",
              "ntasks-per-node=1", "mail-type=END", "job-name=cifar_lightning", "signal=USR2@120"]  # fmt: skip
    flags = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH --")}
    assert set(wanted) <= flags
    assert "export SETUP=1" in script
    (srun,) = (line for line in script if line.startswith("srun"))
    assert f"{sys.executable} -u -m submitit.core._submit" in srun
    assert script.index("export SETUP=1") < script.index(srun)
