import inspect
from pydoc import locate

import pytest
import torch
from helpers.small import CONSTANT, Batches, group_config, normalized, small_classifier, small_network, small_trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from cifar_lightning.config.compose import conf_dir
from cifar_lightning.errors import UserError
from cifar_lightning.optim.build import OURS, build_optimizer

CHOICES = sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml"))
# Not for a network's parameters as they are: 2-D only, sparse gradients only, a closure evaluated many times a step.
TORCH = sorted(
    {n for n, o in vars(torch.optim).items() if inspect.isclass(o)} - {"Optimizer", "Muon", "SparseAdam", "LBFGS"}
)


def plain_loop(network, optimizer, batches, epochs=4, on_step=lambda: None):
    """What Trainer.fit should come to, as a person would write it."""
    network.train()
    for _ in range(epochs):
        for images, labels in batches:
            loss = cross_entropy(network(normalized(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            on_step()
            optimizer.step()


def fit_20_steps(optimizer, **keys):
    classifier = small_classifier(optimizer=optimizer)
    small_trainer(**keys).fit(classifier, Batches())
    return classifier


def assert_same_weights(network, expected):
    for (name, value), (_, other) in zip(network.state_dict().items(), expected.state_dict().items(), strict=True):
        assert_close(value, other, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("name", CHOICES)
def test_training_equals_a_plain_loop(name):
    config = group_config("optimizer", name, lr=0.01)
    classifier = fit_20_steps(config)
    reference = small_network()
    keys = {key: value for key, value in config.items() if key not in ("_target_", *OURS)}
    plain_loop(reference, locate(config["_target_"])(reference.parameters(), **keys), Batches())
    assert_same_weights(classifier.network, reference)


@pytest.mark.parametrize("name", CHOICES)
def test_without_decay_norms_and_biases_decay_only_by_their_gradients(name):
    config = group_config("optimizer", name, decay_norms_and_biases=False)
    network = small_network()
    optimizer = build_optimizer(network, config | {"weight_decay": 0.1})
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in network.named_parameters()} == {
        "0.weight": 0.1,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "5.weight": 0.1,
        "5.bias": 0.0,
    }


def settings_by_name(network, optimizer, key):
    found = {id(p): group.get(key) for group in optimizer.param_groups for p in group["params"]}
    return {name: found[id(p)] for name, p in network.named_parameters()}


@pytest.mark.parametrize("decay_norms_and_biases", [True, False])
def test_a_part_of_the_network_may_have_settings_of_its_own(decay_norms_and_biases):
    network = small_network()
    config = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.2}
    config |= {"decay_norms_and_biases": decay_norms_and_biases}
    own = {"5": {"lr": 0.5}, "5.bias": {"weight_decay": 0.3, "epochs": 2}, "1": {"momentum": 0.5}}
    optimizer = build_optimizer(network, config | {"groups": own})
    norm = 0.2 if decay_norms_and_biases else 0.0
    assert settings_by_name(network, optimizer, "lr") == {
        "0.weight": 0.1, "1.weight": 0.1, "1.bias": 0.1, "5.weight": 0.5, "5.bias": 0.1
    }  # fmt: skip
    assert settings_by_name(network, optimizer, "weight_decay") == {
        "0.weight": 0.2, "1.weight": norm, "1.bias": norm, "5.weight": 0.2, "5.bias": 0.3
    }  # fmt: skip
    assert settings_by_name(network, optimizer, "momentum")["1.weight"] == 0.5
    assert settings_by_name(network, optimizer, "epochs")["5.bias"] == 2


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"hed": {"lr": 1.0}}, r"optimizer\.groups\.hed: .* choose from 0, 1, 5"),
        ({"5": 3}, r"groups\.5=3: give settings"),
        ({"5": {"lrr": 1.0}}, r"groups\.5\.lrr: .*lr, momentum"),
    ],
)
def test_a_part_that_is_not_there_or_says_nothing_is_refused(own, message):
    with pytest.raises(UserError, match=message):
        build_optimizer(small_network(), {"_target_": "torch.optim.SGD", "lr": 0.1, "groups": own})


