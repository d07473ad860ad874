"""Archives that are spoilt, foreign or hostile."""

import gzip
import os
import tarfile
import tracemalloc

import pytest
from helpers.official_format import write_cifar
from helpers.packing import assert_fetched, pack

from cifar_lightning.commands.data import main
from cifar_lightning.data import archive as archives
from cifar_lightning.data.archive import ARCHIVE, FOLDER, OFFICIAL_FILES, unpack
from cifar_lightning.data.cifar10 import load_cifar10
from cifar_lightning.data.download import fetch_cifar10
from cifar_lightning.errors import UserError


@pytest.mark.parametrize(
    ("change", "fault"),
    [(lambda content: content[:-10], "is cut short,"), (lambda content: content[:-1] + b"?", "is not the official")],
)
def test_spoilt_archive_is_named_and_kept(tmp_path, official, change, fault):
    (tmp_path / ARCHIVE).write_bytes(change(official))
    with pytest.raises(UserError, match=rf"{ARCHIVE} {fault} .*Delete it .*data\.root=\.\.\..*data\.verify=false"):
        fetch_cifar10(tmp_path)
    assert (tmp_path / ARCHIVE).exists()


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_cut_archive_leaves_nothing_half_unpacked(tmp_path, official, share):
    (tmp_path / ARCHIVE).write_bytes(official[: int(share * len(official))])
    with pytest.raises(UserError, match=f"{ARCHIVE} is cut short or corrupt"):
        fetch_cifar10(tmp_path, verify=False)
    assert {path.name for path in tmp_path.iterdir()} <= {ARCHIVE, ".cifar-10.lock"}


