"""A small archive that counts as the official one."""

from dataclasses import replace

import pytest
from helpers.official_format import write_cifar
from helpers.packing import ARCHIVE, FOLDER, pack

from cifar_lightning.data.official import CIFAR10, checksum


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """A small archive, about 1 MB."""
    root = tmp_path_factory.mktemp("packed")
    write_cifar(root / FOLDER)
    return pack(root / FOLDER, root / ARCHIVE)


@pytest.fixture
def small(packed, monkeypatch):
    """CIFAR-10 with the small archive as its official one."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return replace(CIFAR10, archive_checksum=checksum(packed))


@pytest.fixture
def official(packed):
    """The small archive's bytes."""
    return packed.read_bytes()
