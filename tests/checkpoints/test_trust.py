"""Going on with a checkpoint, or testing it, builds what its config names: nothing of that may be an attack."""

import copy
import functools
import io
import itertools
import os
import tracemalloc
import warnings
import zipfile

import pytest
import torch
from helpers.checkpoints import checkpoint_of
from helpers.sampling import sampled
from omegaconf import OmegaConf
from torch import nn

from cifar_lightning.checkpoints.read import read_checkpoint
from cifar_lightning.checkpoints.trust import is_admitted
from cifar_lightning.config.compose import compose, conf_dir, plain
from cifar_lightning.errors import UserError
from cifar_lightning.runs.resume import config_to_go_on_with

RUN = ["data=digits", "model=cnn2", "augmentation=trivial_augment", "callbacks=early_stopping", "logger=[csv,mlflow]"]


composed_once = functools.cache(lambda *overrides: compose(overrides))


def composed(folder, *typed, ckpt_path=None):
    config = copy.deepcopy(composed_once(*RUN, "paths.output_dir=X", *typed))
    config.paths.output_dir, config.ckpt_path = str(folder), ckpt_path and str(ckpt_path)
    return config


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that leaves a file behind when it is imported, and the file."""
    (tmp_path / "spy.py").write_text(
        f"import os, pathlib, torch\npathlib.Path({str(tmp_path / 'trap')!r}).touch()\n"
        "class Schedule:\n    pass\nclass Net(torch.nn.Linear):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "trap"


@pytest.fixture
def checkpoint(tmp_path):
    """`checkpoint(change)` is the file of a run in tmp_path/then whose config was changed."""

    def write(change=lambda config: None):
        config = plain(composed(tmp_path / "then"))
        content = checkpoint_of(config)
        change(config)
        torch.save(content, tmp_path / "a.ckpt")
        return tmp_path / "a.ckpt"

    return write


def refused(path, folder, *typed):
    with pytest.raises(UserError) as caught:
        config_to_go_on_with(composed(folder, *typed, ckpt_path=path), list(typed))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_alone_goes_on_with_the_callbacks_and_loggers_of_the_command(tmp_path, checkpoint):
    then, now = tmp_path / "then", tmp_path / "now"
    evil = {"_target_": "os.mkdir", "path": "x"}
    path = checkpoint(
        lambda c: (c["callbacks"].update(a=evil), c["logger"].update(a=evil), c["trainer"].update(x=evil))
    )
    config = config_to_go_on_with(composed(now, ckpt_path=path), [])
    assert config.callbacks.best_checkpoint.dirpath == f"{now}/checkpoints"
    assert str(then) not in str(plain(config))
    assert "os.mkdir" not in str(plain(config))


def test_a_run_goes_on_in_its_own_folder_with_what_its_own_config_names(tmp_path, checkpoint, trap):
    run = tmp_path / "then"
    (run / "checkpoints").mkdir(parents=True)
    path = checkpoint().rename(run / "checkpoints" / "last.ckpt")
    config = plain(composed(run))
    config["callbacks"]["mine"] = {"_target_": "spy.Net"}
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    assert config_to_go_on_with(composed(run, ckpt_path=path), []).callbacks.mine == {"_target_": "spy.Net"}
    assert not trap.exists()  # nothing is built yet


WAYS = {
    "call": {"_target_": "os.mkdir", "path": "TRAP"},
    "positional": {"_target_": "os.mkdir", "_args_": ["TRAP"]},
    "shell": {"_target_": "os.system", "command": "touch TRAP"},
    "partial": {"_target_": "os.mkdir", "_partial_": True, "path": "TRAP"},
    "subprocess": {"_target_": "subprocess.run", "args": ["touch", "TRAP"]},
    "eval": {"_target_": "builtins.eval", "_args_": ["open('TRAP', 'w')"]},
    "import": {"_target_": "spy.Net"},
    "get_method": {"_target_": "hydra.utils.get_method", "path": "spy.Net"},
    "instantiate": {"_target_": "hydra.utils.instantiate", "_args_": [{"_target_": "os.mkdir", "path": "TRAP"}]},
    "unpickle": {"_target_": "torch.load", "f": "TRAP", "weights_only": False},
    "download": {"_target_": "torch.hub.load", "repo_or_dir": "TRAP", "model": "x"},
}


def filled(value, trap):
    if isinstance(value, dict):
        return {key: filled(item, trap) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, trap) for item in value]
    return value.replace("TRAP", str(trap)) if isinstance(value, str) else value


PLACES = {
    "model": lambda config, evil: config.update(model=evil),
    "in the model": lambda config, evil: config["model"].update(activation=evil),
    "in a list of the model": lambda config, evil: config["model"].update(hidden=[[evil]]),
    "activation": lambda config, evil: config.update(activation=evil),
    "optimizer": lambda config, evil: config.update(optimizer=evil),
    "in the optimizer": lambda config, evil: config["optimizer"].update(lr=evil),
    "scheduler": lambda config, evil: config.update(scheduler=evil),
    "in the scheduler": lambda config, evil: config["scheduler"].update(pct_start=evil),
    "a transform": lambda config, evil: config["augmentation"]["transforms"].update(more=evil),
    "in a transform": lambda config, evil: config["augmentation"]["transforms"]["policy"].update(x=evil),
    "the data": lambda config, evil: config["data"].update(root=evil),
    "a key of no group": lambda config, evil: config.update(tags=[evil]),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_doctored_config_is_run(tmp_path, trap, checkpoint, way):
    for place, typed in itertools.product(PLACES, ([], ["train=false"])):
        path = checkpoint(lambda config, place=place: PLACES[place](config, filled(WAYS[way], trap)))
        message = refused(path, tmp_path / "now", *typed)
        assert message.startswith(f"{path}: "), place
        assert f"its config names '{WAYS[way]['_target_']}'" in message, place
        assert not trap.exists(), place
        assert not (tmp_path / "now").exists()


@pytest.mark.parametrize("typed", [[], ["train=false"]], ids=["resumed", "tested"])
def test_the_command_refuses_a_doctored_checkpoint_in_one_line_and_runs_nothing(command, checkpoint, trap, typed):
    path = checkpoint(lambda config: config["optimizer"].update(evil={"_target_": "os.mkdir", "path": str(trap)}))
    before = set(command.folder.rglob("*"))
    outcome = command(f"ckpt_path={path}", *typed)
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: {path}: its config names 'os.mkdir', which is not a network")
    assert outcome.err.count("\n") == 1
    assert not trap.exists()
    left = {file.name for file in set(command.folder.rglob("*")) - before if file.is_file()}
    assert left <= {"cifar_lightning.log", "config.yaml", "hydra.yaml", "overrides.yaml"}


@pytest.mark.parametrize("typed", ["trust=spy", "trust=[other,spy]", "trust='other,spy'"])
def test_a_module_that_the_user_trusts_may_be_named(tmp_path, trap, checkpoint, typed):
    path = checkpoint(lambda config: config["model"].update(activation={"_target_": "spy.Net"}))
    config = config_to_go_on_with(composed(tmp_path / "now", typed, ckpt_path=path), [])
    assert config.model.activation == {"_target_": "spy.Net"}


def test_the_checkpoint_itself_is_not_asked_what_is_trusted(tmp_path, trap, checkpoint):
    path = checkpoint(lambda config: config.update(trust=["spy"], model={"_target_": "spy.Net"}))
    assert "spy.Net" in refused(path, tmp_path / "now")


def targets(tree):
    """Every `_target_` in a config."""
    if isinstance(tree, dict):
        yield from ([tree["_target_"]] if "_target_" in tree else [])
        tree = list(tree.values())
    if isinstance(tree, list):
        for value in tree:
            yield from targets(value)


def everything_in_conf():
    for group in ("model", "activation", "optimizer", "scheduler", "augmentation"):
        for file in sorted((conf_dir() / group).glob("*.yaml")):
            yield group, file.stem


@pytest.mark.parametrize(("group", "name"), sampled(everything_in_conf()))
def test_every_choice_of_ours_may_be_resumed(tmp_path, group, name):
    config = plain(composed(tmp_path, f"{group}={name}"))
    for target in targets(config[group]):
        assert is_admitted(target), target


DANGERS = {
    "an interpolation": (lambda c: c["data"].update(root="${oc.env:HOME}"), "holds an interpolation"),
    "a folder that it makes": (lambda c: c.update(x="${run_folder:/x,y}"), "holds an interpolation"),
    "nesting": (lambda c: c.update(tags=nested(50)), "levels deep"),
    "a list in a list in a list": (lambda c: c.update(tags=laughs()), "too many entries"),
    "a thousand workers": (lambda c: c["data"].update(num_workers=1000), "data.num_workers=1000"),
    "a value that may not be": (lambda c: c["data"].update(batch_size=-1), "data.batch_size=-1: must be"),
    "no trainer": (lambda c: c.pop("trainer"), "missing or incomplete"),
    "no groups": (lambda c: c.clear(), "missing or incomplete"),
    "a text for a group": (lambda c: c.update(model="none"), "missing or incomplete"),
    "no such key of the data": (lambda c: c["data"].pop("batch_size"), "can't be used"),
}


def nested(depth):
    return [nested(depth - 1)] if depth else []


def laughs():
    """Nine lists, ten billion entries."""
    level: list = ["lol"]
    for _ in range(10):
        level = [level] * 10
    return level


@pytest.mark.parametrize("danger", DANGERS)
def test_what_a_saved_config_never_holds_is_refused_in_a_line(tmp_path, checkpoint, danger):
    change, message = DANGERS[danger]
    assert message in refused(checkpoint(change), tmp_path / "now")
    assert not (tmp_path / "now").exists()


@pytest.mark.parametrize("path", ["s3://bucket/x", "then/checkpoints/../../../x"])
def test_lightning_is_not_made_to_remove_other_files(tmp_path, checkpoint, path):
    content = torch.load(checkpoint(), weights_only=True)
    content["callbacks"] = {"ModelCheckpoint{'monitor': 'val/acc'}": {"best_k_models": {f"{path}": torch.ones(())}}}
    torch.save(content, tmp_path / "b.ckpt")
    assert "leaves the run's folder" in refused(tmp_path / "b.ckpt", tmp_path / "now")


def repacked(path, compression=zipfile.ZIP_STORED, **contents):
    """The checkpoint with other contents of its members, by the end of their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for member in old.infolist():
            name = member.filename.rpartition("/")[2]
            new.writestr(member.filename, contents.get(name, old.read(member)))
    path.write_bytes(buffer.getvalue())
    return path


