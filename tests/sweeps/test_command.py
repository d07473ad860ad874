import re
import shlex
from argparse import Namespace
from pathlib import Path

import pytest

from cifar_lightning.commands.sweep import checked_sweep
from cifar_lightning.config.compose import conf_dir, parse_overrides
from cifar_lightning.config.hints import choices
from cifar_lightning.errors import UserError
from cifar_lightning.sweeps import parallel
from cifar_lightning.sweeps.overrides import expand, one_job_for_each_choice


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cifar_lightning.commands.sweep.fetch_data", lambda config: None)  # no CIFAR-10 here


def check(*overrides):
    """The arguments for Hydra, without the sweep's folder."""
    args = Namespace(overrides=list(overrides), config_dir=None)
    return checked_sweep(list(overrides), args).arguments[:-1]


def expanded(override, config_dir=None):
    return expand(parse_overrides([override])[0], config_dir)


def test_a_glob_enters_sub_groups_and_goes_no_further():
    classics = [name for name in choices("experiment") if name.startswith("classic/")]
    assert len(classics) >= 10
    assert expanded("experiment=glob(classic/*)") == f"experiment={','.join(classics)}"
    assert "/" not in expanded("experiment=glob(*)")
    assert (
        expanded("experiment=glob([classic/cnn*,classic/lenet],exclude=classic/*tanh)")
        == "experiment=classic/cnn_batchnorm_dropout,classic/cnn_relu,classic/lenet"
    )
    assert expanded("experiment=demo") is None


def test_a_glob_finds_what_a_person_has_added(tmp_path):
    (tmp_path / "experiment" / "mine").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "experiment" / "mine" / f"{name}.yaml").write_text("# @package _global_\nseed: 5\n")
    assert expanded("experiment=glob(mine/*)", str(tmp_path)) == "experiment=mine/a,mine/b"


def test_a_glob_that_finds_nothing_is_an_error():
    with pytest.raises(
        UserError, match=r"experiment=glob\(clasic/\*\) matches nothing. Choose from: cifar100/resnet, classic/alexnet"
    ):
        expanded("experiment=glob(clasic/*)")


def test_a_sweep_over_a_glob_is_one_over_its_list():
    assert check("model=glob(cnn?)")[0] == "model=cnn2,cnn4"


def test_the_jobs_are_told_what_is_swept():
    assert check("seed=1,2", "model=cnn2", "activation=relu,tanh")[3:] == [
        "hydra.sweep.subdir=${job_folder:seed,activation}"
    ]
    own = ["seed=1,2", "hydra.sweep.subdir=x${hydra.job.num}"]
    assert check(*own) == own


def test_jobs_that_would_all_start_at_once_come_in_batches():
    given = ["hydra/launcher=submitit_local", "seed=1,2"]
    assert check(*given)[-1] == f"hydra.sweeper.max_batch_size={parallel.jobs_at_once()}"
    given.append("hydra.sweeper.max_batch_size=7")
    assert check(*given) == [*given, "hydra.sweep.subdir=${job_folder:seed}"]


def test_each_value_is_in_a_job_that_is_checked():
    jobs = one_job_for_each_choice(["model=cnn2", "seed=1,2,3", "activation=relu,tanh"])
    assert jobs == [["model=cnn2", f"seed={s}", f"activation={a}"] for s, a in ((1, "relu"), (2, "tanh"), (3, "relu"))]


DOCUMENT = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8").replace("\\\n", "")
BLOCKS = re.findall(r"```bash\n(.*?)```", DOCUMENT, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if "hydra/launcher" in line]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_is_accepted(line):
    pytest.importorskip(f"hydra_plugins.hydra_{re.search('launcher=([a-z]+)', line)[1]}_launcher")
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "cifar_lightning", "-m"]
    check(*words[4:])


def test_each_launcher_is_documented_in_its_file_with_a_command():
    launchers = sorted((conf_dir() / "hydra" / "launcher").glob("*.yaml"))
    assert [path.stem for path in launchers] == ["joblib", "ray", "submitit_local", "submitit_slurm"]
    for path in launchers:
        assert f"python -m cifar_lightning -m hydra/launcher={path.stem} " in path.read_text(encoding="utf-8")
        assert f"hydra/launcher={path.stem}" in DOCUMENT
