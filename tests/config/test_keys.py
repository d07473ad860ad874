"""One table says of every key what it decides, and everything that asks agrees."""

import json
from functools import cache
from pathlib import Path

import pytest
from helpers.sampling import sampled
from omegaconf import OmegaConf

from cifar_lightning.config.compose import compose, conf_dir
from cifar_lightning.config.hints import all_keys, choices
from cifar_lightning.config.keys import KEYS, decides
from cifar_lightning.errors import UserError
from cifar_lightning.reporting.run_files import load_runs
from cifar_lightning.reporting.summary import summarize
from cifar_lightning.runs.resume import resumed_config

GROUPS = sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name not in ("hydra", "debug"))
QUICK = ["data=digits", "model=cnn2", "augmentation=none", "logger=none", "test=false", "trainer.max_epochs=1"]


@cache
def composed(group: str, choice: str) -> list[str]:
    if group == "hparams_search":
        return []
    return all_keys(OmegaConf.to_container(compose([f"{group}={choice}"]), resolve=False))


@pytest.mark.parametrize("group", sampled(GROUPS, every=2))
def test_every_key_has_an_entry(group):
    for choice in choices(group):
        for key in composed(group, choice):
            assert key in KEYS or key.rpartition(".")[0] in KEYS or key.partition(".")[0] in KEYS, key
            if key.startswith("callbacks.") and key.count(".") == 1 and key.rpartition(".")[2] not in (
                "best_checkpoint", "early_stopping"
            ):  # fmt: skip
                assert key in KEYS, key  # a callback of ours says whether it decides the result


def test_every_entry_is_of_a_key_or_choice_that_there_is():
    known = {key for group in GROUPS for choice in choices(group) for key in composed(group, choice)}
    known |= {"model.num_classes", "model.in_channels", "model.input_size"}  # arguments of networks
    known |= {"hydra", "choices", "overrides", "experiment", "debug", "trainer.default_root_dir"} | set(GROUPS)
    assert {key.partition("=")[0] for key in KEYS} <= known


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("+trainer.devices=1", "speed"),
        ("trainer.devices=2", "speed"),
        ("~callbacks.progress_bar", "place"),
        ("hydra/launcher=joblib", "place"),
        ("experiment=classic/lenet", "result"),
        ("model.channels=[1,2]", "result"),
        ("+my_own=1", "result"),
    ],
)
def test_an_override_decides_what_its_key_does(override, what):
    assert decides(override).what == what


def test_runs_that_differ_in_seed_and_speed_are_one_row(command):
    for i, typed in enumerate(["seed=1", "seed=2 callbacks.direct_steps.seconds=0", "seed=3 data.eval_batch_size=100"]):
        outcome = command(*QUICK, "trainer.limit_train_batches=1", *typed.split(), f"hydra.run.dir=logs/{i}")
        assert outcome.code == 0, outcome.err
    for path in Path("logs").glob("*/metrics.json"):  # runs of a few batches are left out otherwise
        path.write_text(json.dumps(json.loads(path.read_text()) | {"partial": False}))
    (row,) = summarize(load_runs(["logs"])[0]).rows
    assert "(3)" in row["validation"]


def test_the_reader_of_the_same_arrays_may_change_on_resume_and_the_split_may_not():
    saved = OmegaConf.to_container(compose(["data.source=pickle", "paths.output_dir=run"]), resolve=True)
    for typed in ("data.source=torchvision", "compile=true", "data.num_workers=2"):
        resumed = resumed_config(saved, compose([typed, "paths.output_dir=run"]), [typed])
        key, _, value = typed.partition("=")
        assert str(OmegaConf.select(resumed, key)).lower() == value
    typed = ["data.split_seed=1"]
    with pytest.raises(UserError, match=r"data\.split_seed=1: the checkpoint's run has 42"):
        resumed_config(saved, compose([*typed, "paths.output_dir=run"]), typed)


def test_a_sweep_over_what_decides_nothing_is_refused(command):
    outcome = command("-m", *QUICK, "trainer.accelerator=cpu,auto")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert outcome.err.startswith("error: trainer.accelerator does not affect the result")
    assert list(command.folder.iterdir()) == []
