"""Find a learning rate by a range test: a few steps, each with a higher rate than the last.

L. Smith, "Cyclical learning rates for training neural networks", 2017 (arXiv 1506.01186), section 3.3. The steps are
Lightning's, the suggestion is not: its trailing average of the losses lags behind, and is off by a factor in the first
steps. Measured in docs/learning_rate.md.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.tuner import Tuner
from omegaconf import DictConfig
from torch import Tensor
from torch.optim import Optimizer

from cifar_lightning.config.compose import plain
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.figures import save_figure
from cifar_lightning.reporting.files import write_csv, write_json
from cifar_lightning.reporting.finder_figures import learning_rate_curve
from cifar_lightning.runs.build import build_trainer
from cifar_lightning.runs.record import provenance
from cifar_lightning.runs.train import prepare_process
from cifar_lightning.search.probing import build_start, interruptible, own_folder, probe_config
from cifar_lightning.training.classifier import ImageClassifier

SMOOTHING = 0.3  # standard deviation of the Gaussian over which losses are averaged, in powers of ten
LEAST_DROP = 0.01  # of the loss, below which it did not fall
RISEN = 1.2  # times the first loss: the rate is too high, and what comes after does not count
STOP = 4.0  # Lightning's early_stop_threshold: the search ends where the loss is so many times the lowest


@dataclass(frozen=True)
class RangeTest:
    """Learning rates and the loss of each step, before it; `smoothed` is the loss averaged over neighbouring rates.

    suggestion: the rate of the smoothed loss's minimum, None if it did not fall. steepest: where it falls most steeply,
    a more cautious choice. still_falling: whether the minimum is at the last rate. too_high: the rate from which the
    loss is higher than at first, if there was one. lightning: what Lightning suggests from the same steps.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None
    steepest: float
    still_falling: bool
    too_high: float | None
    lightning: float | None


@dataclass(frozen=True)
class Found:
    """The range test, the overrides that set every rate to what it suggests (none without), and the results' folder."""

    test: RangeTest
    overrides: list[str]
    folder: Path


def find_learning_rate(
    words: Sequence[str], min_lr: float, max_lr: float, steps: int, out: Path | None, command: str
) -> Found:
    """Search a rate for the training that `words` describe; writes lr_find.json, .csv and .png into a folder.

    out: that folder, if not a new one. command: for the record. Raises UserError for a training without a rate.
    """
    with TemporaryDirectory() as scratch, interruptible():
        config = probe_config(words, scratch)
        rates = learning_rates(plain(config.optimizer))
        test, trainer, datamodule = range_test(config, min_lr, max_lr, steps)
    overrides = []
    if test.suggestion is not None:
        factor = test.suggestion / rates["optimizer.lr"]
        overrides = [f"{key}={float(f'{rate * factor:.2g}'):g}" for key, rate in rates.items()]
    folder = out or own_folder("lr_find", words, config)
    columns = {"learning_rate": test.rates, "loss": test.losses, "smoothed": test.smoothed}
    write_csv(folder / "lr_find.csv", [dict(zip(columns, row, strict=True)) for row in zip_longest(*columns.values())])
    title = f"{config.choices.model}, {config.choices.optimizer}, batch size {config.data.get('batch_size')}"
    figure = learning_rate_curve(test.rates, test.losses, test.smoothed, test.suggestion, title)
    save_figure(figure, folder / "lr_find.png")
    record = {
        "suggestion": test.suggestion, "overrides": overrides, "steepest": test.steepest, "too_high": test.too_high,
        "suggestion_of_lightning": test.lightning, "min_lr": min_lr, "max_lr": max_lr, "steps": steps,
        "command": command, "seed": config.seed, **provenance(trainer, datamodule),
    }  # fmt: skip
    write_json(folder / "lr_find.json", record)
    return Found(test, overrides, folder)


def learning_rates(optimizer: Mapping[str, Any], prefix: str = "optimizer") -> dict[str, float]:
    """Every learning rate in the config of an optimizer, by its key: `optimizer.lr` and, with Muon, `optimizer.sgd_lr`.

    Raises UserError for an optimizer without `lr`.
    """
    if prefix == "optimizer" and not isinstance(optimizer.get("lr"), int | float):
        raise UserError(f"optimizer._target_={optimizer.get('_target_')} has no lr that could be searched")
    found: dict[str, float] = {}
    for key, value in optimizer.items():
        if isinstance(value, Mapping):
            found |= learning_rates(value, f"{prefix}.{key}")
        elif (key == "lr" or str(key).endswith("_lr")) and isinstance(value, int | float):
            found[f"{prefix}.{key}"] = float(value)
    return dict(sorted(found.items(), key=lambda rate: rate[0] != "optimizer.lr"))


