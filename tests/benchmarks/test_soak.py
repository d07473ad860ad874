"""Memory, files and threads stay flat over a long run and a long sweep: benchmarks/soak.py, shortened."""

import gc
import sys

import pytest
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from benchmarks.soak import TINY
from cifar_lightning.reporting.files import read_csv

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self")
EPOCHS, JOBS = 20, 3
MEMORY = 1.02  # largest growth of resident memory after the first epoch or run


class Configs(Callback):
    """Count the configs that are alive when a run starts."""

    counts: list[int] = []  # noqa: RUF012 (of all runs)

    def on_fit_start(self, trainer, pl_module):
        gc.collect()
        self.counts.append(sum(type(thing) is DictConfig for thing in gc.get_objects()))


def curve(command, every, *arguments):
    given = ["+callbacks.soak.path=points.csv", f"+callbacks.soak.every={every}"]
    outcome = command(*arguments, *TINY, *given)
    assert outcome.code == 0, outcome.err
    return read_csv(command.folder / "points.csv")


def assert_flat(points):
    first, last = points[1], points[-1]  # the first run of a process imports modules and opens files that stay
    assert last["files"] <= first["files"]
    assert last["threads"] <= first["threads"]
    assert last["MB"] < MEMORY * first["MB"]


@pytest.mark.slow
def test_epochs_leave_nothing_behind(command):
    points = curve(command, "epoch", f"trainer.max_epochs={EPOCHS}", "hydra.run.dir=run")
    assert len(points) == EPOCHS
    assert_flat(points)
    assert {path.name for path in (command.folder / "run" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    # Per epoch: a row of the history in each checkpoint; a row, a line and points of the curves in the logs.
    assert points[-1]["checkpoints"] - points[0]["checkpoints"] < 250 * EPOCHS
    assert points[-1]["logs"] - points[0]["logs"] < 1_000 * EPOCHS


@pytest.mark.slow
def test_jobs_leave_nothing_behind(command):
    Configs.counts.clear()
    counted = f"+callbacks.configs._target_={__name__}.Configs"
    points = curve(command, "run", "-m", f"seed=range({JOBS})", "trainer.max_epochs=1", counted)
    assert len(points) == JOBS
    assert_flat(points)
    assert len(set(Configs.counts[1:])) == 1, Configs.counts
