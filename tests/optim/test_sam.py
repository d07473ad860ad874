import pytest
import pytorch_optimizer
import torch
from helpers.small import SGD, Batches, normalized, small_classifier, small_network, small_trainer
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

RHO = 0.3


def loss_of(network, images, labels):
    return cross_entropy(network(normalized(images)), labels)


def keep_statistics(network):
    """What the reference leaves to the caller: batch norm sees each batch once."""
    norm = network[1]
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    return lambda: [buffer.copy_(before[name]) for name, buffer in norm.named_buffers()]


def test_a_run_with_sam_is_a_loop_with_the_sam_of_pytorch_optimizer():
    classifier = small_classifier(optimizer={**SGD, "sam_rho": RHO})
    small_trainer().fit(classifier, Batches())
    network = small_network()
    sam = pytorch_optimizer.SAM(network.parameters(), torch.optim.SGD, rho=RHO, lr=0.05, momentum=0.9)
    for _ in range(4):
        for images, labels in Batches():
            loss_of(network, images, labels).backward()
            restore = keep_statistics(network)
            sam.first_step(zero_grad=True)
            loss_of(network, images, labels).backward()
            restore()
            sam.second_step(zero_grad=True)
    assert_close(classifier.network.state_dict(), network.state_dict(), rtol=1e-4, atol=1e-5)


def test_a_step_with_asam_is_its_papers():
    """Equation 8 of Kwon et al. 2021, with the authors' 0.01 and unscaled biases, written out for one vector."""
    classifier = small_classifier(optimizer={**SGD, "sam_rho": RHO, "sam_adaptive": True})
    network = small_network()
    data = Batches(n=8)
    small_trainer(max_epochs=1).fit(classifier, data)
    named = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss_of(network, data.images, data.labels), list(named.values()))
    size = torch.cat([
        (torch.ones_like(p) if name.endswith("bias") else p.abs() + 0.01).flatten() for name, p in named.items()
    ]).detach()  # fmt: skip
    gradient = torch.cat([g.flatten() for g in gradients])
    move = RHO * size**2 * gradient / torch.linalg.vector_norm(size * gradient)
    before = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    torch.nn.utils.vector_to_parameters(before + move, network.parameters())
    uphill = torch.autograd.grad(loss_of(network, data.images, data.labels), list(network.parameters()))
    expected = before - 0.05 * torch.cat([g.flatten() for g in uphill])  # momentum is 0 in the first step
    assert_close(torch.cat([p.detach().flatten() for p in classifier.network.parameters()]), expected)


def test_batch_norm_counts_each_batch_once():
    classifier = small_classifier(optimizer={**SGD, "sam_rho": RHO})
    small_trainer(max_epochs=1).fit(classifier, Batches())
    assert classifier.network[1].num_batches_tracked == len(Batches())


@pytest.mark.parametrize("accumulated", [1, 3])
def test_weights_are_where_they_were_when_the_optimizer_steps(accumulated):
    classifier = small_classifier(optimizer={"_target_": "torch.optim.SGD", "lr": 1e-30, "sam_rho": RHO})
    before = {name: p.detach().clone() for name, p in classifier.network.named_parameters()}
    small_trainer(max_epochs=1, accumulate_grad_batches=accumulated).fit(classifier, Batches())
    assert all((p - before[name]).abs().max() < 1e-20 for name, p in classifier.network.named_parameters())
