"""`trainer=ddp_sim`: two processes make one run, which is that of one process, and end together."""

import csv
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.processes import QUICK, SCRIPT, SHORT, metrics, relatives, rows, run, start
from lightning.pytorch.strategies import DDPStrategy

from cifar_lightning.callbacks.history import History
from cifar_lightning.config.compose import compose
from cifar_lightning.data.digits import load_digits
from cifar_lightning.runs.build import build_callbacks, build_trainer
from cifar_lightning.runs.processes import processes_to_start
from cifar_lightning.runs.sharding import FullySharded

# A callback that fails in one of the processes, in its second step. It lies in the folder of the command.
ACCIDENT = """
import os, time
from lightning.pytorch.callbacks import Callback

class Accident(Callback):
    def __init__(self, rank, how):
        self.rank, self.how = rank, how

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx != 1 or trainer.global_rank != self.rank:
            return
        open("happened", "w").close()
        if self.how == "raise":
            raise RuntimeError("the dog ate the gradient")
        if self.how == "sleep":
            time.sleep(600)
        os.kill(os.getpid(), 9)
"""


def accident(folder: Path, rank: int, how: str) -> list[str]:
    (folder / "accident.py").write_text(ACCIDENT)
    target = {"_target_": "accident.Accident", "rank": rank, "how": how}
    return [*SHORT, "callbacks=none", "trainer=ddp_sim", *(f"+callbacks.a.{k}={v}" for k, v in target.items())]


# With learning rates at which training does not magnify rounding.
@pytest.mark.parametrize(
    "loss",
    [
        ["optimizer.lr=0.01"],
        pytest.param(["optimizer.lr=0.0003", "loss.reduction=sum"], marks=pytest.mark.slow),
    ],
)
def test_two_processes_make_one_run_which_is_that_of_one_process_with_their_batches(command, loss):
    # 1,149 training images in steps of 2 x 16: in the last one, of 29, the processes have shares of different sizes.
    training = [*QUICK, "trainer.max_epochs=2", *loss, "callbacks.model_summary=null"]
    code, out, err = run(command.folder, *training, "trainer=ddp_sim", "data.batch_size=16")
    (folder,) = command.runs()
    said = err + (folder / "cifar_lightning.log").read_text()
    assert (code, out.count("test accuracy, top 5"), out.count("epoch 2/2")) == (0, 1, 1), said
    assert [path.name for path in folder.glob("*.log")] == ["cifar_lightning.log"]
    log = (folder / "cifar_lightning.log").read_text()
    assert (log.count("epoch 1/2"), log.count("epoch 2/2")) == (1, 1)
    both = metrics(folder)
    assert both["processes"] == 2
    with (folder / "predictions.csv").open() as file:
        assert [int(row["label"]) for row in csv.DictReader(file)] == load_digits().test.labels.tolist()

    assert command(*training, "trainer=cpu", "data.batch_size=32", "hydra.run.dir=one").code == 0
    for two, one in zip(rows(folder / "history.csv"), rows(command.folder / "one" / "history.csv"), strict=True):
        del two["seconds"], one["seconds"]
        assert two == pytest.approx(one, rel=1e-4)

    checkpoint = folder / "checkpoints" / "best.ckpt"
    assert command("train=false", f"ckpt_path={checkpoint}", "trainer=cpu", "hydra.run.dir=again").code == 0
    alone = metrics(command.folder / "again")
    for name in ("test/confusion_matrix", "test/acc", "test/top5", "val/acc"):
        assert both[name] == alone[name]
    for name in ("test/loss", "val/loss"):
        assert both[name] == pytest.approx(alone[name], abs=1e-6)


