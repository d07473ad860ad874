import copy

import lightning as L
import pytest
import torch
from helpers.small import CONSTANT, MEAN, STD, Batches, normalized, small_classifier, small_network, small_trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.testing import assert_close

from cifar_lightning.training.losses import CrossEntropy

STILL = {"_target_": "torch.optim.SGD", "lr": 0.0}


class Soft(Batches):
    """Labels as shares of two classes, as mixup makes them."""

    def __iter__(self):
        for images, labels in super().__iter__():
            yield images, 0.7 * one_hot(labels, 10).float() + 0.3 * one_hot(labels.roll(1, 0), 10).float()


class MemoryLogger(Logger):
    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.logged = []

    def log_metrics(self, metrics, step=None):
        self.logged.append((step, metrics))

    def log_hyperparams(self, params):
        pass


class TwoHeads(nn.Module):
    """A network with an auxiliary head, which only training may see."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.main, self.auxiliary = nn.Linear(192, 10), nn.Linear(192, 10)

    def forward(self, images):
        return self.main(images.flatten(1))

    def weighted_heads(self, images):
        return [(1.0, self.main(images.flatten(1))), (0.3, self.auxiliary(images.flatten(1)))]


def no_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


def metrics_of(classifier, batches=None, val=None, **keys):
    trainer = small_trainer(max_epochs=1, **keys)
    trainer.fit(classifier, batches or Batches(), val)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_are_normalized_whatever_their_type(channels_last):
    classifier = small_classifier(channels_last=channels_last)
    images = Batches().images
    floats = images / 255
    kept = floats.clone()
    assert_close(classifier.normalized(images), normalized(images), rtol=0, atol=1e-6)
    assert_close(classifier.normalized(floats), normalized(images), rtol=0, atol=1e-6)
    assert torch.equal(floats, kept)
    assert classifier.normalized(images).is_contiguous(memory_format=torch.channels_last) is channels_last
    assert classifier.network[0].weight.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert classifier.double().normalized(images).dtype == torch.float64
    assert not list(classifier.buffers())[: -len(list(classifier.network.buffers()))]


def test_epoch_means_are_weighted_by_images():
    classifier = small_classifier(no_norm(), optimizer=STILL)
    train, val = Batches(n=38, batch_size=8), Batches(n=29, batch_size=7, seed=1)  # last batches of 6 and of 1
    figures = metrics_of(classifier, train, val)
    for stage, data in (("train", train), ("val", val)):
        logits = no_norm()(normalized(data.images))
        assert figures[f"{stage}/loss"] == pytest.approx(cross_entropy(logits, data.labels).item(), rel=1e-6)
        assert figures[f"{stage}/acc"] == pytest.approx((logits.argmax(1) == data.labels).float().mean().item())


def test_each_epoch_starts_from_nothing():
    logger = MemoryLogger()
    small_trainer(logger=logger).fit(small_classifier(no_norm(), optimizer=STILL), Batches())
    losses = [metrics["train/loss"] for _, metrics in logger.logged if "train/loss" in metrics]
    assert losses == [losses[0]] * 4


def test_label_smoothing_enters_the_training_loss_only():
    classifier = small_classifier(no_norm(), optimizer=STILL, loss=CrossEntropy(label_smoothing=0.2))
    data = Batches()
    figures = metrics_of(classifier, data, data)
    logits = no_norm()(normalized(data.images))
    assert figures["train/loss"] == pytest.approx(cross_entropy(logits, data.labels, label_smoothing=0.2).item())
    assert figures["val/loss"] == pytest.approx(cross_entropy(logits, data.labels).item())


def test_label_smoothing_changes_the_weights_as_torchs_does():
    classifier = small_classifier(no_norm(), loss=CrossEntropy(label_smoothing=0.2))
    small_trainer(max_epochs=2).fit(classifier, Batches())
    reference = no_norm()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    for images, labels in [*Batches(), *Batches()]:
        optimizer.zero_grad()
        cross_entropy(reference(normalized(images)), labels, label_smoothing=0.2).backward()
        optimizer.step()
    assert_close(classifier.network.state_dict(), reference.state_dict(), rtol=1e-4, atol=1e-6)


def test_soft_targets_count_as_their_largest_share():
    data = Soft()
    targets = torch.cat([targets for _, targets in data])
    logits = no_norm()(normalized(data.images))
    figures = metrics_of(small_classifier(no_norm(), optimizer=STILL), data)
    assert figures["train/loss"] == pytest.approx(cross_entropy(logits, targets).item(), rel=1e-6)
    assert figures["train/acc"] == pytest.approx((logits.argmax(1) == data.labels).float().mean().item())


def test_weighted_heads_enter_the_training_loss_only():
    classifier, data = small_classifier(TwoHeads()), Batches()
    small_trainer(max_epochs=2).fit(classifier, data)
    reference = TwoHeads()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9)
    for images, labels in [*data, *data]:
        optimizer.zero_grad()
        flat = normalized(images).flatten(1)
        (
            cross_entropy(reference.main(flat), labels) + 0.3 * cross_entropy(reference.auxiliary(flat), labels)
        ).backward()
        optimizer.step()
    assert_close(classifier.network.state_dict(), reference.state_dict(), rtol=1e-4, atol=1e-6)

    figures = metrics_of(small_classifier(reference, optimizer=STILL), data, data)
    logits = reference(normalized(data.images))
    assert figures["val/loss"] == pytest.approx(cross_entropy(logits, data.labels).item(), rel=1e-5)
    assert figures["train/acc"] == pytest.approx((logits.argmax(1) == data.labels).float().mean().item())


def test_validation_disturbs_nothing():
    def trained(val):
        classifier = small_classifier(small_network(dropout=0.5))
        torch.manual_seed(3)
        small_trainer(val_check_interval=2, num_sanity_val_steps=2).fit(classifier, Batches(), val)
        return classifier.state_dict(), torch.get_rng_state()

    with_it, without = trained(Batches(seed=1)), trained(None)
    assert all(torch.equal(with_it[0][name], without[0][name]) for name in without[0])
    assert torch.equal(with_it[1], without[1])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_step_losses_are_logged_every_so_many_steps(accumulate):
    logger = MemoryLogger()
    classifier = small_classifier()
    small_trainer(logger=logger, log_every_n_steps=3, accumulate_grad_batches=accumulate).fit(classifier, Batches())
    steps = [step for step, metrics in logger.logged if "train/loss_step" in metrics]
    assert steps == list(range(2, 4 * -(-5 // accumulate), 3))
    epochs = [metrics["epoch"] for _, metrics in logger.logged if "train/loss" in metrics]
    assert epochs == [0, 1, 2, 3]


def test_the_sum_over_a_batch_is_a_learning_rate_as_many_times_as_large():
    data = Batches(n=32, batch_size=8)

    def trained(**keys):
        classifier = small_classifier(no_norm(), **keys)
        metrics = metrics_of(classifier, data)
        return classifier.network, metrics["train/loss"]

    summed, loss = trained(loss=CrossEntropy(reduction="sum"), optimizer={"_target_": "torch.optim.SGD", "lr": 0.01})
    mean, expected = trained(optimizer={"_target_": "torch.optim.SGD", "lr": 0.08})
    assert_close(summed.state_dict(), mean.state_dict(), rtol=1e-4, atol=1e-5)
    assert_close(loss, expected, rtol=1e-4, atol=1e-5)  # what is logged is the mean


@pytest.mark.parametrize("fraction", [None, 7])
def test_a_part_that_is_trained_in_the_first_epochs_needs_no_gradients_later(tmp_path, fraction):
    class Watch(L.Callback):
        seen = []  # noqa: RUF012

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            network = pl_module.network
            self.seen.append((trainer.global_step, network[0].weight.grad is None, network[5].weight.grad is None))
            if trainer.global_step == fraction and not (tmp_path / "it.ckpt").exists():
                trainer.save_checkpoint(tmp_path / "it.ckpt")

    def run(ckpt_path=None):
        Watch.seen = []
        optimizer = {"_target_": "torch.optim.SGD", "lr": 0.05, "groups": {"0": {"epochs": 1}}}
        classifier = small_classifier(optimizer=optimizer)
        small_trainer(max_epochs=3, callbacks=[Watch()]).fit(
            classifier, Batches(), ckpt_path=ckpt_path, weights_only=True
        )
        return classifier.network

    network = run()
    assert Watch.seen == [(step, step >= 5, False) for step in range(15)]
    if fraction:
        resumed = run(tmp_path / "it.ckpt")
        assert all(none for _, none, _ in Watch.seen)  # in mid-epoch, too
        assert torch.equal(resumed[0].weight, network[0].weight)


def test_testing_leaves_the_logits_in_order_and_logs_their_figures():
    classifier, data = small_classifier(), Batches(n=29, batch_size=7)
    (figures,) = small_trainer().test(classifier, data, verbose=False)
    expected = small_network().eval()(normalized(data.images))
    assert_close(classifier.test_logits, expected.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(classifier.test_labels, data.labels)
    assert set(figures) == {"test/loss", "test/acc", "test/top5", "test/ece"}
    assert figures["test/loss"] == pytest.approx(cross_entropy(expected, data.labels).item(), rel=1e-5)
    classifier.test_logits.requires_grad_().sum().backward()  # ordinary tensors, not those of inference mode


def plain_types(value):
    if isinstance(value, dict):
        return all(plain_types(key) and plain_types(item) for key, item in value.items())
    if isinstance(value, list | tuple | set):
        return all(map(plain_types, value))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, torch.Tensor)


SCHEDULES = [
    CONSTANT,
    {"_target_": "cifar_lightning.optim.schedules.cosine", "warmup_epochs": 1},
    {"_target_": "cifar_lightning.optim.schedules.onecycle"},
    {"_target_": "cifar_lightning.optim.schedules.plateau", "warmup_epochs": 1},
]


@pytest.mark.parametrize("scheduler", SCHEDULES, ids=lambda config: config["_target_"].rpartition(".")[2])
def test_checkpoints_hold_plain_types_and_what_it_takes_to_use_them(tmp_path, scheduler):
    config = {"model": {"_target_": "x", "channels": [1, 2]}, "seed": 0, "ckpt_path": None}
    adam = {"_target_": "torch.optim.AdamW", "lr": 0.01, "betas": [0.8, 0.9], "decay_norms_and_biases": False}
    classifier = small_classifier(config=config, optimizer=adam, scheduler=scheduler)
    trainer = small_trainer(max_epochs=2)
    trainer.fit(classifier, Batches(), Batches(seed=1))
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    checkpoint = torch.load(tmp_path / "it.ckpt", weights_only=True)
    assert plain_types(checkpoint)
    ours = checkpoint["cifar_lightning"]
    assert ours["config"] == config
    assert ours["class_names"] == [f"class {i}" for i in range(10)]
    assert (ours["mean"], ours["std"]) == (list(MEAN), list(STD))
    assert all(name.startswith("network.") for name in checkpoint["state_dict"])

    (tested,) = small_trainer().test(classifier, Batches(seed=1), verbose=False)
    fresh = small_classifier(nn.Sequential(*[copy.deepcopy(layer) for layer in small_network()]))
    (loaded,) = small_trainer().test(
        fresh, Batches(seed=1), ckpt_path=tmp_path / "it.ckpt", weights_only=True, verbose=False
    )
    assert loaded == tested


def test_averaged_weights_are_the_ones_validated_saved_and_tested(tmp_path):
    class Averaging(L.Callback):
        """The same average, by hand."""

        def on_train_batch_end(self, trainer, pl_module, *_):
            now = {name: value.double() for name, value in pl_module.state_dict().items() if value.is_floating_point()}
            first = trainer.global_step == 1  # the average starts as the weights after the first step
            self.mean = now if first else {name: 0.9 * self.mean[name] + 0.1 * now[name] for name in now}

    by_hand, val = Averaging(), Batches(seed=1)
    checkpoints = ModelCheckpoint(
        tmp_path, monitor="val/loss", save_top_k=-1, filename="{epoch}", enable_version_counter=False
    )
    classifier = small_classifier()
    ema = EMAWeightAveraging(decay=0.9)
    trainer = small_trainer(callbacks=[by_hand, ema, checkpoints], enable_checkpointing=True)
    trainer.fit(classifier, Batches(), val)

    saved = torch.load(tmp_path / "epoch=3.ckpt", weights_only=True)
    for name, expected in by_hand.mean.items():
        assert_close(saved["state_dict"][name].double(), expected, rtol=1e-5, atol=1e-6)
        assert not torch.equal(saved["current_model_state"][name], saved["state_dict"][name])
    validated = float(trainer.callback_metrics["val/loss"])
    fresh = small_classifier()
    fresh.load_state_dict(saved["state_dict"])
    trainer = small_trainer()
    trainer.validate(fresh, val, verbose=False)
    assert float(trainer.callback_metrics["val/loss"]) == validated  # to the last bit: nothing else was averaged
    assert torch.equal(classifier.normalized(val.images), fresh.normalized(val.images))


def test_compiling_leaves_the_names_of_weights_alone():
    compiled = small_classifier(compile=True)
    assert compiled.network._compiled_call_impl is not None
    assert list(compiled.state_dict()) == list(small_classifier().state_dict())


@pytest.mark.slow
def test_a_compiled_network_trains_alike():
    compiled, eager = small_classifier(compile=True), small_classifier()
    for classifier in (compiled, eager):  # whole batches only: each further shape is another compilation
        small_trainer().fit(classifier, Batches(n=32), Batches(n=32, seed=1))
    assert_close(compiled.state_dict(), eager.state_dict(), rtol=1e-3, atol=1e-4)


def test_16_bit_networks_have_losses_of_full_precision():
    figures = metrics_of(small_classifier(no_norm(), optimizer=STILL), Batches(), precision="bf16-mixed")
    logits = no_norm()(normalized(Batches().images))
    assert figures["train/loss"] == pytest.approx(cross_entropy(logits, Batches().labels).item(), rel=1e-2)


def test_a_second_fit_starts_anew():
    classifier = small_classifier(no_norm(), optimizer=STILL)
    first = metrics_of(classifier, val=Batches(seed=1))
    second = metrics_of(classifier)
    assert second == {key: value for key, value in first.items() if key.startswith("train")}