def peak_while_refused(path):
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read_checkpoint(path)
        return str(caught.value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_zip_bomb_is_not_unpacked(checkpoint):
    path = repacked(checkpoint(), zipfile.ZIP_DEFLATED, **{"0": bytes(1 << 27)})
    assert path.stat().st_size < 1 << 20
    message, peak = peak_while_refused(path)
    assert "it is compressed" in message
    assert peak < 1 << 22


def test_numbers_that_are_not_in_the_file_are_not_made(tmp_path):
    for number, tensor in enumerate(
        [torch.zeros(1).expand(10**12), torch.empty(10**12, device="meta"), torch.sparse_coo_tensor(size=(10**9,))]
    ):
        path = tmp_path / f"{number}.ckpt"
        torch.save(checkpoint_of() | {"optimizer_states": [tensor]}, path)
        with pytest.raises(UserError, match="can't be read as a checkpoint"):
            read_checkpoint(path)


def test_a_storage_that_claims_to_be_larger_is_refused(checkpoint):
    path = checkpoint()
    with zipfile.ZipFile(path) as file:
        (name,) = (name for name in file.namelist() if name.endswith("data.pkl"))
        content = file.read(name)
    claimed = content.replace(b"M\xe8\x03", b"J\x00\x00\x00\x40")  # the optimizer's 1,000 numbers become 2**30
    assert claimed != content
    with pytest.raises(UserError, match="can't be read as a checkpoint"):
        read_checkpoint(repacked(path, **{"data.pkl": claimed}))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x80\x02}.", bytes(100)])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.ckpt can't be read as a checkpoint"):
        read_checkpoint(path)


