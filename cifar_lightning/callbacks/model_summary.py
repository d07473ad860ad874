"""Print a table of the network's layers at the start of training: shapes, parameters, multiply-adds."""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich import get_console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.reporting.tables import Row, rich_table


class ModelSummary(Callback):
    """Prints the table once. max_depth: levels of nested layers to show, -1 for all."""

    may_miss_steps = True

    def __init__(self, max_depth: int = 3) -> None:
        self.max_depth = max_depth

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        network, example = getattr(pl_module, "network", pl_module), pl_module.example_input_array
        if trainer.is_global_zero and trainer.global_step == 0 and not hasattr(network, "unshard"):
            image = example[:1].to(pl_module.device) if isinstance(example, Tensor) else None
            get_console().print(rich_table(layer_rows(pl_module, network, image, self.max_depth)))


def layer_rows(module: Any, network: nn.Module, image: Tensor | None, max_depth: int = -1) -> list[Row]:
    """A row for each layer down to `max_depth`, and one for the whole network.

    image: one image [1, C, H, W] for `module.normalized`; without it shapes and multiply-adds are left out.
    """
    shapes, multiply_adds = ({}, {}) if image is None else traced(network, module.normalized(image))
    rows = []
    for name, layer in network.named_modules():
        if max_depth != -1 and name.count(".") + bool(name) > max_depth:
            continue
        row = {"layer": name or "the network", "type": type(layer).__name__}
        if image is not None:
            row["output"] = " x ".join(map(str, shapes.get(name, ())))
        row["parameters"] = f"{sum(p.numel() for p in layer.parameters()):,}"
        if image is not None:
            row["multiply-adds"] = f"{multiply_adds.get(name, 0):,}"
        rows.append(row)
    return [*rows[1:], rows[0]]


@torch.no_grad()
def traced(network: nn.Module, image: Tensor) -> tuple[dict[str, tuple[int, ...]], Mapping[str, int]]:
    """The shape of each layer's output (without the batch) and its multiply-adds, for one normalized image."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape[1:])

        return hook

    handles = [layer.register_forward_hook(note(name)) for name, layer in network.named_modules()]
    training = [(layer, layer.training) for layer in network.modules()]
    try:
        with FlopCounterMode(display=False) as counter:
            network.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
        for layer, mode in training:
            layer.training = mode
    root = type(network).__name__
    counts = {name: sum(by_operator.values()) // 2 for name, by_operator in counter.get_flop_counts().items()}
    return shapes, {
        name.removeprefix(root).removeprefix("."): count for name, count in counts.items() if name != "Global"
    }
