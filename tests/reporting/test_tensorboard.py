import io
import logging
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from cifar_lightning.reporting import figures, tensorboard


@pytest.fixture
def writer(tmp_path):
    with SummaryWriter(tmp_path) as result:
        yield result


def read_back(writer):
    writer.close()
    accumulator = EventAccumulator(str(writer.log_dir))
    return accumulator.Reload()


def test_layout_puts_training_and_validation_into_one_chart(writer):
    tensorboard.add_layout(writer)
    (event,) = read_back(writer).Tensors("custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts["loss"] == ["train/loss$", "val/loss$"]  # with no $, train/loss_step would be drawn too
    assert charts["accuracy"] == ["train/acc$", "val/acc$"]
    assert "learning rate" in charts


def test_hparams_lie_in_the_runs_own_folder_with_their_metrics(writer, tmp_path):
    writer.add_scalar("val/acc", 0.5, 10)
    tensorboard.add_hparams(
        writer,
        {"seed": 3, "compile": True, "experiment": None, "optimizer": {"lr": 0.1, "name": "sgd"}, "betas": [0.9, 0.99]},
        {"val/acc": 0.875, "hp/seconds": 12.5, "test/acc": None},
    )
    events = read_back(writer)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    metadata = {tag: events.SummaryMetadata(tag).plugin_data.content for tag in events.PluginTagToContent("hparams")}
    start = parse_session_start_info_plugin_data(metadata["_hparams_/session_start_info"])
    shown = {name: value.string_value or value.number_value for name, value in start.hparams.items()}
    assert shown == {
        "seed": 3, "compile": "true", "experiment": "null", "optimizer.lr": 0.1, "optimizer.name": "sgd",
        "betas": "[0.9, 0.99]",
    }  # fmt: skip
    assert "_hparams_/session_end_info" in metadata
    # With it, TensorBoard would show the first run's columns for every run.
    assert "_hparams_/experiment" not in metadata
    assert events.Scalars("hp/val/acc")[0].value == 0.875
    assert events.Scalars("hp/seconds")[0].value == 12.5
    assert [event.step for event in events.Scalars("val/acc")] == [10]
    assert not any("test" in tag for tag in events.Tags()["scalars"])


def test_figures_arrive_pixel_by_pixel(writer):
    tensorboard.add_figures(writer, {"curves": figures.message("hello")}, step=7)
    (image,) = read_back(writer).Images("figures/curves")
    assert image.step == 7
    assert_array_equal(
        np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), figures.pixels(figures.message("hello"))
    )


def test_image_grid_shows_the_images(writer):
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    tensorboard.add_image_grid(writer, "samples", images, list("abcde"))
    (image,) = read_back(writer).Images("figures/samples")
    expected = figures.pixels(figures.image_grid(images, list("abcde")))
    assert_array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), expected)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.frozen = nn.BatchNorm2d(4).eval()
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        return self.head(self.frozen(self.stem(images)).mean((2, 3)))


@pytest.mark.parametrize("compiled", [False, True])
def test_graph_shows_the_layers_and_disturbs_nothing(writer, compiled):
    network = Network().train()
    network.frozen.eval()
    if compiled:
        network.compile(backend="eager")
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    compiled_call = network._compiled_call_impl
    random_state = torch.get_rng_state()

    tensorboard.add_graph(writer, network, torch.rand(2, 3, 8, 8, generator=torch.Generator()))

    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert network._compiled_call_impl is compiled_call
    nodes = [node.name for node in GraphDef.FromString(read_back(writer)._graph).node]
    for layer in ("Conv2d[0]", "BatchNorm2d[1]", "BatchNorm2d[frozen]", "Linear[head]"):
        assert any(layer in name for name in nodes)


def test_the_graph_of_a_known_network_is_shown_without_tracing_it_again(tmp_path):
    for name, network in (("first", Network()), ("second", Untraceable())):
        with SummaryWriter(tmp_path / name) as writer:
            tensorboard.add_graph(writer, network, torch.rand(2, 3, 8, 8), key="test: the same network")
    first, second = (EventAccumulator(str(tmp_path / name)).Reload() for name in ("first", "second"))
    assert second.Graph() == first.Graph()
    assert len(first.Graph().node) > 3


class Untraceable(Network):
    def forward(self, images):
        raise RuntimeError("this network can't be traced\nand here come forty lines")


def test_a_network_without_a_graph_costs_one_line_in_the_log(writer, caplog, capsys):
    network = Untraceable()
    with caplog.at_level(logging.INFO), warnings.catch_warnings(action="error"):
        tensorboard.add_graph(writer, network, torch.rand(2, 3, 8, 8))
    assert caplog.messages == ["no graph for TensorBoard: this network can't be traced"]
    assert capsys.readouterr().out == ""
    assert network.training
    assert not read_back(writer).Tags()["graph"]