@pytest.mark.parametrize("name", TORCH)
def test_any_optimizer_of_torch_by_its_name(name):
    config = group_config("optimizer", "torch", name=name, lr=1e-3, decay_norms_and_biases=False)
    network, reference = small_network(), small_network()
    batches = Batches()
    optimizer = build_optimizer(network, config)
    assert type(optimizer) is getattr(torch.optim, name)
    groups = [{"params": [p for p in reference.parameters() if p.ndim > 1]}]
    groups.append({"params": [p for p in reference.parameters() if p.ndim == 1], "weight_decay": 0.0})
    plain_loop(network, optimizer, batches, epochs=1)
    plain_loop(reference, getattr(torch.optim, name)(groups, lr=1e-3), batches, epochs=1)
    assert_same_weights(network, reference)


def test_decay_shrinks_weights_but_not_what_is_excepted():
    network = small_network()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    config = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.5, "decay_norms_and_biases": False}
    optimizer = build_optimizer(network, config)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        assert_close(parameter.detach(), before[name] * (0.95 if parameter.ndim > 1 else 1.0))


def test_frozen_parameters_are_left_out_and_unchanged():
    network = small_network()
    network[0].requires_grad_(False)
    frozen = network[0].weight.clone()
    classifier = small_classifier(network)
    small_trainer(max_epochs=1).fit(classifier, Batches())
    assert torch.equal(network[0].weight, frozen)
    trained = [p for group in classifier.optimizers().optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in network.parameters() if p.requires_grad}


def test_nothing_left_to_train_is_refused():
    with pytest.raises(UserError, match=r"model\.freeze"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), {"_target_": "torch.optim.SGD", "lr": 0.1})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_target_": "torch.optim.SGD", "lr": -1.0}, "Invalid learning rate: -1"),
        ({"_target_": "torch.optim.SGD", "lr": 0.1, "lrr": 1}, "lrr"),
        ({"_target_": "torch.optim.Muon", "lr": 0.1}, "matrices only; use optimizer=muon"),
        ({"_target_": "torch.optim.Adamm", "lr": 0.1}, "Adamm"),
    ],
)
def test_a_wrong_value_or_name_is_a_sentence(config, message):
    with pytest.raises(UserError, match=message):
        build_optimizer(small_network(), config)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_one_fused_kernel_unless_the_person_says_otherwise(name):
    def is_fused(**keys):
        return build_optimizer(small_network(), {"_target_": f"torch.optim.{name}", "lr": 0.1, **keys}).defaults[
            "fused"
        ]

    assert is_fused()
    assert is_fused(fused=None)
    assert is_fused(fused=False) is False
    assert not is_fused(foreach=True)


def test_gradients_are_clipped_before_the_step():
    keys = {"_target_": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9}
    clipped = fit_20_steps(keys, gradient_clip_val=0.3)
    reference = small_network()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    norms = []
    clip = lambda: norms.append(nn.utils.clip_grad_norm_(reference.parameters(), 0.3))  # noqa: E731
    plain_loop(reference, optimizer, Batches(), on_step=clip)
    assert min(norms) > 0.3
    assert_same_weights(clipped.network, reference)


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_scaled_16_bit_gradients_are_unscaled_once(name, clip):
    config = {"_target_": f"torch.optim.{name}", "lr": 0.01}
    # As the Trainer does for precision=16-mixed on a GPU; on a CPU it would take bfloat16, which needs no scaling.
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    classifier = fit_20_steps(config, plugins=[half], gradient_clip_val=clip)
    full = fit_20_steps(config, gradient_clip_val=clip)
    change = small_network()[5].weight - full.network[5].weight
    error = classifier.network[5].weight - full.network[5].weight
    assert error.norm() < 0.1 * change.norm()


def test_accumulated_batches_are_one_step_with_their_mean_gradient():
    classifier = small_classifier(nn.Sequential(nn.Flatten(), small_linear()), scheduler=CONSTANT)
    small_trainer(accumulate_grad_batches=2).fit(classifier, Batches(n=32, batch_size=8))
    doubled = small_classifier(nn.Sequential(nn.Flatten(), small_linear()), scheduler=CONSTANT)
    small_trainer().fit(doubled, Batches(n=32, batch_size=16))
    assert_same_weights(classifier.network, doubled.network)


def small_linear():
    torch.manual_seed(0)
    return nn.Linear(192, 10)
