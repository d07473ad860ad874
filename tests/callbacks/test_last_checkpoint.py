"""When last.ckpt is written, that a run goes on from it exactly, and that there is always a whole one."""

import errno
import os

import pytest
import torch
from helpers.resuming import KINDS, assert_same_run, train
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from cifar_lightning.callbacks.last_checkpoint import LastCheckpoint, WholeFiles
from cifar_lightning.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


def steps_of(path):
    return torch.load(path, weights_only=True)["global_step"]


class Copies(Callback):
    """Keeps the last.ckpt of every step that has written one."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        save = WholeFiles.save_checkpoint

        def save_and_copy(io, checkpoint, path, storage_options=None):
            save(io, checkpoint, path)
            save(io, checkpoint, folder / f"{checkpoint['global_step']}.ckpt")

        monkeypatch.setattr(WholeFiles, "save_checkpoint", save_and_copy)

    @property
    def steps(self):
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.ckpt"))


@pytest.mark.parametrize("kind", ["dropout", "average", "plateau and early stopping", "accumulated", "workers"])
def test_a_checkpoint_every_so_many_minutes_goes_on_exactly(tmp_path, monkeypatch, kind):
    whole = train(tmp_path / "whole", **KINDS[kind])
    copies = Copies(tmp_path, monkeypatch)
    watched = train(tmp_path / "watched", every_minutes=0, **KINDS[kind])
    assert_same_run(watched, whole)
    per_epoch = [1, 2, 3] if kind == "accumulated" else [1, 2, 3, 4, 5]  # optimizer steps for 5 batches
    epochs = watched[1].current_epoch
    assert copies.steps == [epoch * per_epoch[-1] + step for epoch in range(epochs) for step in per_epoch]
    for step in copies.steps[::4]:
        assert_same_run(train(tmp_path, ckpt_path=tmp_path / f"{step}.ckpt", **KINDS[kind]), whole)


def test_without_minutes_there_is_one_after_each_epoch(tmp_path, monkeypatch):
    copies = Copies(tmp_path, monkeypatch)
    train(tmp_path / "run", every_minutes=10)
    assert copies.steps == [5, 10, 15, 20]


@pytest.mark.parametrize("max_steps", [7, 10])
@pytest.mark.parametrize("longer", [{}, {"max_steps": 17}])
@pytest.mark.parametrize("kind", ["average", "plateau and early stopping"])
def test_a_run_that_max_steps_has_cut_off_goes_on_in_mid_epoch(tmp_path, kind, max_steps, longer):
    training = KINDS[kind] | {"scheduler": KINDS["plateau and early stopping"]["scheduler"]}
    whole = train(tmp_path / "whole", **training, **longer)
    cut = train(tmp_path / "cut", max_steps=max_steps, **training)
    assert steps_of(tmp_path / "cut" / "last.ckpt") == cut[1].global_step == max_steps
    resumed = train(tmp_path / "cut", ckpt_path=tmp_path / "cut" / "last.ckpt", **training, **longer)
    assert_same_run(resumed, whole)


def test_a_run_that_stopped_early_trains_no_more(tmp_path):
    kind = KINDS["plateau and early stopping"]
    whole = train(tmp_path, **kind)
    assert whole[1].global_step < 20
    assert_same_run(train(tmp_path, ckpt_path=tmp_path / "last.ckpt", **kind), whole)


def test_the_best_checkpoint_is_known_in_a_folder_that_was_moved(tmp_path):
    def best(folder):
        return ModelCheckpoint(folder, "best", monitor="val/acc", mode="max", enable_version_counter=False)

    old, new = tmp_path / "old", tmp_path / "new"
    before = best(old)
    train(old, callbacks=[lambda: before], max_epochs=3)
    old.rename(new)
    after = best(new)
    train(new, callbacks=[lambda: after], max_epochs=3, ckpt_path=new / "last.ckpt")
    assert after.best_model_path == str(new / "best.ckpt")
    assert after.best_model_score == before.best_model_score
    assert after.best_k_models == {after.best_model_path: before.best_model_score}


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_checkpoint_before_and_nothing_else(tmp_path, monkeypatch, failing):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_):
        raise full

    io, path = WholeFiles(), tmp_path / "checkpoints" / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    before = path.read_bytes()
    where = {"write": "pathlib.Path.open", "fsync": "os.fsync", "replace": "pathlib.Path.replace"}[failing]
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(OSError, match="No space left"):
            io.save_checkpoint({"step": 2}, path)
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("minutes", [-1, -0.5])
def test_a_negative_interval_is_refused(tmp_path, minutes):
    with pytest.raises(UserError, match=rf"^callbacks.last_checkpoint.every_minutes={minutes}: must be at least 0"):
        LastCheckpoint(tmp_path, minutes)
