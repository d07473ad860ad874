"""A small archive that counts as the official one."""

import pytest
from helpers.official_format import write_cifar
from helpers.packing import pack

from cifar_lightning.data import archive as archives
from cifar_lightning.data.archive import ARCHIVE, FOLDER, sum_of


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """A small archive, about 1 MB."""
    root = tmp_path_factory.mktemp("packed")
    write_cifar(root / FOLDER)
    return pack(root / FOLDER, root / ARCHIVE)


@pytest.fixture
def official(packed, monkeypatch):
    """The small archive's bytes, in the place of the official ones."""
    monkeypatch.setattr(archives, "OFFICIAL_ARCHIVE", sum_of(packed))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return packed.read_bytes()
