"""How a process that works with others ends."""

import os
import subprocess
import sys

import torch.distributed as distributed

from cifar_lightning.runs.processes import REASON, leave_group

# The first to be registered is the last to be called.
AT_THE_END = """
import atexit, threading
atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))
from cifar_lightning.runs.processes import end_with_the_command
end_with_the_command()
assert threading.active_count() == 2
"""


def test_no_thread_of_ours_runs_while_the_interpreter_ends():
    environment = os.environ | {REASON: "reason"}
    ended = subprocess.run([sys.executable, "-c", AT_THE_END], env=environment, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("['MainThread']\n", "", 0)


def test_a_group_of_processes_is_left():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    leave_group()
    assert not distributed.is_initialized()
    leave_group()  # as a run of one process does, which has none
