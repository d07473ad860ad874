import lightning as L
import pytest
import torch
from helpers.sampling import sampled
from helpers.small import SGD, Batches, group_config, normalized, small_classifier, small_network, small_trainer
from torch.nn.functional import cross_entropy
from torch.optim import lr_scheduler as torchs
from torch.testing import assert_close

from cifar_lightning.config.compose import conf_dir
from cifar_lightning.errors import UserError

CHOICES = {path.stem for path in (conf_dir() / "scheduler").glob("*.yaml")}
EPOCHS, STEPS = 4, 5  # of the 38 images in batches of 8


def config_of(name, **keys):
    return group_config("scheduler", name, **keys)


class Recorder(L.Callback):
    """Learning rate, momentum and the epoch's training loss, as seen from outside."""

    def __init__(self):
        self.lrs, self.momenta, self.losses = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        (group,) = trainer.optimizers[0].param_groups
        self.lrs.append(group["lr"])
        self.momenta.append(group["momentum"])

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))


def trained(scheduler, optimizer=SGD, val=None, batches=None, **keys):
    recorder = Recorder()
    classifier = small_classifier(scheduler=scheduler, optimizer=optimizer)
    trainer = small_trainer(callbacks=[recorder], **{"max_epochs": EPOCHS, **keys})
    trainer.fit(classifier, batches or Batches(), val)
    return recorder, classifier


def warmed_up(optimizer, n, after):
    return torchs.SequentialLR(
        optimizer, [torchs.LinearLR(optimizer, 1 / (n + 1), total_iters=n), after(optimizer)], [n]
    )


def then(optimizer, n, first, after):
    """`first` for n steps, then `after`, which may be a constant factor."""
    after = torchs.ConstantLR(optimizer, after, total_iters=100) if isinstance(after, float) else after
    return torchs.SequentialLR(optimizer, [first, after], [n])


def stepped(optimizer, n, milestones):
    schedulers = [torchs.MultiStepLR(optimizer, milestones)]
    return torchs.ChainedScheduler([torchs.LinearLR(optimizer, 1 / (n + 1), total_iters=n), *schedulers])


