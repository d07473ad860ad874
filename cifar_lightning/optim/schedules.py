"""Learning-rate schedules, with their length taken from the Trainer.

Each is a function `f(optimizer, *, steps, steps_per_epoch, **keys)` that returns Lightning's scheduler dicts, for
`steps` optimizer steps in all (infinite for unlimited training) and `steps_per_epoch` per epoch. All but two are closed
forms, a factor of the initial learning rate for each step, so their only state is the position.

Warm-up rises linearly over the first `warmup_epochs`, from 1/(n + 1) of the learning rate in the first of its n steps.
`interval` says whether the learning rate changes with every step or every epoch.

A parameter group with its own `epochs` (optimizer.groups) completes a closed form within these, and then has the
learning rate 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, OneCycleLR, ReduceLROnPlateau

from cifar_lightning.config.compose import best_is, instantiate
from cifar_lightning.config.monitors import METRICS
from cifar_lightning.errors import UserError

Interval = Literal["step", "epoch"]
Factor = Callable[[int, float], float]  # factor of the learning rate in step n of `total`
Schedulers = list[dict[str, Any]]


def build_schedule(optimizer: Optimizer, scheduler: Mapping[str, Any], trainer: Trainer) -> Schedulers:
    """The schedule `scheduler["_target_"]` for the length of this Trainer's training. Raises UserError."""
    steps, steps_per_epoch = training_length(trainer)
    schedule = instantiate({**scheduler, "_partial_": True})
    try:
        return schedule(optimizer, steps=steps, steps_per_epoch=steps_per_epoch)
    except (TypeError, ValueError) as error:
        raise UserError(f"scheduler ({scheduler['_target_']}): {error}") from error


def training_length(trainer: Trainer) -> tuple[float, float]:
    """Optimizer steps of the whole training and of an epoch; infinite if unlimited."""
    trainer.fit_loop.setup_data()  # creates the loader if there is none yet
    steps = trainer.estimated_stepping_batches
    batches = trainer.num_training_batches
    steps_per_epoch = batches if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
    return (math.inf if steps < 0 else steps), steps_per_epoch


def constant(
    optimizer: Optimizer, *, steps: float, steps_per_epoch: float, warmup_epochs: float = 0, interval: Interval = "step"
) -> Schedulers:
    """A constant learning rate, after an optional warm-up."""
    warmup = _warmup(warmup_epochs, interval, steps_per_epoch)
    interval = interval if warmup else "epoch"
    return _closed_form(optimizer, lambda n, total: 1.0, warmup, math.inf, interval, steps_per_epoch)


def cosine(
    optimizer: Optimizer,
    *,
    steps: float,
    steps_per_epoch: float,
    warmup_epochs: float = 0,
    end_factor: float = 0.0,
    end: float = 1.0,
    interval: Interval = "step",
) -> Schedulers:
    """Half a cosine from the learning rate to `end_factor` of it (Loshchilov and Hutter 2017, without restarts)."""
    warmup, total = _lengths("cosine", steps, steps_per_epoch, warmup_epochs, interval)

    def factor(n: int, total: float) -> float:
        return end_factor + (1 - end_factor) * _half_cosine(_progress(n, warmup, end * total))

    return _closed_form(optimizer, factor, warmup, total, interval, steps_per_epoch)


def linear(
    optimizer: Optimizer,
    *,
    steps: float,
    steps_per_epoch: float,
    warmup_epochs: float = 0,
    end_factor: float = 0.0,
    end: float = 1.0,
    interval: Interval = "step",
) -> Schedulers:
    """A straight line from the learning rate to `end_factor` of it."""
    warmup, total = _lengths("linear", steps, steps_per_epoch, warmup_epochs, interval)

    def factor(n: int, total: float) -> float:
        return 1 - (1 - end_factor) * _progress(n, warmup, end * total)

    return _closed_form(optimizer, factor, warmup, total, interval, steps_per_epoch)


def cosine_restarts(
    optimizer: Optimizer,
    *,
    steps: float,
    steps_per_epoch: float,
    first_epochs: float = 10,
    growth: float = 2.0,
    end_factor: float = 0.0,
    warmup_epochs: float = 0,
    interval: Interval = "step",
) -> Schedulers:
    """Half cosines, each `growth` times as long as the one before (SGDR, Loshchilov and Hutter 2017).

    The length of training is whatever it is: choose it so that it ends with a cosine, e.g. 10 + 20 + 40 epochs.
    """
    warmup, total = _lengths("cosine_restarts", steps, steps_per_epoch, warmup_epochs, interval)
    length = first_epochs * (steps_per_epoch if interval == "step" else 1)

    def factor(n: int, total: float) -> float:
        position, period = float(max(0, n - warmup)), length
        while position >= period:
            position, period = position - period, period * growth
        return end_factor + (1 - end_factor) * _half_cosine(position / period)

    return _closed_form(optimizer, factor, warmup, total, interval, steps_per_epoch)


def wsd(
    optimizer: Optimizer,
    *,
    steps: float,
    steps_per_epoch: float,
    warmup_epochs: float = 0,
    decay: float = 0.2,
    end_factor: float = 0.0,
    shape: Literal["linear", "sqrt"] = "linear",
    interval: Interval = "step",
) -> Schedulers:
    """Warm-up, stable, decay: constant up to the last `decay` (a share) of the training, then down to `end_factor`.

    A. Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024 (arXiv
    2405.18392); its decay of 1 minus the square root is `shape="sqrt"`.
    """
    warmup, total = _lengths("wsd", steps, steps_per_epoch, warmup_epochs, interval)

    def factor(n: int, total: float) -> float:
        progress = max(0.0, n - (1 - decay) * total) / (decay * total) if decay else 0.0
        return 1 - (1 - end_factor) * min(1.0, progress) ** (0.5 if shape == "sqrt" else 1.0)

    return _closed_form(optimizer, factor, warmup, total, interval, steps_per_epoch)


