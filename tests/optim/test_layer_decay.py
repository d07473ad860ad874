"""Layer-wise learning rates, against those that timm gives to a network whose layers are described to it."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from helpers.model_configs import MODELS, NARROW, build
from helpers.small import SGD, Batches, group_config, small_classifier, small_network, small_trainer
from timm.optim import param_groups_layer_decay
from torch import nn

from cifar_lightning.errors import UserError
from cifar_lightning.models.torchvision_zoo import TorchvisionClassifier
from cifar_lightning.optim.build import build_optimizer

SAME = (99999,)  # timm: with the group before
MATCHERS = {
    "resnet": {"stem": "^stem", "blocks": r"^blocks\.(\d+)"},
    "preact_resnet": {"stem": "^stem", "blocks": [(r"^blocks\.([0-2])\.", None), (r"^blocks\.3\.", SAME)]},
    "wide_resnet": {"stem": r"^features\.0\.", "blocks": [(r"^features\.([1-3])\.", None), (r"^features\.4\.", SAME)]},
    "densenet": {"blocks": [(r"^features\.([0-8])\.", None), (r"^features\.9\.", SAME)]},
    "convmixer": {"stem": "^stem", "blocks": r"^mixers\.(\d+)"},
    "alexnet": {"blocks": r"^features\.(\d)", "hidden": [(r"^classifier\.2\.", None), (r"^classifier\.3\.", SAME)]},
    "vit": {
        "stem": "^patches|^positions",
        "blocks": [(r"^encoder\.[01]\.", (0,)), (r"^encoder\.[23]\.", (1,)), ("^norm", SAME)],
    },
    "vgg": {"blocks": [(rf"^features\.(?:{conv}|{conv + 1})\.", (conv,)) for conv in (0, 4, 8, 11, 15, 18, 22, 25)]},
}
ADAMW = {"_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.05, "decay_norms_and_biases": False}


def settings(network, groups):
    """(learning rate, weight decay) by the parameter's name."""
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    return {name: found[id(p)] for name, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", [*MATCHERS])
def test_the_rates_are_timms(name):
    network = build(name, **NARROW.get(name, {}))
    network.group_matcher = lambda coarse: MATCHERS[name]
    groups = param_groups_layer_decay(network, weight_decay=0.05, layer_decay=0.75)
    theirs = settings(network, [{**group, "lr": 1e-3 * group["lr_scale"]} for group in groups])
    ours = settings(network, build_optimizer(network, ADAMW | {"layer_decay": 0.75}).param_groups)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert ours[key] == pytest.approx(theirs[key], rel=1e-12), key
    assert len(set(ours.values())) > 4


@pytest.mark.parametrize("name", [*sorted({*MODELS} - {"torchvision"}), "resnet18 of torchvision", "densenet121",
                                  "efficientnet_b0", "googlenet", "swin_t", "mnasnet0_5"])  # fmt: skip
def test_layers_are_in_the_order_in_which_they_run(name):
    theirs = name not in MODELS
    network = TorchvisionClassifier(name=name.split()[0]) if theirs else build(name, **NARROW.get(name, {}))
    layers = network.layers()
    assert sorted(id(p) for layer in layers for p in layer) == sorted(map(id, network.parameters()))
    layer_of = {id(p): n for n, layer in enumerate(layers) for p in layer}
    ran = []
    for module in network.modules():
        if own := [layer_of[id(p)] for p in module.parameters(recurse=False)]:
            module.register_forward_pre_hook(lambda m, inputs, own=own: ran.append(own[0]))
    network.eval()(torch.randn(1, 3, 32, 32))
    assert ran == sorted(ran)
    assert set(ran) == set(range(len(layers)))


def test_the_first_group_has_the_whole_rate():
    # The one whose learning rate history.csv has.
    optimizer = build_optimizer(small_network(), SGD | {"layer_decay": 0.5})
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.025]


@pytest.mark.parametrize("choice", ["sgd", "adamw", "muon"])
def test_a_share_of_one_changes_nothing(choice):
    trained = []
    for decay in (None, 1.0):
        classifier = small_classifier(optimizer=group_config("optimizer", choice, lr=0.01, layer_decay=decay))
        small_trainer(max_epochs=1).fit(classifier, Batches())
        trained.append(classifier.network.state_dict())
    torch.testing.assert_close(*trained)


