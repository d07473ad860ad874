from concurrent.futures import ThreadPoolExecutor

import pytest
from omegaconf import OmegaConf

from cifar_lightning.config.compose import (
    claim_folder,
    compose,
    conf_dir,
    instantiate,
    overridden,
)
from cifar_lightning.errors import UserError


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "default"),
        (["model=resnet", "optimizer.lr=0.1"], "model=resnet,optimizer.lr=0.1"),
        (["experiment=classic/lenet"], "experiment=classic-lenet"),
        (["data.root=/elsewhere", "paths.log_dir=x", "task_name=a", "+tags=[b]", "seed=1"], "seed=1"),
        (["model.channels=[8, 16]"], "model.channels=8,16"),
        (["+note='a b/../c'"], "+note=ab-..-c"),
        (["data=digits", "activation=relu,tanh", "seed=range(1,4)"], "activation=relu,tanh,seed=range-1,4,data=digits"),
        (["model.a=" + 60 * "a", "model.b=" + 60 * "b", "seed=1"], "model.a=" + 60 * "a"),
        (["model.a=" + 200 * "a"], "model.a=" + 92 * "a"),
    ],
)
def test_a_folder_is_named_after_what_was_typed(overrides, name):
    assert overridden(overrides) == name


def test_a_folder_name_stays_short_enough_for_any_file_system():
    assert len(overridden([f"model.key{i}=value{i}" for i in range(50)])) <= 100


def test_two_runs_with_the_same_name_never_share_a_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(claim_folder, [str(tmp_path / "runs" / "same")] * 20))
    assert len(set(folders)) == 20
    assert all(folder.startswith(str(tmp_path / "runs" / "same")) for folder in folders)


def test_composing_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compose(["data=digits"], return_hydra_config=True)
    assert list(tmp_path.iterdir()) == []


def test_every_key_of_the_default_config_has_a_value():
    assert OmegaConf.missing_keys(compose(["paths.output_dir=here"])) == set()


def test_the_config_folder_holds_the_groups():
    assert {"data", "model", "activation", "augmentation", "optimizer", "scheduler", "trainer"} <= {
        path.name for path in conf_dir().iterdir()
    }


def test_a_target_that_cannot_be_built_is_named_with_the_reason():
    with pytest.raises(UserError, match=r"can't build torch.nn.Linear: .*out_featurs"):
        instantiate({"_target_": "torch.nn.Linear", "in_features": 3, "out_featurs": 4})
    with pytest.raises(UserError, match=r"can't build torch.nn.Linnear: .*Linnear"):
        instantiate({"_target_": "torch.nn.Linnear"})
