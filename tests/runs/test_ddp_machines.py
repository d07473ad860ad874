"""Each test image counts once; processes that torchrun or SLURM starts, on one machine or several, make one run."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.official_format import write_cifar
from helpers.processes import SHORT, metrics, run
from torch.distributed.run import parse_args

from cifar_lightning.commands.train import checked_arguments, parsed
from cifar_lightning.runs.processes import free_port

DOCUMENT = (Path(__file__).parents[2] / "docs" / "processes.md").read_text(encoding="utf-8").replace("\\\n", "")
BLOCKS = re.findall(r"```bash\n(.*?)```", DOCUMENT, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if "cifar_lightning" in line]

# Writes down what this process has for training and validation. It lies in the folder of the command.
WITNESS = """
import hashlib
from lightning.pytorch.callbacks import Callback

class Witness(Callback):
    def on_train_start(self, trainer, module):
        data = trainer.datamodule
        parts = [part.tobytes() for part in (data.train_indices, data.val_indices)]
        parts += [part.images.numpy().tobytes() for part in (data.train, data.val)]
        with open(f"witness{trainer.global_rank}", "w") as file:
            file.write(" ".join(hashlib.md5(part).hexdigest() for part in parts))
"""


@pytest.mark.slow
def test_each_of_10_001_test_images_counts_once_and_all_processes_have_the_same_split(command, monkeypatch):
    monkeypatch.syspath_prepend(command.folder)
    write_cifar(command.folder / "data" / "cifar-10-batches-py", n_test=10_001)
    (command.folder / "witness.py").write_text(WITNESS)
    data = ["data=cifar10", "data.verify=false", "data.val_size=101", "data.batch_size=20"]
    given = [*SHORT, *data, "trainer=ddp_sim", "+callbacks.witness._target_=witness.Witness", "hydra.run.dir=two"]
    code, _, err = run(command.folder, *given)
    assert code == 0, err
    first, second = (Path(f"witness{rank}").read_text() for rank in range(2))
    assert first == second

    both = metrics(Path("two"))
    assert sum(map(sum, both["test/confusion_matrix"])) == 10_001
    with open("two/predictions.csv") as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(10_001))
    best = ["train=false", "ckpt_path=two/checkpoints/best.ckpt", "trust=witness"]
    alone = command(*best, "trainer=cpu", "hydra.run.dir=one")
    assert alone.code == 0, alone.err
    one = metrics(Path("one"))
    for name in ("test/confusion_matrix", "test/acc", "test/top5", "val/acc"):
        assert both[name] == one[name]
    for name in ("test/loss", "val/loss"):
        assert both[name] == pytest.approx(one[name], abs=1e-6)


def together(folder: Path, commands: list[list[str]], environments: list[dict[str, str]]) -> list[str]:
    """Start the commands at once, wait for all to end well; what each wrote to standard output."""
    how = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    common = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(c, env=common | e, **how) for c, e in zip(commands, environments, strict=True)]
    ends = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), ends
    return [out for out, _ in ends]


def assert_one_run(folder: Path, outputs: list[str]) -> None:
    assert [out.count("test accuracy, top 5") for out in sorted(outputs, key=len)] == [0, 1]
    assert [path.name for path in folder.iterdir()] == ["here"]
    assert metrics(folder / "here")["processes"] == 2
    assert len(list((folder / "here").glob("*.log"))) == 1


def documented(program: str) -> tuple[list[str], list[str]]:
    """The words before and after the `cifar_lightning` of the command of docs/processes.md that begins so."""
    words = shlex.split(next(line for line in COMMANDS if line.startswith(program)))
    at = words.index("cifar_lightning")
    return words[:at], words[at + 1 :]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_is_accepted(monkeypatch, tmp_path, line):
    monkeypatch.chdir(tmp_path)  # the folder of the run is made
    words = shlex.split(line)
    at = words.index("cifar_lightning")
    if words[0] != "python":  # what has started this process also tells it to name a folder
        monkeypatch.setenv("LOCAL_RANK", "1")
    if words[0] == "torchrun":
        assert parse_args(words[1:]).training_script == "cifar_lightning"
    overrides = [word.replace("$SLURM_JOB_ID", "7") for word in words[at + 1 :]]
    assert checked_arguments(overrides, parsed(overrides))[: len(overrides)] == overrides


def on_a_cpu(overrides: list[str], *more: str) -> list[str]:
    """A documented run as one of two processes without GPUs."""
    small = {"trainer=ddp": "trainer=ddp_sim", "model=resnet18": "model=cnn2"}
    kept = [small.get(word, word) for word in overrides if not word.startswith("hydra.run.dir=")]
    return [*kept, *SHORT, "callbacks.model_summary=null", *more, "hydra.run.dir=here"]


@pytest.mark.slow
def test_two_machines_make_one_run(tmp_path):
    program, overrides = documented("torchrun --nnodes=2")
    given = on_a_cpu(overrides, "trainer.devices=1")
    here = {"--nproc-per-node": "1", "--master-addr": "127.0.0.1", "--master-port": free_port()}
    commands = []
    for rank in ("0", "1"):
        options = here | {"--node-rank": rank}
        words = [f"{key}={options[key]}" if (key := word.split("=")[0]) in options else word for word in program[1:]]
        commands.append([sys.executable, "-m", "torch.distributed.run", *words, "cifar_lightning", *given])
    assert_one_run(tmp_path, together(tmp_path, commands, [{}, {}]))


@pytest.mark.slow
def test_tasks_of_slurm_make_one_run(tmp_path):
    program, overrides = documented("srun")
    command = [sys.executable, *program[2:], "cifar_lightning", *on_a_cpu(overrides, "trainer.devices=1")]
    job = {
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2",
    }
    job |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NODELIST": "localhost", "MASTER_PORT": free_port()}
    job |= {"MASTER_ADDR": "127.0.0.1"}
    tasks = [job | {"SLURM_PROCID": rank, "SLURM_LOCALID": "0", "SLURM_NODEID": rank} for rank in ("0", "1")]
    assert_one_run(tmp_path, together(tmp_path, [command] * 2, tasks))
