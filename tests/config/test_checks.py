import pytest

from cifar_lightning.config.checks import compose_checked
from cifar_lightning.config.hints import choices
from cifar_lightning.errors import UserError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["modle=resnet"], "there is no key modle .*did you mean model"),
        (["model=resnett"], "model=resnett: there is no such choice; did you mean resnet?"),
        (["model=qqq"], "model=qqq: there is no such choice. Choose from: alexnet, cnn2"),
        (["experiment=clasic/lenet"], "experiment=clasic/lenet: .*did you mean classic/lenet?"),
        (["optimizer.lrr=1"], "there is no key optimizer.lrr .*did you mean optimizer.lr?"),
        (["data.batch_size=0"], "data.batch_size=0: must be an integer of at least 1"),
        (["data.batch_size=1.5"], "data.batch_size=1.5: must be an integer"),
        (["data.batch_size=true"], "data.batch_size=True: must be an integer"),
        (["data.batch_size=40001"], "data.batch_size=40001: the training split has only 40,000 images"),
        (["data.val_size=60000"], "data.val_size=60000: cifar10 has only 50,000 training images"),
        (["data.val_size=-1"], "data.val_size=-1: must be a count"),
        (["data.val_size=1.5"], "data.val_size=1.5: must be a count"),
        (["data=digits", "data.val_size=1437"], "digits has only 1,437"),
        (["data.normalize=imagnet"], "data.normalize=imagnet: must be one of none, half, channel, imagenet"),
        (["trainer.max_epochs=abc"], "trainer.max_epochs=abc: must be an integer"),
        (["trainer.max_time=2h"], "trainer.max_time=2h: must be days:hours:minutes:seconds"),
        (["trainer.precision=bf17"], "trainer.precision=bf17: must be one of auto"),
        (["optimizer.lr=-1"], "optimizer.lr=-1: must be a number above 0"),
        (["optimizer.lr=abc"], "optimizer.lr=abc: must be a number"),
        (["loss.label_smoothing=1"], "loss.label_smoothing=1: must be a number from 0 to below 1"),
        (["ema_decay=2"], "ema_decay=2: must be"),
        (["seed=-1"], "seed=-1: must be an integer from 0"),
        (["seed=abc"], "seed=abc: must be"),
        (["task_name=a/b"], "task_name=a/b: must be a folder name"),
        (["model=cnn2", "model.channels=abc"], "model.channels=abc: must be a list"),
        (["model=cnn2", "model.batch_norm=3"], "model.batch_norm=3: must be true or false"),
        (["model=torchvision", "model.name=resnet81"], "model.name=resnet81: .*did you mean resnet18?"),
        (["model=torchvision", "activation=tanh"], "activation: networks of torchvision and timm have"),
        (["augmentation.pipeline=gpu"], "augmentation.pipeline=gpu: must be one of device, worker"),
        (["augmentation.transforms.crop.mode=edge"], "crop.mode=edge: must be one of reflect, zeros"),
        (["augmentation=affine_jitter", "augmentation.transforms.affine.interpolation=cubic"], "nearest, bilinear"),
        (["model.init=xavier"], "model.init=xavier: must be one of default, xavier_uniform"),
        (["a=[1"], r"can't read the override 'a=\[1'"),
        (["activation=relu,tanh"], "activation=relu,tanh.*add -m"),
        (["data.val_size=0", "scheduler=plateau"], "scheduler.monitor=val/loss needs .* no validation split"),
        (
            ["data.val_size=0", "callbacks=early_stopping"],
            "early_stopping.monitor=.*no validation split",
        ),
        (["experiment=classic/alexnet", "callbacks=none"], "callbacks.early_stopping has settings but no _target_"),
        (["data.root=${nowhere}"], "data.root: .*nowhere"),
    ],
)
def test_a_mistake_is_answered_in_one_line_that_names_the_key_and_what_it_admits(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        compose_checked(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=0"],
        ["data.val_size=0"],
        ["data.val_size=0.2", "data.batch_size=40000"],
        ["optimizer.lr=1"],
        ["model=cnn2", "model.channels=[4,4,4]", "model.kernel=[3,5,3]"],
        ["+trainer.barebones=true", "+note=hello"],
        ["callbacks=none", "logger=[tensorboard,csv]", "debug=fast"],
        ["callbacks.model_summary=null", "~callbacks.progress_bar"],
        ["trainer.max_epochs=-1", "trainer.max_steps=10", "scheduler=none"],
        ["optimizer=torch", "optimizer.name=Adagrad"],
        ["data.val_size=0", "scheduler=plateau", "scheduler.monitor=train/loss"],
    ],
)
def test_what_is_valid_passes(overrides):
    compose_checked(overrides)


SLOW = ("activation", "augmentation", "optimizer", "experiment")  # other tests run with each of their choices
GROUPS = (
    "data", "model", "activation", "augmentation", "loss", "optimizer", "scheduler", "trainer", "callbacks", "logger",
    "experiment", "debug",
)  # fmt: skip


@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=pytest.mark.slow if group in SLOW else ()) for group in GROUPS]
)
def test_every_choice_of_a_group_passes(group):
    for name in choices(group):
        compose_checked([f"{group}={name}", *(["data.root=own"] if name in ("folder", "npz") else [])])
