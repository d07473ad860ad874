import pytest

from cifar_lightning.config.compose import compose
from cifar_lightning.errors import UserError
from cifar_lightning.sweeps.folders import digest, identify, job_folder, job_name

SMALL = ["model=cnn2", "paths.output_dir=somewhere"]


def test_a_job_is_named_after_what_is_swept():
    overrides = ["data=digits", "experiment=classic/lenet", "seed=1", "data.num_workers=2"]
    assert job_name(overrides, ["experiment", "seed"]) == "experiment=classic-lenet,seed=1"
    assert job_name(overrides, ["data.num_workers"]) == "data.num_workers=2"
    assert job_name(overrides) == "data=digits,experiment=classic-lenet,seed=1"
    assert job_name(["ckpt_path=a"]) == "default"


def test_names_that_are_cut_or_lose_characters_stay_different():
    long = [[f"optimizer.betas=[0.9,0.99{'9' * 100}]", f"seed={seed}"] for seed in (1, 2)]
    lists = [["model.channels=[8,16]"], ["model.channels=[8, 16 ]"], ["model.name='8,16'"]]
    names = [job_name(overrides) for overrides in [*long, *lists]]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 100
    assert all("/" not in name and " " not in name for name in names)


@pytest.mark.parametrize(
    "override",
    ["data.root=elsewhere", "logger=none", "trainer.accelerator=cpu", "paths.output_dir=x", "tags=[a]", "task_name=x"],
)
def test_where_and_how_a_job_runs_does_not_make_it_another(override):
    assert digest(compose([*SMALL, override])) == digest(compose(SMALL))


@pytest.mark.parametrize("override", ["seed=1", "trainer.max_epochs=31", "model.dropout=0.2", "optimizer=adam"])
def test_what_is_trained_makes_it_another(override):
    assert digest(compose([*SMALL, override])) != digest(compose(SMALL))


def test_a_resumed_run_is_the_same_job_wherever_its_folder_lies():
    resumed = compose([*SMALL, "paths.output_dir=/old/place", "ckpt_path=/old/place/checkpoints/last.ckpt"])
    assert digest(resumed) == digest(compose(SMALL))
    assert digest(compose([*SMALL, "ckpt_path=/of/another.ckpt"])) != digest(compose(SMALL))


def sweep_config(folder, *overrides):
    config = compose(["model=cnn2", *overrides, f"hydra.sweep.dir={folder}"], return_hydra_config=True)
    config.paths.output_dir = "somewhere"
    return config


def test_a_job_is_found_by_its_config_whatever_its_folder_is_called(tmp_path):
    earlier = tmp_path / "activation=relu"  # of a sweep in which the seed was the same for all
    earlier.mkdir()
    identify(earlier, sweep_config(tmp_path, "activation=relu", "seed=1"))
    same = sweep_config(tmp_path, "seed=1", "activation=relu", "data.root=elsewhere")
    assert job_folder("activation", "seed", _root_=same) == "activation=relu"
    other = sweep_config(tmp_path, "activation=relu", "seed=2")
    assert job_folder("activation", "seed", _root_=other) == "activation=relu,seed=2"


def test_a_folder_of_another_config_is_not_taken(tmp_path):
    for n, epochs in enumerate((1, 2), start=1):
        config = sweep_config(tmp_path, "seed=1", f"trainer.max_epochs={epochs}")
        folder = tmp_path / job_folder("seed", _root_=config)
        assert folder.name == ("seed=1" if n == 1 else "seed=1-2")
        folder.mkdir()
        identify(folder, config)
    config = sweep_config(tmp_path, "seed=1", "trainer.max_epochs=3")
    with pytest.raises(UserError, match="seed=1 holds a job with another config"):
        identify(tmp_path / "seed=1", config)


def test_a_folder_whose_identity_can_not_be_read_is_another_jobs(tmp_path):
    (tmp_path / ".job").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="another config"):
        identify(tmp_path, compose(SMALL))