# Torch's own schedulers: name, keys, how often they step, and what they are, for 4 epochs of 5 steps.
REFERENCES = [
    ("none", {}, "step", lambda o: torchs.ConstantLR(o, factor=1)),
    ("none", {"warmup_epochs": 1.2}, "step", lambda o: torchs.LinearLR(o, 1 / 7, total_iters=6)),
    ("none", {"warmup_epochs": 2, "interval": "epoch"}, "epoch", lambda o: torchs.LinearLR(o, 1 / 3, total_iters=2)),
    ("cosine", {}, "step", lambda o: torchs.CosineAnnealingLR(o, 20)),
    ("cosine", {"end_factor": 0.1}, "step", lambda o: torchs.CosineAnnealingLR(o, 20, eta_min=0.005)),
    ("cosine", {"interval": "epoch"}, "epoch", lambda o: torchs.CosineAnnealingLR(o, 4)),
    (
        "cosine",
        {"warmup_epochs": 1.4},
        "step",
        lambda o: warmed_up(o, 7, lambda o: torchs.CosineAnnealingLR(o, 13)),
    ),
    (
        "cosine",
        {"warmup_epochs": 1, "interval": "epoch"},
        "epoch",
        lambda o: warmed_up(o, 1, lambda o: torchs.CosineAnnealingLR(o, 3)),
    ),
    ("linear", {}, "step", lambda o: torchs.LinearLR(o, 1, 0, total_iters=20)),
    ("linear", {"end_factor": 0.2, "interval": "epoch"}, "epoch", lambda o: torchs.LinearLR(o, 1, 0.2, total_iters=4)),
    (
        "linear",
        {"warmup_epochs": 1},
        "step",
        lambda o: warmed_up(o, 5, lambda o: torchs.LinearLR(o, 1, 0, total_iters=15)),
    ),
    (
        "cosine",
        {"end": 0.5, "end_factor": 0.1},
        "step",
        lambda o: then(o, 10, torchs.CosineAnnealingLR(o, 10, 0.005), 0.1),
    ),
    ("linear", {"end": 0.75, "end_factor": 0.2}, "step", lambda o: torchs.LinearLR(o, 1, 0.2, total_iters=15)),
    ("cosine_restarts", {"first_epochs": 1}, "step", lambda o: torchs.CosineAnnealingWarmRestarts(o, 5, T_mult=2)),
    (
        "cosine_restarts",
        {"first_epochs": 2, "growth": 1, "end_factor": 0.1, "interval": "epoch"},
        "epoch",
        lambda o: torchs.CosineAnnealingWarmRestarts(o, 2, eta_min=0.005),
    ),
    ("wsd", {}, "step", lambda o: then(o, 16, torchs.ConstantLR(o, 1), torchs.LinearLR(o, 1, 0, total_iters=4))),
    (
        "wsd",
        {"decay": 0.5, "shape": "sqrt", "warmup_epochs": 0.4},
        "step",
        lambda o: torchs.LambdaLR(o, lambda n: min(1, (n + 1) / 3) * (1 - (max(0, n - 10) / 10) ** 0.5)),
    ),
    ("multistep", {}, "step", lambda o: torchs.MultiStepLR(o, [10, 15])),
    ("multistep", {"milestones": [1, 3], "gamma": 0.5}, "step", lambda o: torchs.MultiStepLR(o, [5, 15], gamma=0.5)),
    ("multistep", {"milestones": [1, 3], "interval": "epoch"}, "epoch", lambda o: torchs.MultiStepLR(o, [1, 3])),
    ("multistep", {"warmup_epochs": 2.2}, "step", lambda o: stepped(o, 11, [10, 15])),
    ("onecycle", {}, "step", lambda o: torchs.OneCycleLR(o, 0.05, total_steps=20)),
    (
        "onecycle",
        {"pct_start": 0.1, "anneal_strategy": "linear", "div_factor": 5.0, "final_div_factor": 10.0},
        "step",
        lambda o: torchs.OneCycleLR(
            o, 0.05, total_steps=20, pct_start=0.1, anneal_strategy="linear", div_factor=5, final_div_factor=10
        ),
    ),
    ("onecycle", {"cycle_momentum": False}, "step", lambda o: torchs.OneCycleLR(o, 0.05, 20, cycle_momentum=False)),
    (
        "plateau",
        {"monitor": "train/loss", "patience": 0, "threshold": 0.5},
        "loss",
        lambda o: torchs.ReduceLROnPlateau(o, patience=0, threshold=0.5),
    ),
]


