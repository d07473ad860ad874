"""Fixtures for all tests."""

import os
from pathlib import Path

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


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, monkeypatch, capsys)
