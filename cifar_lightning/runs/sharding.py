"""Shard weights, gradients and optimizer state over processes: `trainer.strategy=fsdp`.

Uses PyTorch's `fully_shard` (Zhao et al. 2023, "PyTorch FSDP"), which keeps names and shapes of parameters, so that
weight decay, parameter groups and schedules work as without it.
"""

from collections.abc import Iterator

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method


class FullySharded(ModelParallelStrategy):
    """Shards the `network` of an ImageClassifier over all devices; checkpoints are ordinary, unsharded files."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def connect(self, model: L.LightningModule) -> None:
        super().connect(model)
        # Lightning calls it before it builds the optimizers, and requires the module to have its own.
        model.configure_model = lambda: self._shard(model)  # type: ignore[method-assign]

    def on_validation_start(self) -> None:
        """Broadcast buffers (running means) from rank 0, whose are saved; DDP does the same."""
        assert self.model is not None
        for buffer in self.model.buffers():
            torch.distributed.broadcast(buffer, 0)

    def _shard(self, model: L.LightningModule) -> None:
        if self._layer_sync:  # trainer.sync_batchnorm
            model.network = self._layer_sync.apply(model.network)  # type: ignore[arg-type]
        shard(model.network, self.device_mesh["data_parallel"])  # type: ignore[arg-type]


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a network over the mesh, block by block: a block's weights are gathered only while it runs."""
    if isinstance(network, FSDPModule):  # already sharded, by the training before this test
        return
    network.to(memory_format=torch.contiguous_format)  # the only format that fully_shard accepts
    for block in blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    if hasattr(network, "weighted_heads"):
        register_fsdp_forward_method(network, "weighted_heads")


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """Children with parameters; those of a ModuleList or ModuleDict, which have no forward, one by one."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from blocks(child)
        elif next(child.parameters(), None) is not None:
            yield child
