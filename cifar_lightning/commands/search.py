"""The command search: search over configs with Optuna by validation accuracy."""

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from cifar_lightning.commands.parser import Command, Given, Key
from cifar_lightning.config.compose import quoted_paths
from cifar_lightning.config.hints import choices
from cifar_lightning.console import say
from cifar_lightning.errors import UserError
from cifar_lightning.search.definition import PRUNERS, SETTINGS, read_search

COMMAND = Command(
    "search",
    "Search for a good config with Optuna (TPE): many runs, compared by validation accuracy, without test data.\n"
    "The same command continues an interrupted study; several at once share its trials.\n"
    "Every other word is an override for all trials.",
    keys={
        "hparams_search": Key(f"what is searched: {', '.join(choices('hparams_search'))}, or a file of your own"),
        "study_name": Key("a name for the study and its folder, logs/search/NAME", "that of the file"),
        "n_trials": Key("how many trials the study will have in total", "the file's, or 30"),
        "pruner": Key("which trials are stopped early", "the file's, or median", PRUNERS),
        "storage": Key("sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DB, ...", "study.db in the study's folder"),
        "sampler_seed": Key("another seed gives other trials of the same space", "the file's, or 0"),
        "startup_trials": Key("how many trials are drawn at random before TPE takes over", "the file's, or 10"),
    },
    examples={
        "hparams_search=sgd": "learning rate, momentum, weight decay, batch size of the baseline",
        "hparams_search=demo n_trials=30": "the embedded digits, no download: minutes on a CPU",
        "hparams_search=mine.yaml trainer.max_epochs=5 pruner=hyperband": "a space of your own",
    },
    usage="hparams_search=NAME|FILE.yaml [key=value ...]",
    overrides=True,
    quiet=True,
)


def run(given: Given) -> int:
    if given["hparams_search"] is None:
        raise UserError(f"hparams_search=NAME is missing. Choose from: {', '.join(choices('hparams_search'))}")
    if find_spec("optuna") is None:
        raise UserError("a search needs Optuna: pip install 'cifar-lightning[search]'")
    settings = {key: given[key] for key in SETTINGS if any(word.startswith(f"{key}=") for word in given["typed"])}
    search = read_search(given["hparams_search"], settings, quoted_paths(given["overrides"]))

    from cifar_lightning import api  # imports torch
    from cifar_lightning.search import outcome, study

    api.load_data(search.config)  # fails here rather than in every trial
    trials = study.open_study(search)
    outcome.announce_start(search, trials)
    interrupted = False
    try:
        study.run_trials(trials, search, lambda trial: outcome.announce_trial(search, trials, trial))
    except KeyboardInterrupt:
        interrupted = True
    best = outcome.write_outcome(search, trials)
    if best or not interrupted:
        outcome.show_outcome(search, trials, best)
    if interrupted:
        say("interrupted: the same command continues", sys.stderr)
        return 130
    return 0


def main(arguments: Sequence[str]) -> int:
    return COMMAND.call(run, arguments)
