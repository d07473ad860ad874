"""Every optimizer with every schedule against a loop in plain PyTorch; and what a test must leave as it was."""

from pydoc import locate

import pytest
import torch
from helpers.small import MEAN, STD, Batches, group_config, small_classifier, small_network, small_trainer
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler as torchs
from torch.testing import assert_close

from cifar_lightning.config.compose import conf_dir
from cifar_lightning.optim.build import OURS, build_optimizer

OPTIMIZERS = sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml"))
EPOCHS, STEPS = 4, 5


def onecycle(optimizer):
    cycles = not {"momentum", "betas"}.isdisjoint(optimizer.defaults)
    rates = [group["lr"] for group in optimizer.param_groups]
    return torchs.OneCycleLR(optimizer, rates, total_steps=EPOCHS * STEPS, cycle_momentum=cycles)


# What each file of conf/scheduler is over 20 steps. The plateau's patience of 4 epochs would outlast them.
SCHEDULES = {
    "none": ({}, lambda optimizer: torchs.ConstantLR(optimizer, factor=1)),
    "cosine": ({}, lambda optimizer: torchs.CosineAnnealingLR(optimizer, EPOCHS * STEPS)),
    "linear": ({}, lambda optimizer: torchs.LinearLR(optimizer, 1, 0, total_iters=EPOCHS * STEPS)),
    "multistep": ({}, lambda optimizer: torchs.MultiStepLR(optimizer, [10, 15])),
    "onecycle": ({}, onecycle),
    # 20 steps of 4 epochs: 5, then 10, then the start of a third cosine.
    "cosine_restarts": (
        {"first_epochs": 1},
        lambda optimizer: torchs.CosineAnnealingWarmRestarts(optimizer, T_0=STEPS, T_mult=2),
    ),
    "wsd": (
        {"decay": 0.5},
        lambda optimizer: torchs.SequentialLR(
            optimizer,
            [torchs.ConstantLR(optimizer, factor=1), torchs.LinearLR(optimizer, 1, 0, total_iters=10)],
            milestones=[10],
        ),
    ),
    "plateau": (
        {"monitor": "train/loss", "patience": 0, "threshold": 0.5},
        lambda optimizer: torchs.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5),
    ),
}


def optimizer_of(network, config):
    """As a person would make it; one of ours (tested on its own) as the package makes it."""
    if config["_target_"].startswith("cifar_lightning."):
        return build_optimizer(network, config)
    keys = {key: value for key, value in config.items() if key not in ("_target_", *OURS)}
    return locate(config["_target_"])(network.parameters(), **keys)


def plain_loop(network, optimizer, schedule, batches):
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    network.train()
    for _ in range(EPOCHS):
        total = 0.0
        for images, labels in batches:
            loss = cross_entropy(network((images / 255 - mean) / std), labels)
            total += loss.item() * len(images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not isinstance(schedule, torchs.ReduceLROnPlateau):
                schedule.step()
        if isinstance(schedule, torchs.ReduceLROnPlateau):
            schedule.step(total / len(batches.labels))


def test_every_schedule_has_a_reference():
    assert set(SCHEDULES) == {path.stem for path in (conf_dir() / "scheduler").glob("*.yaml")}


@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step")
@pytest.mark.parametrize(
    ("name", "scheduler"), [*((name, "none") for name in OPTIMIZERS), *(("sgd", scheduler) for scheduler in SCHEDULES)]
)
def test_20_steps_are_those_of_a_plain_loop(name, scheduler):
    keys, reference_schedule = SCHEDULES[scheduler]
    config = group_config("optimizer", name, lr=0.01)
    classifier = small_classifier(optimizer=config, scheduler=group_config("scheduler", scheduler, **keys))
    trainer = small_trainer(max_epochs=EPOCHS)
    trainer.fit(classifier, Batches())
    assert trainer.global_step == EPOCHS * STEPS

    network = small_network()
    optimizer = optimizer_of(network, config)
    plain_loop(network, optimizer, reference_schedule(optimizer), Batches())
    assert_close(classifier.network.state_dict(), network.state_dict(), rtol=1e-3, atol=2e-5)
    first = small_network().state_dict()
    assert all(not torch.equal(value, first[key]) for key, value in network.state_dict().items())


def test_a_test_and_a_validation_change_nothing():
    classifier = small_classifier(small_network(dropout=0.5))
    trainer = small_trainer(max_epochs=1)
    trainer.fit(classifier, Batches())
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    states = torch.get_rng_state()
    logits = []
    for _ in range(2):
        trainer.validate(classifier, Batches(seed=1), verbose=False)
        trainer.test(classifier, Batches(seed=1), verbose=False)
        logits.append(classifier.test_logits)
    assert torch.equal(*logits)
    assert torch.equal(torch.get_rng_state(), states)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_a_partial_last_batch_counts_by_its_images():
    classifier = small_classifier()
    data = Batches(n=33, batch_size=32)  # the last batch is of one image
    (tested,) = small_trainer().test(classifier, data, verbose=False)
    (validated,) = small_trainer().validate(classifier, data, verbose=False)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    right = (small_network().eval()((data.images / 255 - mean) / std).argmax(1) == data.labels).sum().item()
    assert tested["test/acc"] == pytest.approx(right / 33)
    assert validated["val/acc"] == pytest.approx(right / 33)