@pytest.mark.slow
def test_each_job_of_a_sweep_has_processes_and_a_folder_of_its_own(tmp_path):
    # A folder whose name Hydra would read, and a recipe of the person's own.
    here = tmp_path / "it's, a=b"
    recipe = here / "mine" / "experiment" / "short.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("# @package _global_\ndefaults: [override /trainer: ddp_sim]\ntask_name: short\n")
    code, out, err = run(here, "--config-dir=mine", "-m", "experiment=short", *SHORT, "seed=1,2", program=SCRIPT)
    assert (code, out.count("test accuracy, top 5")) == (0, 2), err
    assert not (here / "logs" / "short" / "runs").exists()
    (sweep,) = (here / "logs" / "short" / "multiruns").glob("*")
    results = [metrics(file.parent) for file in sorted(sweep.glob("*/metrics.json"))]
    assert [(result["seed"], result["processes"]) for result in results] == [(1, 2), (2, 2)]

    # Not what the first job left behind: each is the run that it would have been alone.
    code, out, err = run(tmp_path, *SHORT, "trainer=ddp_sim", "seed=2", "hydra.run.dir=alone")
    assert code == 0, err
    assert metrics(tmp_path / "alone")["test/loss"] == results[1]["test/loss"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("how", "message"), [("raise", "RuntimeError: the dog ate the gradient"), ("kill", "was ended by SIGKILL")]
)
def test_a_process_that_fails_takes_the_others_with_it_and_says_why(tmp_path, rank, how, message):
    code, out, err = run(tmp_path, *accident(tmp_path, rank, how))
    assert code == 1
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, err
    assert message in errors[0]
    assert how == "raise" or f"process {rank} of 2" in errors[0]
    assert "Traceback" not in out + err
    (log,) = tmp_path.rglob("*.log")
    assert "Traceback" in log.read_text()
    assert relatives(tmp_path) == []
    assert not list(tmp_path.rglob("metrics.json"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes by Linux's /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_command(tmp_path, how):
    process = start(tmp_path, *accident(tmp_path, 1, "sleep"))
    while not (tmp_path / "happened").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    assert len(relatives(tmp_path)) == 3
    if how == signal.SIGINT:  # Ctrl-C in a terminal is for all
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    while relatives(tmp_path):  # one that outlives it ends at the test's own time limit
        time.sleep(0.2)
    assert process.wait() != 0
    assert "Traceback" not in process.communicate()[1]


@pytest.mark.slow
def test_a_mistake_that_only_the_processes_find_is_one_line(tmp_path):
    for mistake, message in (
        ("trainer.sync_batchnorm=true", "trainer.sync_batchnorm=true: PyTorch synchronises batch norm on GPUs only"),
        ("data.batch_size=1000", "data.batch_size=1000 on each of 2 processes is more than the 1,149 images"),
    ):
        code, _, err = run(tmp_path, *SHORT, "trainer=ddp_sim", mistake)
        assert code == 1
        assert err.startswith(f"error: {message}")
        assert err.count("\n") == 1


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_on_two(tmp_path):
    training = [*QUICK, "trainer=ddp_sim", "scheduler=none", "callbacks.model_summary=null", "trainer.max_epochs=2"]
    assert run(tmp_path, *training, "hydra.run.dir=whole")[0] == 0
    assert run(tmp_path, *training, "trainer.max_epochs=1", "test=false", "hydra.run.dir=part")[0] == 0
    code, _, err = run(tmp_path, "ckpt_path=part/checkpoints/last.ckpt", "trainer.max_epochs=2", "test=true")
    assert code == 0, err
    whole, resumed = (metrics(tmp_path / name) for name in ("whole", "part"))
    assert resumed["processes"] == 2
    assert resumed["test/loss"] == whole["test/loss"]


@pytest.mark.slow
def test_torchrun_starts_one_run(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    module = [*torchrun, "-m", "cifar_lightning"]
    arguments = [*SHORT, "trainer=ddp_sim", "callbacks=none", "hydra.run.dir=here"]
    code, out, err = run(tmp_path, *arguments, program=module)
    assert (code, out.count("test accuracy, top 5")) == (0, 1), err
    assert metrics(tmp_path / "here")["processes"] == 2


@pytest.mark.parametrize("arguments", [[], ["-m", "seed=1,2"]])
def test_processes_from_outside_must_be_told_their_folder(command, monkeypatch, arguments):
    monkeypatch.setenv("LOCAL_RANK", "0")
    outcome = command(*arguments, *QUICK, "trainer=ddp_sim")
    assert outcome.code == 1
    assert outcome.err.startswith("error: processes started by torchrun or SLURM")
    assert list(command.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "processes"),
    [
        ([], 0),
        (["trainer=gpu"], 0),
        (["trainer=ddp_sim"], 2),
        (["trainer=ddp_sim", "trainer.devices=1"], 1),
        (["trainer.devices=3"], 3),
        (["trainer=ddp", "trainer.devices=[0,2]"], 2),
        (["trainer=ddp", "trainer.accelerator=cpu"], 1),
    ],
)
def test_a_command_starts_a_process_for_each_device_unless_somebody_else_has(monkeypatch, overrides, processes):
    trainer = compose(overrides).trainer
    assert processes_to_start(trainer) == processes
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes_to_start(trainer) == 0


@pytest.mark.parametrize(
    ("choice", "settings", "strategy"),
    [
        ("ddp", ("gpu", -1, "ddp", True), DDPStrategy),
        ("ddp_sim", ("cpu", 2, "ddp", False), DDPStrategy),
        ("fsdp", ("gpu", -1, "fsdp", True), FullySharded),
    ],
)
def test_a_trainer_for_several_processes_is_what_lightning_makes(tmp_path, choice, settings, strategy):
    given = compose([f"trainer={choice}"]).trainer
    assert (given.accelerator, given.devices, given.strategy, given.sync_batchnorm) == settings
    here = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=false"]  # there may be no GPU
    config = compose([f"trainer={choice}", *here, "trainer.num_nodes=3", "logger=none", "callbacks=none"])
    config.paths.output_dir = str(tmp_path)
    callbacks = build_callbacks(config, SimpleNamespace(has_validation=True))
    trainer = build_trainer(config, [History(tmp_path / "history.csv"), *callbacks], [])
    assert isinstance(trainer.strategy, strategy)
    assert (trainer.num_devices, trainer.num_nodes, trainer.world_size) == (2, 3, 6)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_a_strategy_that_starts_processes_in_its_own_way_is_refused(command, strategy):
    outcome = command(*QUICK, "trainer=ddp_sim", f"trainer.strategy={strategy}")
    assert outcome.code == 1
    assert outcome.err == f"error: trainer.strategy={strategy}: the command starts the processes; use ddp\n"