def test_a_group_with_a_rate_of_its_own_keeps_it():
    network = build("resnet")
    groups = {"stem": {"lr": 0.3}, "blocks": {"weight_decay": 0.2}}
    config = {**ADAMW, "lr": 0.1, "layer_decay": 0.5, "groups": groups}
    found = settings(network, build_optimizer(network, config).param_groups)
    assert found["stem.0.weight"] == (0.3, 0.05)
    assert found["blocks.5.residual.0.weight"] == (0.05, 0.2)
    assert found["blocks.0.residual.0.weight"] == (0.1 * 0.5**6, 0.2)
    assert found["head.2.weight"] == (0.1, 0.05)
    assert found["head.2.bias"] == (0.1, 0.0)


def test_a_schedule_keeps_the_shares():
    rates = []
    classifier = small_classifier(
        optimizer=SGD | {"layer_decay": 0.5}, scheduler={"_target_": "cifar_lightning.optim.schedules.onecycle"}
    )
    classifier.on_train_batch_end = lambda *_: rates.append(
        [group["lr"] for group in classifier.trainer.optimizers[0].param_groups]
    )
    small_trainer(max_epochs=2).fit(classifier, Batches())
    assert len({whole for whole, _ in rates}) == len(rates)
    assert all(half == pytest.approx(whole / 2) for whole, half in rates)


class Backwards(nn.Module):
    def __init__(self, layers=None):
        super().__init__()
        self.head, self.stem = nn.Linear(4, 2), nn.Linear(4, 4)
        if layers:
            self.layers = lambda: layers(self)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Backwards(), r"optimizer\.layer_decay=0\.5 can't be used with Backwards, which has no order of layers: give"),
        (
            Backwards(lambda self: [[*self.head.parameters()], [self.stem.weight]]),
            r"layer_decay=0\.5 can't be used with Backwards: its method `layers` leaves out stem\.bias",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), r"can't be used with Sequential: it has one layer only"),
    ],
)
def test_without_an_order_it_is_refused(network, message):
    with pytest.raises(UserError, match=message):
        build_optimizer(network, SGD | {"layer_decay": 0.5})


def test_a_network_of_ones_own_says_its_order():
    network = Backwards(lambda self: [[*self.stem.parameters()], [*self.head.parameters()]])
    found = settings(network, build_optimizer(network, ADAMW | {"layer_decay": 0.5}).param_groups)
    assert [found["stem.weight"], found["head.weight"]] == [(5e-4, 0.05), (1e-3, 0.05)]


OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.linear = nn.Linear(64, num_classes)
    def forward(self, images):
        return self.linear(images.flatten(1))
"""


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model._target_=my_net.Net", "error: optimizer.layer_decay=0.75 can't be used with Net, which has no order"),
        ("optimizer.layer_decay=0", "error: optimizer.layer_decay=0: must be a share of the next layer's learning"),
        ("optimizer.layer_decay=1.5", "error: optimizer.layer_decay=1.5: must be a share"),
    ],
)
def test_the_command_refuses_it_in_one_line(command, monkeypatch, typed, message):
    (command.folder / "my_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(command.folder))
    outcome = command("data=digits", "trainer.max_epochs=1", "optimizer.layer_decay=0.75", typed)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert outcome.err.startswith(message)
    assert not list(command.folder.rglob("config.yaml"))


def test_a_run_can_use_it_and_a_resumed_one_not_change_it(command):
    small = ["data=digits", "model=vit", "model.depth=1", "trainer.limit_train_batches=2", "logger=none"]
    first = command(*small, "optimizer.layer_decay=0.75", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert first.code == 0, first.err
    changed = command("ckpt_path=run", "optimizer.layer_decay=0.5", "trainer.max_epochs=2")
    assert changed.code == 1
    assert "optimizer.layer_decay=0.5: the checkpoint's run has 0.75" in changed.err
    assert command("ckpt_path=run", "trainer.max_epochs=2").code == 0


def test_the_network_in_the_docs_has_an_order(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "finetune.md").read_text(encoding="utf-8")
    (tmp_path / "my_net.py").write_text(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0])
    monkeypatch.syspath_prepend(tmp_path)
    network = import_module("my_net").Net()
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    found = settings(network, build_optimizer(network, ADAMW | {"layer_decay": 0.5}).param_groups)
    assert {name: rate for name, (rate, _) in found.items()} == {
        "stem.weight": 2.5e-4, "stem.bias": 2.5e-4, "body.0.weight": 5e-4, "body.0.bias": 5e-4, "body.2.weight": 5e-4,
        "body.2.bias": 5e-4, "head.weight": 1e-3, "head.bias": 1e-3,
    }  # fmt: skip