def reference(optimizer, every, scheduler, losses=()):
    """Learning rates and momenta of 20 steps that torch's scheduler gives."""
    schedule, losses = scheduler(optimizer), iter(losses)
    lrs, momenta = [], []
    for step in range(EPOCHS * STEPS):
        lrs.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        yield lrs, momenta
        optimizer.step()
        ends_epoch = (step + 1) % STEPS == 0
        if every == "step" or (every == "epoch" and ends_epoch):
            schedule.step()
        elif every == "loss" and ends_epoch and step + 1 < EPOCHS * STEPS:
            schedule.step(next(losses))


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("none", lambda o, n: torchs.ConstantLR(o, 1.0)),
        ("linear", lambda o, n: torchs.LinearLR(o, 1, 0, total_iters=n)),
        ("cosine", lambda o, n: torchs.CosineAnnealingLR(o, n)),
        ("multistep", lambda o, n: torchs.MultiStepLR(o, [round(n / 2), round(n * 3 / 4)])),
    ],
)
def test_a_part_of_the_network_may_end_earlier(name, shape, interval):
    class Rates(L.Callback):
        rows = []  # noqa: RUF012

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.rows.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    Rates.rows = []
    classifier = small_classifier(
        scheduler=config_of(name, interval=interval), optimizer=SGD | {"groups": {"5": {"lr": 0.2, "epochs": 2}}}
    )
    small_trainer(callbacks=[Rates()], max_epochs=EPOCHS).fit(classifier, Batches())
    rest, part = zip(*Rates.rows, strict=True)
    unit = STEPS if interval == "step" else 1
    for rates, lr, epochs in ((rest, 0.05, EPOCHS), (part, 0.2, 2)):
        optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=lr)
        schedule, expected = shape(optimizer, epochs * unit), []
        for step in range(epochs * STEPS):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if interval == "step" or (step + 1) % STEPS == 0:
                schedule.step()
        assert_close(list(rates), expected + [0.0] * (EPOCHS * STEPS - len(expected)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["onecycle", "plateau"])
def test_a_part_that_ends_earlier_needs_a_closed_form(name):
    optimizer = SGD | {"groups": {"5": {"epochs": 2}}}
    keys = {"monitor": "train/loss"} if name == "plateau" else {}
    with pytest.raises(UserError, match=rf"scheduler={name} .*epochs"):
        trained(config_of(name, **keys), optimizer=optimizer)


def test_every_file_has_a_reference():
    assert {name for name, *_ in REFERENCES} == CHOICES


@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step")
@pytest.mark.parametrize(("name", "keys", "every", "scheduler"), REFERENCES)
def test_learning_rates_are_torchs(name, keys, every, scheduler):
    recorder, _ = trained(config_of(name, **keys))
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.05, momentum=0.9)
    for expected in reference(optimizer, every, scheduler, recorder.losses):
        lrs, momenta = expected
    assert len(recorder.lrs) == EPOCHS * STEPS
    assert_close(recorder.lrs, lrs, rtol=1e-9, atol=1e-12)
    assert_close(recorder.momenta, momenta, rtol=1e-9, atol=0)
    assert name == "none" or len(set(recorder.lrs)) > 1


