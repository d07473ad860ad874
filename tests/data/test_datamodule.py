import multiprocessing
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from helpers.digit_loaders import AUGMENTATIONS, augmentation, joined, same
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from sklearn.model_selection import train_test_split

from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.digits import load_digits
from cifar_lightning.data.sets import SETS
from cifar_lightning.errors import UserError


def digits_module(name="none", **keys):
    pipeline, transforms = augmentation(name)
    keys = {"name": "digits", "val_size": 0.2, "batch_size": 64, "num_workers": 0} | keys
    return ImageDataModule(pipeline=pipeline, transforms=transforms, **keys)


class Recorder(L.LightningModule):
    """A network of one linear layer that remembers the batches it was given."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.fails_at = fails_at
        self.layer = torch.nn.Linear(3 * 32 * 32, 10)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)
        self.seen = []

    def training_step(self, batch):
        if self.global_step == self.fails_at:
            raise RuntimeError("interrupted")
        images, targets = batch
        self.seen.append((self.current_epoch, images.clone(), targets.clone()))
        return torch.nn.functional.cross_entropy(self.layer(images.float().flatten(1) / 255), targets)

    def validation_step(self, batch):
        self.layer(batch[0].float().flatten(1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer(folder, **keys):
    keys = {"max_epochs": 3, "num_sanity_val_steps": 0, "limit_val_batches": 0} | keys
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"enable_checkpointing": False} | keys,
    )


@pytest.mark.parametrize("val_size", [0.2, 287])
def test_splits_are_stratified_as_scikit_learns(val_size):
    module = digits_module(val_size=val_size)
    module.setup()
    arrays = load_digits()
    expected = train_test_split(np.arange(1437), test_size=val_size, stratify=arrays.train.labels, random_state=42)
    parts = (module.train, module.train_indices, expected[0]), (module.val, module.val_indices, expected[1])
    for part, indices, of_scikit_learn in parts:
        np.testing.assert_array_equal(indices, of_scikit_learn)
        np.testing.assert_array_equal(part.images, arrays.train.images[indices])
        np.testing.assert_array_equal(part.labels, arrays.train.labels[indices])
    np.testing.assert_array_equal(module.test.images, arrays.test.images)
    assert len(module.test) == 360
    assert (module.class_names, module.checksum) == (arrays.class_names, arrays.checksum)


def test_without_validation_all_images_are_for_training():
    module = digits_module(val_size=0)
    module.setup()
    np.testing.assert_array_equal(module.train.images, load_digits().train.images)
    assert module.val_dataloader() == []
    assert len(module.val) == len(module.val_indices) == 0


def test_setup_may_be_called_again():
    module = digits_module()
    module.prepare_data()
    module.setup("fit")
    train = module.train
    module.setup("test")
    module.prepare_data()
    assert module.train is train


def test_evaluation_is_in_order_and_as_it_is():
    module = digits_module("flip_crop", eval_batch_size=100)
    module.setup()
    for split, loader in ((module.val, module.val_dataloader()), (module.test, module.test_dataloader())):
        assert same([joined(list(loader))], [(split.images, split.labels)])


def test_digits_are_normalised_by_their_own_training_part():
    module = digits_module()
    module.setup()
    values = module.train.images.double() / 255
    torch.testing.assert_close(torch.tensor(module.mean).double(), values.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(module.std).double(), values.std((0, 2, 3), correction=0))


def test_cifar10_files(cifar_folder):
    module = ImageDataModule(root=cifar_folder, verify=False, val_size=50, batch_size=16)
    module.prepare_data()
    module.setup()
    assert (len(module.train), len(module.val), len(module.test)) == (250, 50, 100)
    assert (module.mean, module.std) == SETS["cifar10"].channel
    assert len(list(module.train_dataloader())) == 16


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmented_examples_are_what_training_sees_first(name):
    module = digits_module(name, seed=4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    images, labels = module.augmented_examples(100)
    assert torch.equal(torch.get_rng_state(), before)
    assert images.dtype == torch.uint8
    assert same([(images, labels)], [tuple(part[:100] for part in joined(list(module.train_dataloader())))])


def check_resuming(folder, name="none", saving=None, **keys):
    """Every checkpoint of a run of 3 epochs of 5 batches leads to the batches and weights of the run itself."""

    def fit(ckpt_path=None, **more):
        model = Recorder()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer(folder, **keys, **more).fit(
                model, digits_module(name, val_size=0.8, batch_size=64), ckpt_path=ckpt_path
            )
        return model

    save = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **saving or {})
    whole = fit(enable_checkpointing=True, callbacks=[save])
    assert len(whole.seen) == 15 or "limit_train_batches" in keys
    steps = sorted(int(file.stem.removeprefix("step=")) for file in folder.glob("*.ckpt"))
    assert len(steps) >= 3
    for step in steps:
        resumed = fit(folder / f"step={step}.ckpt")
        assert [epoch for epoch, _, _ in resumed.seen] == [epoch for epoch, _, _ in whole.seen[step:]]
        assert same([batch[1:] for batch in resumed.seen], [batch[1:] for batch in whole.seen[step:]])
        assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_run_resumed_in_mid_epoch_sees_the_batches_of_an_uninterrupted_one(name, tmp_path):
    check_resuming(tmp_path, name, saving={"every_n_train_steps": 4})


@pytest.mark.parametrize("after", ["training", "validation"])
@pytest.mark.parametrize(
    "keys",
    [{"limit_train_batches": 3}, {"max_epochs": -1, "max_steps": 15}, {"val_check_interval": 0.4}, {}],
    ids=str,
)
def test_a_run_resumed_from_an_epochs_end_sees_whole_epochs(keys, after, tmp_path):
    saving = {"save_on_train_epoch_end": after == "training"}
    check_resuming(tmp_path, saving=saving, limit_val_batches=1.0, **keys)


@pytest.mark.parametrize("step", [0, 2, 4, 5, 7])
def test_a_run_interrupted_within_a_step_repeats_it(step, tmp_path):
    data = {"val_size": 0.8, "batch_size": 64}
    whole, resumed = Recorder(), Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(tmp_path).fit(whole, digits_module(**data))
        with pytest.raises(RuntimeError, match="interrupted"):
            trainer(tmp_path, enable_checkpointing=True, callbacks=[OnExceptionCheckpoint(tmp_path)]).fit(
                Recorder(fails_at=step), digits_module(**data)
            )
        trainer(tmp_path).fit(resumed, digits_module(**data), ckpt_path=tmp_path / "on_exception.ckpt")
    assert [epoch for epoch, _, _ in resumed.seen] == [epoch for epoch, _, _ in whole.seen[step:]]
    assert same([batch[1:] for batch in resumed.seen], [batch[1:] for batch in whole.seen[step:]])
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_a_run_resumes_from_any_of_its_steps(tmp_path):
    check_resuming(tmp_path, "flip_crop", saving={"every_n_train_steps": 1})


def test_workers_end_with_the_run(tmp_path):
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(tmp_path, max_epochs=2).fit(model, digits_module("trivial_augment", num_workers=2))
    assert len(model.seen) == 2 * 18
    assert multiprocessing.active_children() == []


def test_overfit_batches_shows_the_same_images_in_every_epoch(tmp_path):
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(tmp_path, overfit_batches=2).fit(model, digits_module())
    batches = [batch[1:] for batch in model.seen]
    assert len(batches) == 6
    assert same(batches[:2], batches[2:4])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size": 1150}, r"data\.batch_size=1150.*1,149"),
        ({"batch_size": 0}, r"data\.batch_size=0"),
        ({"val_size": 2000}, r"data\.val_size=2000"),
    ],
)
def test_values_that_do_not_fit_the_data_are_refused_by_setup(keys, message):
    with pytest.raises(UserError, match=message):
        digits_module(**keys).setup()


@pytest.mark.parametrize(
    ("pipeline", "name", "other"), [("device", "rand_augment", "worker"), ("worker", "flip", "device")]
)
def test_transforms_of_the_other_pipeline_are_refused(pipeline, name, other):
    with pytest.raises(UserError, match=rf"augmentation\.pipeline={pipeline} .* augmentation\.pipeline={other}\?"):
        ImageDataModule(name="digits", pipeline=pipeline, transforms=augmentation(name)[1])