def range_test(config: DictConfig, min_lr: float, max_lr: float, steps: int) -> tuple[RangeTest, L.Trainer, Any]:
    """Train for `steps` steps, `optimizer.lr` rising from min_lr to max_lr by a factor; also the trainer and the data.

    Other learning rates keep their ratio to `optimizer.lr`. config: from `probe_config`.
    """
    base = learning_rates(plain(config.optimizer))["optimizer.lr"]
    prepare_process()
    datamodule, module = build_start(config)
    if not module.automatic_optimization:
        raise UserError(f"module._target_={config.module._target_} steps its optimizer itself, so it can't be searched")
    trainer = build_trainer(config, [], [])
    points: dict[float, list[float]] = {}
    _record(module, trainer, points)
    _keep_ratios(module, base)
    quiet = nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO())  # its progress bar
    with quiet:
        found: Any = Tuner(trainer).lr_find(
            module, datamodule=datamodule, min_lr=min_lr, max_lr=max_lr, num_training=steps,
            early_stop_threshold=STOP, update_attr=False,
        )  # fmt: skip
        lightning = found.suggestion()
    return _read(points, steps, lightning), trainer, datamodule


def _record(module: L.LightningModule, trainer: L.Trainer, points: dict[float, list[float]]) -> None:
    """Collect the losses at each rate: Lightning keeps only a trailing average."""
    step: Callable[..., Any] = module.training_step

    def training_step(*batch: Any) -> Any:
        output = step(*batch)
        loss = output["loss"] if isinstance(output, Mapping) else output
        if isinstance(loss, Tensor):
            scheduler: Any = trainer.lr_scheduler_configs[0].scheduler
            points.setdefault(float(scheduler.lr[0]), []).append(loss.item())
        return output

    module.training_step = training_step  # type: ignore[method-assign]


def _keep_ratios(module: L.LightningModule, base: float) -> None:
    """Lightning gives all parameter groups one rate; within each step they get theirs, in proportion."""
    configure: Callable[[], Any] = module.configure_optimizers

    def configure_optimizers() -> Any:
        configured = configure()
        optimizer = _only_optimizer(configured)
        ratios = [group["lr"] / base for group in optimizer.param_groups]
        if not isinstance(module, ImageClassifier) and 1.0 not in ratios:
            raise UserError(f"the optimizer of {type(module).__name__} does not take its rate from optimizer.lr")
        if hasattr(optimizer, "train"):  # schedule-free
            optimizer.train()

        def before(*_: Any) -> None:
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] *= ratio

        def after(*_: Any) -> None:
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] /= ratio

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
        return configured

    module.configure_optimizers = configure_optimizers  # type: ignore[method-assign]


def _only_optimizer(configured: Any) -> Optimizer:
    """The optimizer in what `configure_optimizers` returned, in any of the forms that Lightning takes."""
    if isinstance(configured, tuple) and len(configured) == 2 and isinstance(configured[0], list):
        configured = configured[0]
    if isinstance(configured, list | tuple) and len(configured) == 1:
        configured = configured[0]
    if isinstance(configured, Mapping):
        configured = configured.get("optimizer")
    if not isinstance(configured, Optimizer):
        raise UserError("a learning rate is searched for a module with one optimizer")
    return configured


def _read(points: Mapping[float, list[float]], steps: int, lightning: float | None) -> RangeTest:
    rates, losses = list(points), [float(np.mean(each)) for each in points.values()]
    finite = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    if finite < 3:
        raise UserError("the loss was NaN or infinite at once: lower min_lr")
    smooth = smoothed(np.log10(rates[:finite]), np.array(losses[:finite]))
    risen = int(next(iter(np.flatnonzero(smooth > RISEN * smooth[0])), finite))
    lowest = int(smooth[:risen].argmin())
    falls = np.gradient(smooth, np.log10(rates[:finite]))[: lowest + 1]
    fell = lowest > 0 and smooth[0] - smooth[lowest] >= LEAST_DROP * abs(smooth[0])
    return RangeTest(
        rates,
        losses,
        smooth.tolist(),
        rates[lowest] if fell else None,
        rates[int(falls.argmin())],
        lowest == steps - 1,
        rates[min(risen, len(rates) - 1)] if risen < steps else None,
        lightning,
    )


def smoothed(exponents: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The losses averaged with a Gaussian over the decimal exponents of their rates, so that it does not lag behind."""
    weights = np.exp(-(((exponents[:, None] - exponents) / SMOOTHING) ** 2) / 2)
    return weights @ losses / weights.sum(1)
