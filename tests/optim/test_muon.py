"""Muon against the singular value decomposition, its step against a plain loop, its SGD against torch's."""

import copy
import io

import pytest
import torch
from helpers.small import Batches, normalized, small_classifier, small_network, small_trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from cifar_lightning.optim.muon import Muon, orthogonalized

SHAPES = [(10, 30), (30, 10), (16, 16), (1, 5)]


def matrices(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_singular_values(matrix: Tensor, steps: int) -> Tensor:
    """What the iteration comes to: its polynomial on each singular value."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_iteration_acts_on_singular_values_alone(shape, steps):
    assert_close(orthogonalized(matrices(*shape), steps), by_singular_values(matrices(*shape), steps))


@pytest.mark.parametrize("shape", SHAPES)
def test_five_steps_come_near_the_polar_factor(shape):
    u, s, v = torch.linalg.svd(matrices(*shape), full_matrices=False)
    # Of values from 1/100 of the largest on, as the docstring has it.
    spread = u @ torch.diag(torch.logspace(0, -2, len(s), dtype=torch.float64)) @ v
    found = u.T @ orthogonalized(spread) @ v.T
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-9
    assert 0.67 < found.diagonal().min() <= found.diagonal().max() < 1.21


def test_a_stack_is_its_matrices_one_by_one():
    stack = matrices(4, 10, 30) * torch.tensor([1e-6, 1, 1e6, 0])[:, None, None]
    assert_close(orthogonalized(stack), torch.stack([orthogonalized(matrix) for matrix in stack]))
    assert orthogonalized(stack)[3].count_nonzero() == 0


def test_bfloat16_is_near_enough():
    matrix = matrices(20, 60).float()
    low = orthogonalized(matrix, dtype=torch.bfloat16)
    assert low.dtype == torch.float32
    error = low - orthogonalized(matrix)
    assert 0 < error.norm() < 0.05 * low.norm()


def network_with_gradients(seed=0):
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 8, 3)
    network = nn.Sequential(conv, nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 10)).double()
    network[1].to(memory_format=torch.channels_last)  # the order of a filter's weights in memory makes no difference
    return network


def train(network, optimizer, steps=4):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        images = torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64)
        cross_entropy(network(images), torch.arange(6)).backward()
        optimizer.step()


class PlainLoop:
    """Muon's step for one parameter after the other, by its definition; SGD is torch's."""

    def __init__(self, network, keys, sgd):
        self.keys, self.momenta = keys, {}
        self.weights = [p for p in network.parameters() if p.ndim > 1]
        self.sgd = torch.optim.SGD([p for p in network.parameters() if p.ndim < 2], **sgd)

    def zero_grad(self):
        for p in self.weights:
            p.grad = None
        self.sgd.zero_grad()

    @torch.no_grad()
    def step(self):
        lr, momentum, nesterov, decay, steps, rescale = self.keys.values()
        for p in self.weights:
            velocity = momentum * self.momenta.get(p, 0) + p.grad
            self.momenta[p] = velocity
            update = p.grad + momentum * velocity if nesterov else velocity
            weight = p * (1 - lr * decay)
            if rescale:
                weight = weight * p.shape[0] ** 0.5 / weight.norm()
            matrix = update.contiguous().view(p.shape[0], -1)
            rows, columns = matrix.shape
            scale = max(1, rows / columns) ** 0.5
            p.copy_(weight - lr * scale * by_singular_values(matrix, steps).view(p.shape))
        self.sgd.step()


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("rescale", "decay", "steps"), [(False, 0.0, 5), (True, 0.0, 3), (False, 0.3, 5)])
def test_a_step_is_the_definition_for_each_parameter(nesterov, rescale, decay, steps):
    keys = {"lr": 0.1, "momentum": 0.6, "nesterov": nesterov, "weight_decay": decay, "ns_steps": steps}
    keys["rescale"] = rescale
    sgd = {"lr": 0.05, "momentum": 0.85, "nesterov": nesterov, "weight_decay": 0.02}
    ours, reference = network_with_gradients(), network_with_gradients()
    train(ours, Muon(ours.parameters(), **keys, sgd_lr=0.05, sgd_momentum=0.85, sgd_weight_decay=0.02))
    train(reference, PlainLoop(reference, keys, sgd))
    assert_close(ours.state_dict(), reference.state_dict())


def test_a_part_may_be_left_to_sgd_with_a_learning_rate_of_its_own():
    ours, reference = network_with_gradients(), network_with_gradients()
    head = {"params": ours[4].weight, "muon": False, "lr": 0.3, "momentum": 0.5}
    rest = {"params": [p for p in ours.parameters() if p is not ours[4].weight], "lr": 0.01}
    train(ours, Muon([rest, head], sgd_momentum=0.9))
    keys = {"lr": 0.01, "momentum": 0.95, "nesterov": True, "weight_decay": 0.0, "ns_steps": 5, "rescale": False}
    plain = PlainLoop(reference, keys, {"lr": 0.01, "momentum": 0.9, "nesterov": True})
    plain.weights = [p for p in plain.weights if p is not reference[4].weight]
    plain.sgd.add_param_group({"params": reference[4].weight, "lr": 0.3, "momentum": 0.5})
    train(reference, plain)
    assert_close(ours.state_dict(), reference.state_dict())


def test_it_goes_on_from_its_saved_state_bit_for_bit():
    whole = network_with_gradients()
    optimizer = Muon(whole.parameters(), lr=0.05)
    train(whole, optimizer)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = copy.deepcopy(whole)
    resumed = Muon(again.parameters(), lr=0.9, momentum=0.1, sgd_lr=0.9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(whole, optimizer)
    train(again, resumed)
    for ours, theirs in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_parameters_without_gradients_stay_as_they_are():
    network = network_with_gradients()
    network[1].requires_grad_(False)
    before = copy.deepcopy(network[1].state_dict())
    train(network, Muon(network.parameters(), rescale=True, weight_decay=0.1))
    assert_close(network[1].state_dict(), before, rtol=0, atol=0)


def test_a_closure_is_evaluated_with_gradients():
    network = nn.Linear(3, 2)
    optimizer = Muon(network.parameters())

    def closure():
        optimizer.zero_grad()
        loss = network(torch.ones(1, 3)).square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lr": -0.1}, "lr=-0.1"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"weight_decay": -1}, "weight_decay=-1"),
        ({"ns_steps": 0}, "ns_steps=0"),
        ({"sgd_lr": -0.1}, "lr=-0.1"),
        ({"sgd_momentum": -0.5}, "momentum=-0.5"),
    ],
)
def test_values_out_of_range_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Muon(network_with_gradients().parameters(), **keys)


def test_vectors_are_refused_where_muon_is_asked_for():
    with pytest.raises(ValueError, match="muon=False"):
        Muon([{"params": nn.Linear(2, 2).parameters(), "muon": True}])


def test_the_trainer_takes_its_steps():
    keys = {"_target_": "cifar_lightning.optim.muon.Muon", "lr": 0.05}
    classifier, reference = small_classifier(optimizer=keys), small_network()
    small_trainer(max_epochs=1).fit(classifier, Batches())
    optimizer = Muon(reference.parameters(), lr=0.05)
    for images, labels in Batches():
        optimizer.zero_grad()
        cross_entropy(reference(normalized(images)), labels).backward()
        optimizer.step()
    assert_close(classifier.network.state_dict(), reference.state_dict(), rtol=1e-3, atol=1e-4)
