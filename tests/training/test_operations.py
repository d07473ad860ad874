"""What a run says that it has spent is what torch's counter sees while it trains."""

import pytest
import torch
from helpers.records import checkpoint
from helpers.small import SGD, Batches, small_classifier, small_network, small_trainer
from torch.utils.flop_counter import FlopCounterMode

from cifar_lightning.commands.models import cost
from cifar_lightning.config.compose import compose, instantiate, plain
from cifar_lightning.reporting.files import read_csv, read_json
from cifar_lightning.training.distillation import Teacher
from cifar_lightning.training.operations import Operations, per_image


def fit_and_test(**keys):
    classifier = small_classifier(**keys)
    counter = FlopCounterMode(display=False)
    with counter:
        trainer = small_trainer(max_epochs=2, num_sanity_val_steps=0)
        trainer.fit(classifier, Batches(), Batches(seed=1))
        trainer.test(classifier, Batches(seed=2), verbose=False)
    return classifier, counter.get_total_flops()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"optimizer": {**SGD, "sam_rho": 0.1}},
        {"test_tta": "flip_shift"},
        {"teacher": Teacher([small_classifier()], 4.0, 0.5)},
    ],
    ids=["plain", "sam", "views", "teacher"],
)
def test_operations_are_those_that_torch_counts(keys):
    classifier, counted = fit_and_test(**keys)
    teachers = [taught.network for taught in keys["teacher"].classifiers] if "teacher" in keys else []
    total = classifier.operations.total(classifier.network, teachers, 3, classifier.trained_parameters)
    assert total == counted


@pytest.mark.parametrize("model", ["vit", "resnet", "torchvision"])
def test_a_forward_pass_has_the_multiply_adds_that_the_command_models_lists(model):
    config = compose(
        [f"model={model}", *(["model.name=vit_b_32", "model.image_size=224"] if model == "torchvision" else [])]
    ).model
    _, multiply_adds = cost(config)
    network = instantiate(plain(config))
    assert per_image(network, "evaluated", 3, 32, ()) == 2 * multiply_adds
    everything = {name for name, _ in network.named_parameters()}
    assert 2 < per_image(network, "trained", 3, 32, everything) / (2 * multiply_adds) < 3.1  # attention twice


def test_a_part_that_is_not_trained_costs_less():
    operations = Operations()
    operations.add("trained", torch.zeros(10, 3, 8, 8))
    names = {name for name, _ in small_network().named_parameters()}
    whole, head = (operations.total(small_network(), [], 3, trained) for trained in (names, {"5.weight", "5.bias"}))
    convolution = 2 * 6 * 3 * 9 * 3 * 3  # of one image, forward; its input has no gradient
    assert whole - head == 10 * (convolution + 2 * 54 * 10)


def test_a_run_records_them_and_a_resumed_one_goes_on_counting(command):
    given = ["data=digits", "model=cnn2", "logger=none", "data.batch_size=128"]
    assert command(*given, "trainer.max_epochs=2", "hydra.run.dir=whole").code == 0
    assert command(*given, "trainer.max_epochs=1", "hydra.run.dir=part", "scheduler=none").code == 0
    assert command("ckpt_path=part/checkpoints/last.ckpt", "trainer.max_epochs=2").code == 0
    whole, part = (read_json(f"{folder}/metrics.json") for folder in ("whole", "part"))
    saved = checkpoint(command.folder / "whole")["cifar_lightning"]["resume"]["operations"]
    assert sum(n for kind, _, n in saved if kind == "trained") == 2 * whole["train_images"]
    assert part["operations"] == whole["operations"] > 0
    outcome = command("summarize", "whole", "out=table")
    assert " GFLOP" in outcome.out
    assert read_csv("table/summary.csv")[0]["operations"] == whole["operations"]