def multistep(
    optimizer: Optimizer,
    *,
    steps: float,
    steps_per_epoch: float,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    warmup_epochs: float = 0,
    interval: Interval = "step",
) -> Schedulers:
    """The learning rate times `gamma` at each milestone: an epoch (1, 2, …), or a share of the training (0.5)."""
    warmup, total = _lengths("multistep", steps, steps_per_epoch, warmup_epochs, interval)
    unit = steps_per_epoch if interval == "step" else 1
    if any(milestone <= 0 or (milestone > 1 and milestone != int(milestone)) for milestone in milestones):
        raise UserError(f"scheduler.milestones={list(milestones)}: give shares of the training (0.5) or epochs (30)")

    def factor(n: int, total: float) -> float:
        return gamma ** sum(n >= (round(total * m) if m < 1 else int(m * unit)) for m in milestones)

    return _closed_form(optimizer, factor, warmup, total, interval, steps_per_epoch)


def onecycle(
    optimizer: Optimizer,
    *,
    steps: float,
    steps_per_epoch: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = True,
) -> Schedulers:
    """Up to the learning rate and down again, with momentum in the opposite direction (Smith and Topin 2018)."""
    _refuse_own_epochs("onecycle", optimizer)
    _, total = _lengths("onecycle", steps, steps_per_epoch, 0, "step")
    if not 0 <= pct_start < 1:
        raise UserError(f"scheduler.pct_start={pct_start}: give a share of the training, from 0 to less than 1")
    if pct_start * total == 1:  # torch would divide by a rise of length 0
        pct_start += 1e-9
    scheduler = _OneCycle(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        pct_start=float(pct_start),
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        anneal_strategy=anneal_strategy,
        cycle_momentum=cycle_momentum and not {"momentum", "betas"}.isdisjoint(optimizer.defaults),
    )
    return [{"scheduler": scheduler, "interval": "step", "name": "lr"}]


def plateau(
    optimizer: Optimizer,
    *,
    steps: float,
    steps_per_epoch: float,
    monitor: str = "val/loss",
    factor: float = 0.1,
    patience: int = 4,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
    warmup_epochs: float = 0,
) -> Schedulers:
    """The learning rate times `factor` after more than `patience` epochs without a better `monitor`."""
    _refuse_own_epochs("plateau", optimizer)
    if monitor not in METRICS:
        raise UserError(f"scheduler.monitor={monitor}: choose one of {', '.join(METRICS)}")
    schedulers: Schedulers = []
    if warmup := _warmup(warmup_epochs, "step", steps_per_epoch):
        # Not a closed form, as it must not change the learning rate after the warm-up.
        warm = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        schedulers.append({"scheduler": warm, "interval": "step", "name": "warmup"})
    reduce = ReduceLROnPlateau(
        optimizer, mode=best_is(monitor), factor=factor, patience=patience, threshold=threshold, min_lr=min_lr
    )
    return [*schedulers, {"scheduler": reduce, "interval": "epoch", "monitor": monitor, "name": "lr"}]


class _OneCycle(OneCycleLR):
    """Saves only its position, like the closed forms, so that a resumed run may be longer or shorter."""

    def state_dict(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("last_epoch", "_step_count", "_last_lr")}


def _closed_form(
    optimizer: Optimizer, factor: Factor, warmup: int, total: float, interval: str, steps_per_epoch: float
) -> Schedulers:
    def factor_of(group: dict[str, Any]) -> Callable[[int], float]:
        unit = steps_per_epoch if interval == "step" else 1
        end = group["epochs"] * unit if "epochs" in group else math.inf
        return lambda n: min(1.0, (n + 1) / (warmup + 1)) * factor(n, min(total, end)) if n < end else 0.0

    factors = [factor_of(group) for group in optimizer.param_groups]
    return [{"scheduler": LambdaLR(optimizer, factors), "interval": interval, "name": "lr"}]


def _refuse_own_epochs(name: str, optimizer: Optimizer) -> None:
    if any("epochs" in group for group in optimizer.param_groups):
        raise UserError(f"scheduler={name} can't end early for a parameter group: leave out optimizer.groups.*.epochs")


def _lengths(name: str, steps: float, steps_per_epoch: float, epochs: float, interval: str) -> tuple[int, int]:
    """Length of the warm-up and of the whole training, in steps or epochs according to `interval`."""
    if math.isinf(steps):
        raise UserError(f"scheduler={name} needs the length of training: set trainer.max_epochs or max_steps")
    warmup = _warmup(epochs, interval, steps_per_epoch)
    total = int(steps) if interval == "step" else math.ceil(steps / steps_per_epoch)
    if warmup >= total > 1:
        rank_zero_warn(f"scheduler.warmup_epochs={epochs} is as long as the training: the learning rate will not decay")
    return warmup, total


def _warmup(epochs: float, interval: str, steps_per_epoch: float) -> int:
    if epochs < 0 or (epochs and math.isinf(steps_per_epoch)):
        raise UserError(f"scheduler.warmup_epochs={epochs}: must be at least 0, and epochs must have a finite length")
    return round(epochs * steps_per_epoch) if epochs and interval == "step" else round(epochs)


def _half_cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _progress(n: int, warmup: int, total: float) -> float:
    """Progress of the training after the warm-up, from 0 to 1."""
    return min(1.0, max(0, n - warmup) / max(1, total - warmup))