@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step")
@pytest.mark.parametrize(("name", "keys", "every", "scheduler"), REFERENCES)
def test_training_equals_a_plain_loop(name, keys, every, scheduler):
    recorder, classifier = trained(config_of(name, **keys))
    network = small_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, foreach=False)
    batches = [batch for _ in range(EPOCHS) for batch in Batches()]
    for (images, labels), _ in zip(batches, reference(optimizer, every, scheduler, recorder.losses), strict=True):
        optimizer.zero_grad()  # the reference takes the step when it goes on
        cross_entropy(network(normalized(images)), labels).backward()
    assert_close(classifier.network.state_dict(), network.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_lengths_come_from_the_trainer(name):
    config = config_of(name, **({"monitor": "train/loss"} if name == "plateau" else {}))
    whole, _ = trained(config, batches=Batches(n=64))
    for keys in (
        {"max_epochs": -1, "max_steps": 32},
        {"max_epochs": 99, "max_steps": 32},
        {"limit_train_batches": 8, "batches": Batches(n=80)},
        {"accumulate_grad_batches": 2, "batches": Batches(n=64, batch_size=4)},
    ):
        limited, _ = trained(config, **{"batches": Batches(n=64), **keys})
        lrs = limited.lrs[::2] if "accumulate_grad_batches" in keys else limited.lrs
        if name != "plateau":  # which goes by the loss
            assert lrs == whole.lrs, keys


@pytest.mark.parametrize("name", ["cosine", "linear", "multistep", "onecycle"])
def test_unlimited_training_is_refused_where_a_length_is_needed(name):
    with pytest.raises(UserError, match=rf"scheduler={name} .*trainer.max_epochs or max_steps"):
        trained(config_of(name), max_epochs=-1)


@pytest.mark.parametrize("name", ["none", "plateau"])
def test_unlimited_training_needs_no_length_elsewhere(name):
    keys = {"monitor": "train/loss"} if name == "plateau" else {}
    recorder, _ = trained(config_of(name, warmup_epochs=1, **keys), max_epochs=-1, max_time="00:00:00:01")
    assert recorder.lrs[: STEPS + 1] == pytest.approx([0.05 * (n + 1) / 6 for n in range(STEPS + 1)])


@pytest.mark.parametrize("total", sampled([1, 2, 3, 4, 5, 10], every=3))
@pytest.mark.parametrize("pct_start", [0, 0.1, 0.25, 0.5, 0.9])
def test_onecycle_stands_any_length(total, pct_start):
    recorder, _ = trained(config_of("onecycle", pct_start=pct_start), max_steps=total)
    assert len(recorder.lrs) == total
    assert 0 < min(recorder.lrs) <= max(recorder.lrs) <= 0.05 + 1e-12


@pytest.mark.parametrize("name", ["Adagrad", "RMSprop", "Adam"])
def test_onecycle_with_optimizers_of_other_momenta(name):
    class Rates(L.Callback):
        lrs = []  # noqa: RUF012

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.lrs.append(trainer.optimizers[0].param_groups[0]["lr"])

    classifier = small_classifier(
        optimizer={"_target_": f"torch.optim.{name}", "lr": 0.05}, scheduler=config_of("onecycle")
    )
    rates = Rates()
    rates.lrs.clear()
    small_trainer(callbacks=[rates]).fit(classifier, Batches())
    assert max(rates.lrs) == pytest.approx(0.05)


def test_plateau_follows_the_monitor_and_knows_what_is_better():
    _, up = trained(config_of("plateau", monitor="val/acc"), val=Batches(seed=1))
    _, down = trained(config_of("plateau", monitor="val/loss"), val=Batches(seed=1))
    assert up.lr_schedulers().mode == "max"
    assert down.lr_schedulers().mode == "min"
    assert down.lr_schedulers().best == pytest.approx(min(down.lr_schedulers().best, 99))


def test_plateau_counts_validations_not_epochs():
    config = config_of("plateau", patience=1, threshold=0.999)  # nothing is ever better by so much
    every, _ = trained(config, val=Batches(seed=1), max_epochs=6)
    second, _ = trained(config, val=Batches(seed=1), max_epochs=6, check_val_every_n_epoch=2)
    assert every.lrs[::STEPS] == pytest.approx([0.05, 0.05, 0.05, 0.005, 0.005, 0.0005])
    assert second.lrs[::STEPS] == pytest.approx([0.05] * 6)


def test_plateau_after_a_warm_up():
    config = config_of("plateau", patience=0, threshold=0.999, warmup_epochs=1, monitor="train/loss")
    recorder, _ = trained(config)
    assert recorder.lrs[:STEPS] == pytest.approx([0.05 * (n + 1) / 6 for n in range(STEPS)])
    assert recorder.lrs[STEPS::STEPS] == pytest.approx([0.05, 0.005, 0.0005])


@pytest.mark.parametrize("keys", [{}, {"limit_val_batches": 0}])
def test_plateau_on_validation_without_one_is_refused(keys):
    val = Batches(seed=1) if keys else None
    with pytest.raises(UserError, match=r"scheduler.monitor=val/loss needs a validation split: set data.val_size"):
        trained(config_of("plateau"), val=val, **keys)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("plateau", {"monitor": "val/los"}, "scheduler.monitor=val/los: choose one of train/loss"),
        ("cosine", {"warmup_epochs": -1}, "scheduler.warmup_epochs=-1"),
        ("cosine", {"warmup": 1}, "warmup"),
        ("multistep", {"milestones": [0.5, 1.5]}, r"scheduler.milestones=\[0.5, 1.5\]: give shares"),
        ("multistep", {"milestones": [-3]}, r"scheduler.milestones=\[-3\]"),
        ("onecycle", {"anneal_strategy": "sine"}, "anneal_strategy"),
        ("onecycle", {"pct_start": 1.0}, "scheduler.pct_start=1.0"),
    ],
)
def test_a_wrong_value_is_a_sentence(name, keys, message):
    with pytest.raises(UserError, match=message):
        trained(config_of(name, **keys))


def test_a_warm_up_as_long_as_the_training_is_said():
    with pytest.warns(UserWarning, match="scheduler.warmup_epochs=9 is as long as the training"):
        recorder, _ = trained(config_of("cosine", warmup_epochs=9))
    assert recorder.lrs == pytest.approx([0.05 * (n + 1) / 46 for n in range(EPOCHS * STEPS)])