def test_a_checkpoint_of_torchs_old_format_is_refused(tmp_path):
    torch.save(checkpoint_of(), tmp_path / "a.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="can't be read as a checkpoint"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"c__builtin__\nbytearray\nJ\x00\x00\x00\x70\x85R0", "it names __builtin__.bytearray"),
        (b"ctorch.storage\nUntypedStorage\nJ\x00\x00\x00\x70\x85R0", "it names torch.storage.UntypedStorage"),
        (b"(" + b"c__builtin__\nset\nq\x01" + b"h\x01)R" * 100_000 + b"l0", "too many entries for its size"),
        (
            b"}N" + b"\x85" * 200_000 + b"Ns0",
            "too many entries for its size",
        ),  # its hash would overflow the stack
        (b"X\xff\xff\xff\x7fabc", "truncated"),
    ],
    ids=["bytearray", "storage", "sets", "tuples in tuples", "text"],
)
def test_a_pickle_that_would_cost_more_than_the_file_is_not_run(checkpoint, pickled, message):
    path = repacked(checkpoint(), **{"data.pkl": b"\x80\x02" + pickled + b"}."})
    refusal, peak = peak_while_refused(path)
    assert message in refusal
    assert peak < 1 << 24


def test_a_description_that_stands_twice_is_refused(checkpoint):
    path = checkpoint()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "a") as file:
        name = next(name for name in file.namelist() if name.endswith("data.pkl"))
        file.writestr(name, b"\x80\x02}.")
    with pytest.raises(UserError, match="claims to contain more"):
        read_checkpoint(path)


def test_code_in_the_pickle_is_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trap"),)

    torch.save(checkpoint_of() | {"more": Code(), "net": nn.Linear(1, 1)}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="contains only data"):
        read_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "trap").exists()
