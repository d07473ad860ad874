"""How a process that works with others ends."""

import torch.distributed as distributed

from cifar_lightning.runs.processes import leave_group


def test_a_group_of_processes_is_left():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    leave_group()
    assert not distributed.is_initialized()
    leave_group()  # as a run of one process does, which has none
