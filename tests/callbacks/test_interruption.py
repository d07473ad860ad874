"""A run that a signal ends is saved at the next step, and resumed ends bit for bit as if there had been none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.resuming import KINDS, assert_same_run, stopped, train
from helpers.stopping import SignalAt
from lightning.pytorch.callbacks import Callback

from cifar_lightning.errors import Interrupted

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")

MOMENTS = {
    "in a step": ("on_train_batch_start", 7),
    "in an epoch's last step": ("on_train_batch_start", 10),
    "between validation batches": ("on_validation_batch_start", 5),
    "before a validation": ("on_validation_start", 2),
    "after a validation": ("on_validation_end", 2),
    "at an epoch's end": ("on_train_epoch_end", 2),
    "at an epoch's start": ("on_train_epoch_start", 3),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs by kind."""
    runs = {}

    def run(kind):
        if kind not in runs:
            runs[kind] = train(tmp_path_factory.mktemp("whole"), **KINDS[kind])
        return runs[kind]

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moment", ["in a step", "between validation batches"])
def test_every_kind_of_training_goes_on_as_if_never_stopped(tmp_path, whole, kind, moment):
    moment = "at an epoch's end" if kind == "no validation" and "validation" in moment else moment
    last = stopped(tmp_path, at=MOMENTS[moment], **KINDS[kind])
    assert_same_run(train(tmp_path, ckpt_path=last, **KINDS[kind]), whole(kind))


@pytest.mark.parametrize("kind", ["average", pytest.param("plateau and early stopping", marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_stopped_at_any_moment_goes_on_as_if_never_stopped(tmp_path, whole, kind, moment):
    last = stopped(tmp_path, at=MOMENTS[moment], **KINDS[kind])
    assert_same_run(train(tmp_path, ckpt_path=last, **KINDS[kind]), whole(kind))


@pytest.mark.parametrize("n", [6, 7, 8])
def test_gradients_that_are_being_added_up_are_not_lost(tmp_path, whole, n):
    last = stopped(tmp_path, at=("on_train_batch_start", n), **KINDS["accumulated"])
    assert_same_run(train(tmp_path, ckpt_path=last, **KINDS["accumulated"]), whole("accumulated"))


def test_a_run_stopped_again_and_again_goes_on_as_if_never_stopped(tmp_path, whole):
    last = stopped(tmp_path, at=MOMENTS["between validation batches"], **KINDS["average"])
    for at in (("on_validation_batch_start", 2), ("on_train_batch_start", 1), ("on_train_batch_start", 2)):
        last = stopped(tmp_path, at=at, ckpt_path=last, **KINDS["average"])
    assert_same_run(train(tmp_path, ckpt_path=last, **KINDS["average"]), whole("average"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_signal_and_the_advice_come_with_the_exception(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"^stopped by {number.name}. advice$") as ending:
        train(tmp_path, more=[SignalAt("on_train_batch_start", 7, number)])
    assert ending.value.signal == number
    assert not isinstance(ending.value, Exception)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 7
    assert signal.getsignal(number) == before


def test_before_the_first_step_nothing_is_saved(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, more=[SignalAt("on_fit_start", 1)])
    assert list(tmp_path.iterdir()) == []


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom signal import SIGINT\n"
        "from helpers.resuming import train\nfrom helpers.stopping import SignalAt\n"
        "from cifar_lightning.callbacks import interruption\n"
        "interruption.SAME_PRESS = -1\n"
        "at = 'on_train_batch_start', 7\n"
        "train(Path(sys.argv[1]), more=[SignalAt(*at), SignalAt(*at, SIGINT)])"
    )
    paths = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=os.environ | {"PYTHONPATH": paths}, capture_output=True
    )
    assert done.returncode == 130, done.stderr
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5


def test_what_fails_after_a_signal_failed_for_it(tmp_path):
    class Killed(Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM. advice$"):
        train(tmp_path, more=[SignalAt("on_train_batch_start", 1), Killed()])
