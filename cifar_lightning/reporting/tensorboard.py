"""Add a run's layout, hyperparameters, images and graph to TensorBoard. `writer` writes to the run's own folder."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard._pytorch_graph import graph
from torch.utils.tensorboard.summary import hparams

from cifar_lightning.reporting import figures

log = logging.getLogger(__name__)


def add_layout(writer: SummaryWriter, wrong_labels: bool = False) -> None:
    """Declare the CUSTOM SCALARS page: training and validation share a chart. Tags are regular expressions."""
    charts = {
        "loss": ["Multiline", ["train/loss$", "val/loss$"]],
        "accuracy": ["Multiline", ["train/acc$", "val/acc$"]],
        "learning rate": ["Multiline", ["lr.*"]],
    }
    if wrong_labels:
        charts["right and wrong labels"] = ["Multiline", ["train/acc_clean$", "train/acc_flipped$", "train/memorized$"]]
    writer.add_custom_scalars({"training and validation": charts})


def add_hparams(
    writer: SummaryWriter, params: Mapping[str, Any], metrics: Mapping[str, float | None], step: int = 0
) -> None:
    """Show the run on the HPARAMS page, with its final metrics.

    params: plain values, nested or not ({"optimizer": {"lr": 0.1}} is shown as optimizer.lr).
    metrics: "val/acc" is shown as hp/val/acc, so that it is not a point of the curve of that name; None is left out.
    `SummaryWriter.add_hparams` would put them into a sub-run; and the list of columns that it writes for each run
    makes TensorBoard take the first run's columns for all. Without one it takes the union over the runs, and puts
    those that differ first.
    """
    for name, value in metrics.items():
        if value is not None:
            writer.add_scalar(name if name.startswith("hp/") else f"hp/{name}", value, step)
    _, start, end = hparams(dict(_flat(params)), {})
    file_writer = writer._get_file_writer()
    file_writer.add_summary(start)
    file_writer.add_summary(end)


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | str]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", value
        else:
            # None and booleans, too, as they are typed.
            yield f"{prefix}{key}", json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def add_figures(writer: SummaryWriter, named: Mapping[str, Figure], step: int = 0) -> None:
    """Show figures on the IMAGES page, together in one section: TensorBoard leaves only the first ones open."""
    for name, figure in named.items():
        writer.add_image(f"figures/{name}", figures.pixels(figure), step, dataformats="HWC")


def add_image_grid(
    writer: SummaryWriter, name: str, images: ArrayLike, captions: Sequence[str] = (), step: int = 0
) -> None:
    """Show uint8 images [N, 3, H, W] side by side on the IMAGES page."""
    add_figures(writer, {name: figures.image_grid(images, captions)}, step)


def add_graph(writer: SummaryWriter, network: nn.Module, example: Tensor, key: str | None = None) -> None:
    """Show the network's graph, traced in evaluation mode on `example` [N, C, H, W].

    Neither the network nor torch's random state is changed. A network that can't be traced costs a line in the log.
    key: networks with the same one are traced once in a process. torch never gives back what a tracing took (1.6 MB
    for a small network), which the jobs of a sweep would pile up.
    """
    traced = _graphs.get(key)
    if traced is None:
        traced = _traced(network, example)
        if key is not None and traced is not None:
            _graphs[key] = traced
    if traced is not None:
        writer._get_file_writer().add_graph(traced)


_graphs: dict[str | None, Any] = {}


def _traced(network: nn.Module, example: Tensor) -> Any:
    """TensorBoard's description of the graph, None where there is none."""
    modes = {module: module.training for module in network.modules()}
    compiled, network._compiled_call_impl = network._compiled_call_impl, None  # tracing needs the Python code
    devices = [example.device] if example.device.type == "cuda" else []
    try:
        network.eval()
        # torch prints a tracing error before it raises it, and calls its own way of tracing deprecated.
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            return graph(network, example, use_strict_trace=False)
    except Exception as error:
        log.warning("no graph for TensorBoard: %s", str(error).strip().partition("\n")[0])
        return None
    finally:
        network._compiled_call_impl = compiled
        for module, training in modes.items():
            module.training = training
