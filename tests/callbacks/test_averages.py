"""What is validated, saved and tested is the average, and the training does not notice."""

import lightning as L
import pytest
import torch
from helpers.records import assert_identical, checkpoint
from helpers.small import SGD, Batches, group_config, normalized, small_classifier, small_network, small_trainer
from lightning.pytorch.callbacks import Callback
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.testing import assert_close

from cifar_lightning.callbacks.averages import OptimizersAverage, StochasticAverage, exponential_average
from cifar_lightning.data.loader import Split
from cifar_lightning.reporting.files import read_csv, read_json

STEPS, EPOCHS = 5, 4
SCHEDULE_FREE = group_config("optimizer", "extra", name="ScheduleFreeSGD", lr=0.05)


class Weights(Callback):
    """The trained weights after each step, and those that are validated."""

    def __init__(self):
        self.trained, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append({name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()})

    def on_validation_start(self, trainer, pl_module):  # before the average takes their place
        self.trained[-1] = {name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()}

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append({name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()})


class Data(L.LightningDataModule):
    """The same batches in every epoch; batch norm's statistics are computed from `augmented_examples`."""

    batch_size = 8

    def __init__(self):
        super().__init__()
        batches = Batches()
        self.train = Split(batches.images, batches.labels)

    def train_dataloader(self):
        return Batches()

    def val_dataloader(self):
        return Batches(seed=1)

    def augmented_examples(self, n):
        return self.train.images[:n], self.train.labels[:n]


def trained(average, optimizer=SGD):
    weights = Weights()
    classifier = small_classifier(optimizer=optimizer)
    trainer = small_trainer(callbacks=[weights, *([average] if average else [])], num_sanity_val_steps=0)
    trainer.fit(classifier, datamodule=Data())
    return weights, classifier.network.state_dict()


def parameters(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith("1.running") and "num_" not in name}


def mean(states):
    return {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}


def test_a_stochastic_average_is_the_mean_of_the_epochs_ends_with_statistics_of_its_own():
    weights, last = trained(StochasticAverage(0.5))
    ends = weights.trained[STEPS - 1 :: STEPS]
    assert len(ends) == EPOCHS
    for epoch in range(EPOCHS):
        averaged = mean([parameters(state) for state in ends[1 : epoch + 1]]) if epoch >= 1 else parameters(ends[0])
        assert_close(parameters(weights.validated[epoch]), averaged)
    assert_close(last, weights.validated[-1])
    reference = small_network()
    reference.load_state_dict(last)
    update_bn(normalized(Batches().images[:32]).split(8), reference)
    assert_close(last, reference.state_dict())


@pytest.mark.parametrize(
    ("average", "optimizer"),
    [
        (StochasticAverage(0.5), SGD),
        (exponential_average(0.9), SGD),
    ],
)
def test_the_trained_weights_are_those_of_a_run_without_average(average, optimizer):
    with_average, _ = trained(average, optimizer)
    without, _ = trained(None, optimizer)
    assert_identical(with_average.trained, without.trained, "weights")


def test_an_exponential_average_moves_further_in_the_first_steps():
    weights, last = trained(exponential_average(0.6))
    expected = weights.trained[0]
    for n, state in enumerate(weights.trained[1:], start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        expected = {name: decay * expected[name] + (1 - decay) * state[name] for name in parameters(state)}
    assert (1 + 5) / (10 + 5) < 0.6 < (1 + 15) / (10 + 15)  # the warm-up ends within these steps
    assert_close(parameters(last), expected)


def test_weights_of_a_schedule_free_optimizer_are_those_after_its_eval():
    weights, last = trained(OptimizersAverage(), SCHEDULE_FREE)
    import pytorch_optimizer

    network = small_network()
    optimizer = pytorch_optimizer.ScheduleFreeSGD(network.parameters(), lr=0.05)
    for _ in range(EPOCHS):
        for images, labels in Batches():
            optimizer.zero_grad()
            cross_entropy(network(normalized(images)), labels).backward()
            optimizer.step()
    assert_close(parameters(weights.trained[-1]), parameters(network.state_dict()))
    optimizer.eval()
    update_bn(normalized(Batches().images[:32]).split(8), network)
    assert_close(last, network.state_dict())
    assert_close(weights.validated[-1], last)


def test_lightnings_averaged_model_is_what_the_first_epochs_of_an_average_are():
    """Before the average starts, the weights themselves are validated."""
    weights, last = trained(StochasticAverage(0.99))
    for epoch in range(EPOCHS - 1):
        assert_identical(weights.validated[epoch], weights.trained[(epoch + 1) * STEPS - 1], "weights")
    reference = AveragedModel(small_network())
    assert set(reference.module.state_dict()) == set(last)


@pytest.mark.parametrize(
    "method",
    [
        ["swa_start=0.5"],
        pytest.param(["ema_decay=0.999"], marks=pytest.mark.slow),
        pytest.param(
            ["optimizer=extra", "optimizer.name=ScheduleFreeSGD", "optimizer.lr=0.5", "scheduler=none"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["stochastic", "exponential", "schedule-free"],
)
def test_the_command_saves_and_tests_what_it_has_validated(command, method):
    given = ["data=digits", "model=cnn4_bn", "model.channels=[4,4,4,4]", "trainer.max_epochs=2"]
    assert command(*given, *method, "hydra.run.dir=run", "callbacks.best_checkpoint=null").code == 0
    saved = checkpoint(command.folder / "run")
    trained_too = saved["current_model_state"]
    assert any(not torch.equal(tensor, trained_too[name]) for name, tensor in saved["state_dict"].items())
    rows, metrics = read_csv("run/history.csv"), read_json("run/metrics.json")
    assert command("train=false", "ckpt_path=run/checkpoints/last.ckpt", "hydra.run.dir=again").code == 0
    again = read_json("again/metrics.json")
    assert rows[-1]["val/acc"] == metrics["val/acc"] == again["val/acc"]
    assert metrics["test/loss"] == again["test/loss"]
