"""Run a search as an Optuna study whose trials are composed, trained and recorded like any run."""

import math
import re
import shutil
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import optuna
from filelock import FileLock
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from cifar_lightning import api
from cifar_lightning.config.compose import overridden
from cifar_lightning.config.keys import decides
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.runs.resume import flattened
from cifar_lightning.search.definition import Search
from cifar_lightning.search.space import Parameter, overrides, text

HEARTBEAT = 15  # seconds; a trial without a heartbeat for four times as long was killed
METRIC = "val/acc"


def open_study(search: Search) -> optuna.Study:
    """Load the study of this name, or create it.

    Raises UserError for a storage that can't be used, or a study of another space or config.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # search/outcome.py prints a line per trial
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    new = [folder for folder in (search.folder, *search.folder.parents) if not folder.exists()]
    search.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(search.folder / ".lock"):  # two workers can't create the same tables at once
            study = optuna.create_study(
                storage=storage(search),
                sampler=Sampler(search.sampler_seed, search.startup_trials),
                pruner=pruner(search),
                study_name=search.study_name,
                direction="maximize",
                load_if_exists=True,
            )
            check_same(study, search)
    except UserError:
        if new:
            shutil.rmtree(new[-1], ignore_errors=True)
        raise
    return study


def storage(search: Search) -> optuna.storages.RDBStorage:
    address = search.storage or f"sqlite:///{search.folder / 'study.db'}"
    # The timeout has workers wait for each other's writes to an SQLite file.
    settings = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return optuna.storages.RDBStorage(
            address, engine_kwargs=settings, heartbeat_interval=HEARTBEAT, grace_period=4 * HEARTBEAT
        )
    except Exception as error:  # of any class, from the database driver
        reason = " ".join(str(error.__cause__ or error).split(" (Background")[0].split())
        if isinstance(error, ImportError):
            reason += "; install the driver of this database, such as psycopg[binary] for PostgreSQL"
        # Both the address and the error may contain a password.
        raise UserError(re.sub(r"://\S*@", "://…@", f"storage={address}: {reason}")) from error


def pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if search.pruner == "hyperband":
        epochs = search.config.trainer.max_epochs
        return optuna.pruners.HyperbandPruner(max_resource=epochs if epochs and epochs > 0 else "auto")
    return optuna.pruners.NopPruner()


class Sampler(optuna.samplers.TPESampler):
    """TPE whose draws depend only on the seed, the trial's number and earlier trials.

    So workers of one study draw different values, and a resumed study draws the same as an uninterrupted one.
    """

    def __init__(self, seed: int, startup_trials: int, number: int = 0) -> None:
        self._own = seed, startup_trials
        super().__init__(seed=seed * 100_003 + number, n_startup_trials=startup_trials, multivariate=True, group=True)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        Sampler.__init__(self, *self._own, trial.number)
        super().before_trial(study, trial)


def check_same(study: optuna.Study, search: Search) -> None:
    """Raise UserError if earlier trials had another space or config, so that new ones can't be compared with them."""
    space = {p.key: {"type": p.type, "arguments": dict(p.arguments), "when": dict(p.when)} for p in search.space}
    for name, value in {"space": space, "config": trained(search.config)}.items():
        if name not in study.user_attrs:
            study.set_user_attr(name, value)
        elif changed := [key for key, _ in flattened(difference(study.user_attrs[name], value))]:
            raise UserError(
                f"the study {search.study_name} was begun with another {name} ({', '.join(changed[:3])}): "
                f"name a new one with study_name=…, or delete {search.folder}"
            )


def trained(config: DictConfig) -> dict[str, Any]:
    """The keys of a config that decide the result, in plain containers with interpolations kept."""

    def kept(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        return {
            key: kept(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in tree.items()
            if decides(f"{prefix}{key}").what == "result" and f"{prefix}{key}" not in ("train", "test")
        }

    return kept(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The new values of keys that differ; None for a key that was removed."""
    changed: dict[str, Any] = {}
    for key in dict.fromkeys([*now, *before]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if below := difference(old, new):
                changed[key] = below
        elif old != new or key not in before:
            changed[key] = new
    return changed


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that n_trials counts: all but those that were interrupted, killed or one too many."""
    return [t for t in trials if t.state != TrialState.FAIL or "reason" in t.user_attrs]


def run_trials(study: optuna.Study, search: Search, announce: Callable[[FrozenTrial], None]) -> None:
    """Run trials until the study has n_trials, including those of other workers. Raises KeyboardInterrupt."""
    while len(counted(study.get_trials(deepcopy=False))) < search.n_trials:
        study.optimize(
            lambda trial: objective(trial, search), n_trials=1, catch=(Exception,), callbacks=[lambda _, t: announce(t)]
        )


def objective(trial: optuna.Trial, search: Search) -> float:
    """Train with the trial's values and return the best validation accuracy."""
    earlier = [t for t in trial.study.get_trials(deepcopy=False) if t.number < trial.number]
    if len(counted(earlier)) >= search.n_trials:  # another worker has just begun the last one
        raise UserError("one trial too many")
    chosen = overrides(draw(trial, search.space))
    folder = search.folder / "trials" / f"{trial.number:03d}_{overridden(chosen)}"
    trial.set_user_attr("folder", str(folder))
    try:
        config = api.compose([*search.overrides, *chosen], output_dir=folder)
        metrics = api.train(config, quiet=True, callbacks=[Pruning(trial)]).metrics
        trial.set_user_attr("epochs", metrics["epochs"])
        if metrics[METRIC] is None or not math.isfinite(metrics[METRIC]):
            raise UserError(f"the run ended without {METRIC}")
        return metrics[METRIC]
    except optuna.TrialPruned:
        raise
    except Exception as error:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "cifar_lightning.log").open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        reason = first_line(error)
        trial.set_user_attr("reason", reason if isinstance(error, UserError) else f"{type(error).__name__}: {reason}")
        raise
    except BaseException as interruption:  # Optuna records KeyboardInterrupt only
        raise KeyboardInterrupt from interruption


def draw(trial: optuna.Trial, space: Sequence[Parameter]) -> dict[str, Any]:
    """The value of each active parameter in this trial."""
    point: dict[str, Any] = {}
    for p in space:
        if p.active(point):
            categories = {"choices": list(map(text, p.arguments["choices"]))} if p.type == "categorical" else {}
            point[p.key] = value_of(getattr(trial, f"suggest_{p.type}")(p.key, **{**p.arguments, **categories}), p)
    return point


def point_of(trial: FrozenTrial, space: Sequence[Parameter]) -> dict[str, Any]:
    """The value of each active parameter in a finished trial."""
    return {p.key: value_of(trial.params[p.key], p) for p in space if p.key in trial.params}


def value_of(suggested: Any, parameter: Parameter) -> Any:
    """Optuna's value as the config gets it: a category's text as the choice, a float with six significant digits."""
    if parameter.type == "categorical":
        return {text(choice): choice for choice in parameter.ends}[suggested]
    return float(f"{suggested:.6g}") if parameter.type == "float" else suggested


class Pruning(Callback):
    """Report each epoch's validation accuracy to Optuna, and stop the run if the pruner says so.

    At the start of the next epoch, when the last one is in history.csv and in the checkpoint.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        value = trainer.callback_metrics.get(METRIC)
        if value is None:
            return
        self._trial.report(float(value), step=trainer.current_epoch)
        if self._trial.should_prune():
            self._trial.set_user_attr("epochs", trainer.current_epoch)
            raise optuna.TrialPruned(f"after epoch {trainer.current_epoch}")
