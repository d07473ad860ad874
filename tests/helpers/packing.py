"""Archives in the form of the official one."""

import io
import tarfile
from pathlib import Path

from cifar_lightning.data.official import CIFAR10

ARCHIVE, FOLDER = CIFAR10.archive, CIFAR10.folder
LOCK = f".{FOLDER}.lock"


def pack(folder: Path, archive: Path, *extra: tuple[tarfile.TarInfo, bytes]) -> Path:
    """An archive of the folder, and of `extra` members (TarInfo, content)."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, FOLDER)
        for member, content in extra:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def assert_fetched(root: Path, packed: Path) -> None:
    """All files, those of the archive, and nothing else left behind."""
    for name in CIFAR10.files:
        assert (root / FOLDER / name).read_bytes() == (packed.parent / FOLDER / name).read_bytes()
    assert {path.name for path in root.iterdir()} <= {FOLDER, ARCHIVE, LOCK}
    assert not (root / f"{ARCHIVE}.part").exists()