def test_unofficial_archive_is_read_unverified(tmp_path, packed, caplog):
    (tmp_path / ARCHIVE).write_bytes(packed.read_bytes())
    arrays = load_cifar10(tmp_path, verify=False)
    assert len(arrays.train.labels) == 300
    assert "is not the official archive" in caplog.text


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        (tarfile.TarInfo("../outside"), "which leaves the folder: refused"),
        (tarfile.TarInfo(f"{FOLDER}/../../outside"), "which leaves the folder: refused"),
        (tarfile.TarInfo("/outside"), "which leaves the folder: refused"),
        (tarfile.TarInfo("C:/outside"), "which leaves the folder: refused"),
        (tarfile.TarInfo(f"{FOLDER}\\..\\outside"), "which leaves the folder: refused"),
        (link(f"{FOLDER}/test_batch", "/etc/passwd"), "a link or a device: refused"),
        (link(f"{FOLDER}/link", "../.."), "a link or a device: refused"),
        (link(f"{FOLDER}/hard", f"{FOLDER}/test_batch", tarfile.LNKTYPE), "a link or a device: refused"),
        (link(f"{FOLDER}/device", "", tarfile.CHRTYPE), "a link or a device: refused"),
        (link(f"{FOLDER}/pipe", "", tarfile.FIFOTYPE), "a link or a device: refused"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_archive_that_reaches_out_of_its_folder_is_refused_whole(tmp_path, packed, member, fault):
    root = tmp_path / "a" / "data"
    root.mkdir(parents=True)
    pack(packed.parent / FOLDER, root / ARCHIVE, (member, b""))
    with pytest.raises(UserError, match=fault):
        fetch_cifar10(root, verify=False)
    assert {path.name for path in root.iterdir()} <= {ARCHIVE, ".cifar-10.lock"}
    assert not list(tmp_path.rglob("outside"))


def header(kind, size=0, records=b""):
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size or len(records)
    return member.tobuf(tarfile.GNU_FORMAT) + records.ljust(-(-len(records) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "content",
    [
        header(tarfile.GNUTYPE_LONGNAME, records=b"name") * 2_000,
        header(tarfile.XHDTYPE, records=b"27 GNU.sparse.map=1,x,zz\n") + header(tarfile.REGTYPE),
        header(tarfile.XHDTYPE, records=b"25 GNU.sparse.size=what\n") + header(tarfile.REGTYPE),
        header(tarfile.XHDTYPE, records=b"99999999999 a=b\n") + header(tarfile.REGTYPE),
    ],
    ids=["headers in headers", "sparse map", "sparse size", "length of a record"],
)
def test_a_doctored_header_is_one_line_of_the_data_check(tmp_path, capsys, content):
    (tmp_path / ARCHIVE).write_bytes(gzip.compress(content + bytes(1024)))
    assert main([f"data.root={tmp_path}", "data.verify=false"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / ARCHIVE} is ")
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {ARCHIVE, ".cifar-10.lock"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("name", [ARCHIVE, f"{ARCHIVE}.part", f"{FOLDER}/data_batch_1", f"{FOLDER}/batches.meta"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, capsys, name):
    if FOLDER in name:
        write_cifar(tmp_path / FOLDER)
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="is a pipe, socket or device"):
        load_cifar10(tmp_path, verify=False, urls=["http://127.0.0.1:9/x"])


class Zeros:
    """As many zeros as are asked for: a gigabyte of them is a megabyte in an archive."""

    def read(self, n):
        return bytes(n)


def bomb(archive, member, size):
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        member.size = size
        tar.addfile(member, Zeros())
    return archive


def header(kind):
    member = tarfile.TarInfo("././@LongLink")
    member.type = kind
    return member


@pytest.mark.parametrize(
    ("member", "size"),
    [
        (tarfile.TarInfo(f"{FOLDER}/test_batch"), 100),
        (tarfile.TarInfo(f"{FOLDER}/readme.html"), 100),  # skipped, but no more than so much
        (header(tarfile.GNUTYPE_LONGNAME), 40),  # tarfile would read it whole into memory
        (header(tarfile.XHDTYPE), 40),
    ],
    ids=["a known file", "another file", "a name", "attributes"],
)
def test_a_bomb_is_refused_without_unpacking_it(tmp_path, monkeypatch, member, size):
    monkeypatch.setattr(archives, "LARGEST_FILE", 50 << 20)
    archive = bomb(tmp_path / ARCHIVE, member, size << 20)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"it holds more than CIFAR-10 does|bytes: refused"):
            unpack(archive, tmp_path / FOLDER)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == [archive]


def test_an_archive_of_many_small_members_is_refused(tmp_path, packed):
    many = [(tarfile.TarInfo(f"{FOLDER}/{n}"), b"") for n in range(1_001)]
    with pytest.raises(UserError, match="holds more than 1,000 members: refused"):
        unpack(pack(packed.parent / FOLDER, tmp_path / ARCHIVE, *many), tmp_path / FOLDER)
    assert not (tmp_path / FOLDER).exists()


def test_only_the_known_files_are_unpacked(tmp_path, packed):
    extra = [
        (tarfile.TarInfo(name), b"hello") for name in (f"{FOLDER}/readme.html", "batches.meta", "other/test_batch")
    ]
    unpack(pack(packed.parent / FOLDER, tmp_path / ARCHIVE, *extra), tmp_path / FOLDER)
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == set(OFFICIAL_FILES)
    assert_fetched(tmp_path, packed)


def test_archive_without_one_of_the_files_is_refused(tmp_path, packed):
    write_cifar(tmp_path / "other")
    (tmp_path / "other" / "batches.meta").unlink()
    with pytest.raises(UserError, match=f"is no CIFAR-10 archive: it has no {FOLDER}/batches.meta"):
        unpack(pack(tmp_path / "other", tmp_path / ARCHIVE), tmp_path / FOLDER)
    assert not (tmp_path / FOLDER).exists()


def test_unpacked_folder_can_be_read_by_whoever_may_read_its_parent(tmp_path, packed):
    (tmp_path / "sibling").mkdir()
    unpack(packed, tmp_path / FOLDER)
    assert (tmp_path / FOLDER).stat().st_mode == (tmp_path / "sibling").stat().st_mode
