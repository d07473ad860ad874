"""Fixtures for all tests."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from helpers.command import Command
from helpers.official_format import write_cifar

# Before torch is imported, here and in what tests start. Workers that share the cores would wait for each other's
# threads, spinning: the whole suite then takes three times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `data.root` with small files in the official format: 5 x 60 training and 100 test images, easily learnt.

    Their sums are not the official ones, so read them with `data.verify=false data.source=pickle`; never write there.
    """
    root = tmp_path_factory.mktemp("cifar")
    write_cifar(root / "cifar-10-batches-py")
    return root


@pytest.fixture(scope="session", autouse=True)
def no_test_writes_logs_here() -> Iterator[None]:
    """The ledger of a run whose folder is a temporary one would otherwise lie in the current folder."""
    before = Path("logs").exists()
    yield
    assert before or not Path("logs").exists()


@pytest.fixture(autouse=True)
def no_module_outlives_its_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two tests that each write a `my_nets.py` would otherwise see whichever the worker imported first."""
    path = sys.path[:]
    yield
    sys.path[:] = path
    temporary = tmp_path_factory.getbasetemp()
    for name, module in list(sys.modules.items()):
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if file and temporary in Path(file).parents:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def console_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich's console keeps the colours and the width of the terminal of whichever test asked for it first."""
    monkeypatch.setattr("rich._console", None)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Command:
    """The command line, in an empty folder. Figures, which take half of a run's time, need `@pytest.mark.figures`."""
    monkeypatch.chdir(tmp_path)
    if request.node.get_closest_marker("figures") is None:
        monkeypatch.setattr("cifar_lightning.runs.record.draw", lambda *_: {})
    return Command(tmp_path, monkeypatch, capsys)
