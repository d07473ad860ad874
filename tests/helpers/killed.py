"""`python killed.py KILLS SEED`, in an empty folder: one run in one go (`whole`) and one that is killed again and again
(`part`), both by the command. A process forks for each start, so that torch is imported only once."""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import cifar_lightning.runs.train  # noqa: F401
from cifar_lightning.__main__ import main

TRAINING = [
    "data=digits",
    "model=cnn2",
    "model.dropout=0.5",
    "data.batch_size=128",
    "ema_decay=0.9",
    f"trainer.max_epochs={2 + int(sys.argv[1])}",
]
WATCHED = ["callbacks.model_summary=null", "trainer.log_every_n_steps=1", "callbacks.last_checkpoint.every_minutes=0"]
LAST = Path("part/checkpoints/last.ckpt")


def start(*arguments: str, die_in_write: int = 0) -> int:
    """The process that trains. It kills itself in a checkpoint's n-th writing, half of which is in the file then."""
    process = os.fork()
    if process:
        return process
    calls = 0

    def die(fd: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == die_in_write:
            os.ftruncate(fd, os.fstat(fd).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = die
    sys.argv = ["cifar_lightning", *arguments]
    with open("output", "a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    try:
        main()
    finally:
        os._exit(0)


def ended(process: int) -> bool:
    return os.waitpid(process, os.WNOHANG)[0] != 0


def written() -> float:
    return LAST.stat().st_mtime if LAST.exists() else 0.0


def kill(process: int, delay: float) -> bool:
    """Kill it some time after its next checkpoint; whether it was still there."""
    before = written()
    while written() == before and not ended(process):
        time.sleep(0.005)
    time.sleep(delay)
    try:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    except OSError:
        return False
    return True


def run(kills: int, chance: random.Random) -> int:
    """How many times it was killed before it was done."""
    for n in range(kills):
        arguments = [f"ckpt_path={LAST}"] if LAST.exists() else [*TRAINING, *WATCHED, "hydra.run.dir=part"]
        if n % 2:
            os.waitpid(start(*arguments, die_in_write=chance.randint(1, 4)), 0)
        elif not kill(start(*arguments), chance.uniform(0, 0.2)) or Path("part/metrics.json").exists():
            return n
    os.waitpid(start(f"ckpt_path={LAST}"), 0)
    return kills


if __name__ == "__main__":
    os.waitpid(start(*TRAINING, *WATCHED, "hydra.run.dir=whole"), 0)
    print(run(int(sys.argv[1]), random.Random(int(sys.argv[2]))))
