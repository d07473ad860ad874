"""The search itself: an Optuna study whose trials are runs, each composed, trained and recorded like any other."""

import logging
import math
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import optuna
from filelock import FileLock
from lightning.pytorch.callbacks import Callback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from cifar_lightning import api
from cifar_lightning.config.compose import overridden
from cifar_lightning.errors import UserError, first_line
from cifar_lightning.search.best import differences, portable
from cifar_lightning.search.definition import Search
from cifar_lightning.search.space import Parameter, overrides, text

log = logging.getLogger(__name__)

HEARTBEAT = 15  # seconds; a trial whose worker has been silent for four of these was killed
METRIC = "val/acc"


def open_study(search: Search) -> optuna.Study:
    """The study of this name, made where there is none yet.

    Raises UserError for a storage that can't be used, or a study that was begun over another space or config.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # trials are logged here, in a line each
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        make_url(search.storage or "sqlite://")
    except (SQLAlchemyError, ValueError) as error:  # the address is not shown: it may hold a password
        raise UserError(f"storage=…: {error}; write it like postgresql://USER:PASSWORD@HOST:5432/DB") from None
    search.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(search.folder / ".lock"):  # two workers that make the same tables at once would fail
        study = optuna.create_study(
            storage=storage(search),
            sampler=Sampler(search.sampler_seed, search.startup_trials),
            pruner=pruner(search),
            study_name=search.study_name,
            direction="maximize",
            load_if_exists=True,
        )
        _check_same(study, search)
    return study


def storage(search: Search) -> optuna.storages.RDBStorage:
    address = search.storage or f"sqlite:///{search.folder / 'study.db'}"
    try:
        # Workers of one SQLite file wait for each other.
        sqlite = make_url(address).get_backend_name() == "sqlite"
        settings = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
        return optuna.storages.RDBStorage(
            address, engine_kwargs=settings, heartbeat_interval=HEARTBEAT, grace_period=4 * HEARTBEAT
        )
    except Exception as error:  # drivers raise anything
        reason = " ".join(str(error.__cause__ or error).split(" (Background")[0].split())
        if isinstance(error, ImportError):
            reason += "; install the driver of this database, such as psycopg[binary] for PostgreSQL"
        raise UserError(f"storage={make_url(address).render_as_string(hide_password=True)}: {reason}") from error


def pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if search.pruner == "hyperband":
        epochs = search.config.trainer.max_epochs
        return optuna.pruners.HyperbandPruner(max_resource=epochs if epochs and epochs > 0 else "auto")
    return optuna.pruners.NopPruner()


class Sampler(optuna.samplers.BaseSampler):
    """TPE whose draws follow from the seed, the trial's number and the trials before it.

    So workers of one study draw differently, and a study that goes on draws as if it had not been interrupted.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        self._seed, self._startup_trials = seed, startup_trials
        self._tpe = self._for(0)

    def _for(self, number: int) -> optuna.samplers.TPESampler:
        return optuna.samplers.TPESampler(
            seed=self._seed * 100_003 + number, n_startup_trials=self._startup_trials, multivariate=True, group=True
        )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._tpe = self._for(trial.number)
        self._tpe.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._tpe.after_trial(study, trial, state, values)


def _check_same(study: optuna.Study, search: Search) -> None:
    """Trials of one study have the same space and the same config but for it, or they could not be compared."""
    now = {"space": {p.key: described(p) for p in search.space}, "config": portable(search.config)}
    before = study.user_attrs
    if "space" not in before:
        for key, value in now.items():
            study.set_user_attr(key, value)
        return
    for key in now:
        changed = differences(before[key], now[key])
        if changed:
            raise UserError(
                f"the study {search.study_name} was begun with another {'space' if key == 'space' else 'config'} "
                f"({', '.join(changed[:3])}): give a new one a name with study_name=…, or delete {search.folder}"
            )


def described(parameter: Parameter) -> dict[str, Any]:
    fields = {key: value for key, value in vars(parameter).items() if key not in ("key", "choices", "when")}
    when = {key: list(values) for key, values in parameter.when.items()}
    return {**fields, "choices": [text(choice) for choice in parameter.choices], "when": when}


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that n_trials counts: all but those that were interrupted, killed or one too many."""
    return [t for t in trials if t.state != TrialState.FAIL or "reason" in t.user_attrs]


def run_trials(study: optuna.Study, search: Search, announce: Callable[[FrozenTrial], None]) -> None:
    """Run trials until the study has n_trials, those of other workers among them. Raises KeyboardInterrupt."""
    while len(counted(study.get_trials(deepcopy=False))) < search.n_trials:
        study.optimize(
            lambda trial: objective(trial, search), n_trials=1, catch=(Exception,), callbacks=[lambda _, t: announce(t)]
        )


def objective(trial: optuna.Trial, search: Search) -> float:
    """Train with what the trial draws; the best validation accuracy."""
    earlier = [t for t in trial.study.get_trials(deepcopy=False) if t.number < trial.number]
    if len(counted(earlier)) >= search.n_trials:  # another worker has just begun the last one
        raise UserError("one trial too many")
    point = draw(trial, search.space)
    what = overrides(point)
    folder = search.folder / "trials" / f"{trial.number:03d}_{overridden(what)}"
    trial.set_user_attr("folder", str(folder))
    try:
        config = api.compose([*search.overrides, *what], output_dir=folder)
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
    except BaseException as interruption:  # the one kind that Optuna records
        raise KeyboardInterrupt from interruption


def draw(trial: optuna.Trial, space: tuple[Parameter, ...]) -> dict[str, Any]:
    """What each active parameter becomes in this trial."""
    point: dict[str, Any] = {}
    for parameter in space:
        if parameter.active(point):
            point[parameter.key] = value_of(suggest(trial, parameter), parameter)
    return point


def point_of(trial: FrozenTrial, space: tuple[Parameter, ...]) -> dict[str, Any]:
    """What each active parameter was in a trial that is over."""
    return {p.key: value_of(trial.params[p.key], p) for p in space if p.key in trial.params}


def value_of(suggested: Any, parameter: Parameter) -> Any:
    """Optuna keeps plain values only, so there the choices of a list go by their texts.

    Floats get four digits of their size or of the range's, whichever is finer: what is trained can be read and typed.
    """
    if parameter.type == "categorical":
        return {text(choice): choice for choice in parameter.choices}[suggested]
    if parameter.type == "int" or not suggested:
        return suggested
    finest = min(abs(suggested), parameter.high - parameter.low or math.inf)
    return min(max(round(suggested, 3 - math.floor(math.log10(finest))), parameter.low), parameter.high)


def suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.type == "categorical":
        return trial.suggest_categorical(parameter.key, [text(choice) for choice in parameter.choices])
    if parameter.type == "int":
        step = 1 if parameter.step is None else int(parameter.step)
        return trial.suggest_int(parameter.key, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
    return trial.suggest_float(parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


class Pruning(Callback):
    """Reports each epoch's validation accuracy, and ends a run that the pruner gives up.

    At the start of the next epoch: by then the last one is in history.csv and in the checkpoint.
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
