"""What was meant by a key or a choice that does not exist, and by a key in a file of one's own."""

from pathlib import Path

import pytest

from cifar_lightning import __version__, api
from cifar_lightning.errors import UserError


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr=0.1", "did you mean optimizer.lr?"),
        ("batch_size=64", "did you mean data.batch_size?"),
        ("batchsize=64", "did you mean data.batch_size?"),
        ("epochs=3", "did you mean trainer.max_epochs?"),
        ("trainer.epochs=3", "did you mean trainer.max_epochs?"),
        ("momentum=0.9", "did you mean optimizer.momentum?"),
        ("weight_decay=0.1", "did you mean optimizer.weight_decay?"),
        ("model=cnn2 dropout=0.1", "did you mean model.dropout?"),
        ("label_smothing=0.1", "did you mean loss.label_smoothing?"),
        ("data.data_dir=x", "did you mean data.root?"),
        ("optimizer.lrr=1", "did you mean optimizer.lr?"),
        ("model.widen_factor=4", "it belongs to model=wide_resnet"),
        ("model.depth=16", "it belongs to model=convmixer, model=densenet, model=vgg, model=vit, model=wide_resnet"),
        ("model.num_classes=7", "; it is set from the data set"),
        ("callbacks.best_checkpoint.save_top_k=3", "Choose from: callbacks.best_checkpoint.dirpath, "),
        ("nothing_like_it=1", "All keys: python -m cifar_lightning --cfg job"),
        ("optimizer=adamW", "did you mean adamw?"),
        ("optimizer=adagrad", "did you mean optimizer=torch optimizer.name=Adagrad?"),
        ("model=resnet50", "did you mean model=torchvision model.name=resnet50?"),
        ("model=resnett", "did you mean resnet?"),
        ("activation=swish", "did you mean activation=silu?"),
        ("experiment=lenet", "did you mean experiment=classic/lenet?"),
        ("debug=default", "did you mean debug=fast?"),
        ("logger=many_loggers", "did you mean logger=[tensorboard,csv]?"),
        ("test=False train=False", "leaves nothing to do: set one of them to true"),
        ("train=False", "train=false tests a checkpoint: give its path with ckpt_path=…"),
    ],
)
def test_the_key_or_choice_that_was_meant_is_named(typed, meant):
    with pytest.raises(UserError) as caught:
        api.compose(typed.split())
    assert meant in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_class_is_found_whatever_its_case(command):
    outcome = command("data=digits", "optimizer=torch", "optimizer.name=adagrad", "trainer.accelerator=cpu")
    assert outcome.code == 1
    assert outcome.err.endswith("; did you mean Adagrad?\n")


def test_no_precision_is_listed_twice():
    with pytest.raises(UserError) as caught:
        api.compose(["trainer.precision=33"])
    listed = str(caught.value).partition("one of ")[2].split(", ")
    assert len(listed) == len(set(listed)) > 5


def test_the_version_is_the_projects_own(command):
    assert command("--version").out == f"cifar_lightning {__version__}\n"


def own(group: str, text: str) -> None:
    path = Path("own") / group / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("group", "text", "message"),
    [
        ("experiment", "trainer: {max_epochs: 1}\n", "the first line of its file must be '# @package _global_'"),
        (
            "experiment",
            "# @package _global_\nlabel_smothing: 0.1\n",
            "own/experiment/mine.yaml: there is no key label_smothing; did you mean loss.label_smoothing?",
        ),
        (
            "experiment",
            "# @package _global_\ndata: {batchsize: 3}\n",
            "there is no key data.batchsize; did you mean data.batch_size?",
        ),
        ("experiment", "# @package _global_\ntrainer: [1,\n", "own/experiment/mine.yaml, line 3: "),
        ("model", "_target_: x\n  bad: 1\n", "own/model/mine.yaml, line 2: "),
    ],
)  # fmt: skip
def test_a_file_of_ones_own_is_checked_as_typed_words_are(command, group, text, message):
    own(group, text)
    outcome = command("--config-dir=own", f"{group}=mine", "data=digits")
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert [path.name for path in command.folder.iterdir()] == ["own"]


def test_a_key_of_ones_own_that_others_refer_to_is_no_mistake(command):
    own("experiment", "# @package _global_\nwidth: 3\nmodel: {channels: ['${width}', 8]}\n")
    outcome = command("--config-dir=own", "experiment=mine", "model=cnn2", "--cfg", "job")
    assert outcome.code == 0, outcome.err


def test_choices_of_ones_own_are_listed(command):
    own("model", "_target_: torch.nn.Identity\n")
    assert "mine" in command("--config-dir=own", "model=nowhere").err
    assert "mine" in command("--config-dir=own", "--help").out


@pytest.mark.parametrize("key", ["data.root", "paths.log_dir", "ckpt_path"])
def test_a_tilde_is_the_home_folder(command, monkeypatch, key):
    monkeypatch.setenv("HOME", str(command.folder / "home"))
    outcome = command("data=digits", "model=cnn2", "trainer.max_epochs=1", "debug=fast", f"{key}=~/x")
    assert not Path("~").exists()
    assert (outcome.code == 1 and "home/x" in outcome.err) or key != "ckpt_path"
    if key == "paths.log_dir":
        assert Path("home/x/train/runs").is_dir()


NET = """
import torch
class Net(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, width), torch.nn.Linear(width, 10))
    def forward(self, images):
        return self.layers(images)
"""


def test_a_network_of_ones_own_has_its_own_keys(command, monkeypatch):
    Path("my_nets.py").write_text(NET)
    typed = ["data=digits", "model=cnn2", "model._target_=my_nets.Net", "trainer.max_epochs=1", "logger=none"]
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    outcome = command(*typed, "+model.width=4", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert api.load("run", trusted=["my_nets"]).config["model"] == {"_target_": "my_nets.Net", "width": 4}
    outcome = command(*typed, "+model.depth=4")
    assert outcome.code == 1
    assert "unexpected keyword argument 'depth'" in outcome.err
    outcome = command(*typed[:2], "model._target_=not_there.Net")
    assert "No module named 'not_there'" in outcome.err
