"""A bad value of any key is answered by the command: one line, exit code 1, no folder, before long."""

import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.sampling import sampled
from omegaconf import OmegaConf

from cifar_lightning.config.checks import check_values
from cifar_lightning.config.compose import compose, conf_dir, parse_overrides
from cifar_lightning.errors import UserError
from cifar_lightning.runs import train

pytestmark = pytest.mark.timeout(100)  # a hang fails here, not at the suite's limit

QUICK = ["data=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.accelerator=cpu"]
ANY_TEXT = ("data.root", "paths.")  # a path may have any characters
ELSEWHERE = {"experiment", "debug", "hparams_search", "hydra"}


def leaves(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict) and value
        found |= leaves(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def keys_of_choices() -> dict[str, list[str]]:
    """Each key of each group's files, beside the first choice that has it ("" for those of no group)."""
    found: dict[str, str] = {}
    for path in [*sorted(conf_dir().glob("*.yaml")), *sorted(conf_dir().glob("*/*.yaml"))]:
        group = path.parent.name if path.parent != conf_dir() else ""
        if group in ELSEWHERE or group == "activation":
            continue
        content = yaml.safe_load(path.read_text())
        content.pop("defaults", None)
        common = path.stem.removesuffix("_common")  # the keys of all files of a group
        prefix = f"{common}." if common != path.stem else f"{group}." if group else ""
        for key in leaves(content, prefix):
            if not key.startswith(ANY_TEXT):
                found.setdefault(key, f"{group}={path.stem}" if group else "")
    return {choice: [key for key, first in found.items() if first == choice] for choice in found.values()}


def check(outcome, folder: Path, message: str = "") -> None:
    assert outcome.code == 1, outcome.out
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.out
    assert message in outcome.err
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_value_of_the_wrong_kind_is_refused_for_every_key(monkeypatch):
    once = cache(lambda *words: compose(words))
    monkeypatch.setattr("cifar_lightning.config.checks.compose", lambda words: once(*words))
    accepted, unnamed = [], []
    for choice, keys in keys_of_choices().items():
        config = compose([*QUICK, *filter(None, [choice])])
        for key in keys:
            changed = deepcopy(config)
            OmegaConf.update(changed, key, {"no": "such"}, merge=False)
            overrides = parse_overrides([*filter(None, [choice]), f"{key}={{no:such}}"])
            try:
                check_values(changed, overrides)
            except UserError as error:
                unnamed += [key] if key not in str(error) else []
            else:
                accepted.append(key)
    assert unnamed == []
    # Mappings, and what only their constructors know.
    assert sorted(accepted) == ["augmentation.transforms", "loss.weight", "model.activation", "optimizer.groups"]


@pytest.mark.parametrize(
    "key",
    ["seed", "data.batch_size", "optimizer.lr", "augmentation.transforms", "optimizer.groups"],
)
def test_the_command_refuses_it_in_one_line(command, key):
    check(command(*QUICK, f"{key}={{no:such}}"), command.folder, key)


@pytest.mark.parametrize(
    ("typed", "message"),
    sampled([
        # Known before torch is imported
        ("~seed", "~seed: every run needs this key"),
        ("loss=null", "loss=null: choose a loss"),
        ("~data.batch_size", "~data.batch_size: every run needs this key"),
        ("~model", "~model: every run needs a model. Choose from: alexnet, "),
        ("logger=[]", "logger=[]: every run needs a logger. Choose from: csv, "),
        ("data.num_workers=100000", "data.num_workers=100000: must be an integer from 0 to 256, or null"),
        ("published_test_acc=abc", "published_test_acc=abc: must be an accuracy in %"),
        ("trainer.val_check_interval=0", "trainer.val_check_interval=0: must be a count of at least 1"),
        ("trainer.devices=0", "trainer.devices=0: must be a number of devices"),
        ("trainer.strategy=horovod", "trainer.strategy=horovod: must be auto, ddp or"),
        ("callbacks.last_checkpoint.every_minutes=-1", "callbacks.last_checkpoint.every_minutes=-1: must be"),
        ("callbacks.direct_steps.seconds=-1", "callbacks.direct_steps.seconds=-1: must be"),
        ("callbacks.finite_loss.every_n_steps=0", "callbacks.finite_loss.every_n_steps=0: must be"),
        ("~model._target_", "model._target_ is missing: choose another model. Choose from: alexnet, "),
        ("~optimizer._target_", "optimizer._target_ is missing"),
        ("~scheduler._target_", "scheduler._target_ is missing"),
        ("~augmentation.transforms", "augmentation.transforms is missing"),
        ("~data.name", "~data.name: every run needs this key"),
        ("model=null", "model=null: choose a model. Choose from: alexnet"),
        ("~optimizer.lr", "optimizer.lr is missing"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: must be an integer of at least 1, or -1"),
        ("trainer.max_steps=0", "trainer.max_steps=0: must be an integer of at least 1, or -1"),
        ("trainer.limit_train_batches=0", "trainer.limit_train_batches=0: must be a count of at least 1"),
        ("model=cnn2 model.channels=[]", "model.channels=[]: must be a list of"),
        ("model=vgg model.depth=12", "model.depth=12: must be one of 11, 13, 16, 19"),
        ("model=resnet model.block=wide", "model.block=wide: must be one of basic, bottleneck, preact"),
        ("model=vit model.stochastic_depth=1", "model.stochastic_depth=1: must be a number from 0 to below 1"),
        ("model=vit model.layer_scale=0", "model.layer_scale=0: must be a number above 0, or null"),
        ("tags=5", "tags=5: must be a list of words"),
        # Monitors: is there such a metric, and will it come in time?
        ("callbacks=early_stopping callbacks.early_stopping.monitor=loss", "=loss: there is no such metric"),
        ("callbacks=early_stopping data.val_size=0", "monitor=val/loss needs validation, but there is no"),
        ("callbacks=early_stopping trainer.limit_val_batches=0", "but trainer.limit_val_batches=0 turns it off"),
        ("callbacks=early_stopping trainer.limit_val_batches=0.0", "but trainer.limit_val_batches=0 turns it off"),
        ("callbacks=early_stopping trainer.check_val_every_n_epoch=2", "=2 comes after trainer.max_epochs=1"),
        ("scheduler=plateau trainer.check_val_every_n_epoch=null trainer.val_check_interval=8", "of 3 batches"),
        (
            "scheduler=plateau trainer.max_epochs=9 trainer.check_val_every_n_epoch=null trainer.val_check_interval=8",
            "trainer.val_check_interval=8 validates less often: monitor train/loss",
        ),
        ("scheduler=plateau scheduler.monitor=val/los", "scheduler.monitor=val/los: there is no such metric"),
        ("callbacks.best_checkpoint.monitor=accuracy", "callbacks.best_checkpoint.monitor=accuracy: there is no such"),
        ("trainer.val_check_interval=1000", "trainer.val_check_interval=1000: an epoch has only 3 batches"),
        ("trainer.check_val_every_n_epoch=null", "every trainer.val_check_interval batches"),
        # Devices that are not there
        ("trainer.accelerator=tpu", "trainer.accelerator=tpu needs the package torch_xla"),
        ("data=cifar10 data.root=empty trainer.accelerator=mps", "this machine has no Apple GPU"),
        # Known to a constructor only
        ("model=torchvision model.name=alexnet", "alexnet can't take images of 32 px: give model.image_size"),
        ("model=torchvision model.name=inception_v3", "inception_v3 can't take images of 32 px"),
        ("model=torchvision model.name=vit_b_16", "vit_b_16 takes images of 224 px only: give model.image_size=224"),
        ("model=torchvision model.name=vgg16 model.stem=cifar", "model.stem=cifar: vgg16 has no such stem"),
        ("model=torchvision model.name=resnet18 model.dropout=0.5", "resnet18 has no dropout to set"),
        ("model=torchvision model.name=resnet18 model.freeze=none model.pretrained=true", "put that file at"),
        ("model=torchvision model.pretrained=none.pth", "model.pretrained=none.pth: there is no such file"),
        ("model=timm model.name=resnet81", "model.name=resnet81: timm has no such network; did you mean resnet18?"),
        ("model=timm model.name=inception_v3", "inception_v3 can't take images of 32 px ("),
        ("model=timm model.pretrained=none.pth", "model.pretrained=none.pth: there is no such file"),
        ("model=timm model.freeze=some", "model.freeze=some: must be one of none, all_but_head, all_but_last_stage"),
        ("model=timm model.dropout=1.5", "model.dropout=1.5: must be a number from 0 to below 1"),
        ("model=wide_resnet model.depth=15", "model.depth=15: must be 6 n + 4"),
        ("model=vit model.patch=5", "model.patch=5: must divide the image's 32 px: choose from 1, 2, 4, 8, 16"),
        ("model=vit model.heads=7", "model.heads=7: must divide model.width=192"),
        ("model=convmixer model.kernel=4", "model.kernel=4: must be odd, such as 5"),
        ("model=densenet model.depth=99", "model.depth=99: must be 6 n + 4 for n layers per block, e.g. 100"),
        ("model=resnet model.blocks=[2,2]", "model.blocks has 2 entries for 3 model.widths"),
        ("model=cnn2 model.kernel=[3,3,3]", "model.kernel has 3 entries for 2 model.channels"),
        ("model=cnn2 model.hidden=[0]", "model.channels, model.hidden: give sizes of at least 1"),
        ("model=cnn2 model.dropout=2", "dropout probability has to be between 0 and 1, but got 2"),
        ("augmentation=flip augmentation.transforms.flip.p=2", "augmentation.transforms.flip: HorizontalFlip: p=2"),
        ("augmentation=cutmix augmentation.transforms.cutmix.alpha=-1", "augmentation.transforms.cutmix: "),
        ("augmentation=flip augmentation.pipeline=worker", "pipeline=worker needs transforms that can be called"),
        ("augmentation=flip augmentation.pipeline=gpu", "augmentation.pipeline=gpu"),
        ("optimizer=torch optimizer.name=Adamm", "torch.optim.Adamm"),
        ("optimizer._target_=os.getpid", "os.getpid"),
        ("scheduler=multistep scheduler.milestones=[0]", "scheduler.milestones=[0]: give shares of the training"),
        ("scheduler=onecycle scheduler.pct_start=2", "scheduler.pct_start=2: give a share of the training"),
        ("trainer.precision=bf16-true trainer.gradient_clip_algorithm=norm trainer.plugins=x", "trainer.plugins"),
        ("+callbacks.mine._target_=os.getpid", "callbacks.mine: expected a Lightning Callback, got int"),
        ("+logger.mine._target_=os.getpid", "os.getpid: expected a Lightning Logger, got int"),
        ("+callbacks.mine._target_=no.such.Callback", "no.such.Callback"),
        ("+trainer.no_such_key=1", "no_such_key"),
        ("+data.no_such_key=1", "data: ImageDataModule.__init__() got an unexpected keyword argument 'no_such_key'"),
        ("trainer.limit_test_batches=0.0001", "trainer.limit_test_batches=0.0001 is less than one batch"),
    ], every=3),
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_no_folder(command, monkeypatch, typed, message):
    monkeypatch.setenv("TORCH_HOME", str(command.folder.parent / "no_weights_here"))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    check(command(*QUICK, *typed.split()), command.folder, message)


@pytest.mark.parametrize("name", ["LOCAL_RANK", "RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"])
def test_a_rank_that_is_not_a_number_is_one_line(command, monkeypatch, name):
    monkeypatch.setenv(name, "abc")
    check(command(*QUICK), command.folder, f"the environment variable {name}=abc must be a number")


def test_training_does_not_go_on_from_weights_alone(command):
    quick = [*QUICK, "model=cnn2", "augmentation=none", "logger=none", "test=false"]
    assert command(*quick, "+callbacks.best_checkpoint.save_weights_only=true", "hydra.run.dir=first").code == 0
    Path("first/checkpoints/best.ckpt").rename("alone.ckpt")
    for typed in ("ckpt_path=alone.ckpt", "ckpt_path=alone.ckpt trainer.max_epochs=2"):
        outcome = command(*QUICK, *typed.split())
        assert (outcome.code, outcome.err.count("\n")) == (1, 1)
        assert "has weights only" in outcome.err
        assert {path.name for path in command.folder.iterdir()} == {"first", "alone.ckpt"}
    assert command(*QUICK, "ckpt_path=alone.ckpt", "train=false").code == 0


def no_network(*_: Any, **__: Any) -> None:
    raise OSError("no network in tests")


@pytest.mark.parametrize("typed", [["-m", "cifar_lightning.runs.train"], [train.__file__]])
def test_a_module_that_is_no_command_says_so(tmp_path, typed):
    done = subprocess.run([sys.executable, *typed], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cifar_lightning.runs.train is no command; python -m cifar_lightning --help")
    assert done.stderr.count("\n") == 1
