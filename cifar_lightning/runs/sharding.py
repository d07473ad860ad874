"""`trainer.strategy=fsdp`: each process keeps its share of every weight, gradient and optimizer state.

By PyTorch's `fully_shard` (Zhao et al. 2023, "PyTorch FSDP"), which leaves parameters their names and shapes, so that
weight decay, groups and schedules mean what they mean elsewhere.
"""

from collections.abc import Iterator

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from omegaconf import DictConfig
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from cifar_lightning.errors import UserError


class FullySharded(ModelParallelStrategy):
    """Shards `network` of an ImageClassifier over all devices; its checkpoints are whole files, like anybody's."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def connect(self, model: L.LightningModule) -> None:
        super().connect(model)
        # Lightning calls it before it builds the optimizers, and insists on a module's own.
        model.configure_model = lambda: self._shard(model)  # type: ignore[method-assign]

    def on_validation_start(self) -> None:
        """Let all have the first process's running means, which are those that are saved; as ddp does."""
        assert self.model is not None
        for buffer in self.model.buffers():
            torch.distributed.broadcast(buffer, 0)

    def _shard(self, model: L.LightningModule) -> None:
        if self._layer_sync:  # trainer.sync_batchnorm
            model.network = self._layer_sync.apply(model.network)  # type: ignore[arg-type]
        shard(model.network, self.device_mesh["data_parallel"])  # type: ignore[arg-type]


def shard(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a network over the mesh, block by block; does nothing where that is done.

    A block's weights are put together when it is called and are given back after it.
    """
    if isinstance(network, FSDPModule):  # for the test that follows training
        return
    network.to(memory_format=torch.contiguous_format)  # fully_shard takes no other
    for block in blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    if hasattr(network, "weighted_heads"):
        register_fsdp_forward_method(network, "weighted_heads")


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The network's parts that have parameters and are called as a whole."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from blocks(child)
        elif next(child.parameters(), None) is not None:
            yield child


def check_shardable(config: DictConfig) -> None:
    """Raise UserError for what needs whole weights in one process."""
    if config.ema_decay is not None:
        raise UserError("trainer.strategy=fsdp keeps no average of weights: leave out ema_decay")
    if config.optimizer.get("_target_", "").endswith(".Muon"):
        raise UserError("trainer.strategy=fsdp has no whole filters, which optimizer=muon needs: choose another")
