"""Archives that are spoilt, foreign or hostile."""

import gzip
import os
import tarfile
import tracemalloc

import pytest
from helpers.official_format import write_cifar
from helpers.packing import ARCHIVE, FOLDER, LOCK, assert_fetched, pack

from cifar_lightning.commands.data import main
from cifar_lightning.data import archive as archives
from cifar_lightning.data.archive import unpack
from cifar_lightning.data.datamodule import ImageDataModule
from cifar_lightning.data.download import find_or_download
from cifar_lightning.data.official import CIFAR10
from cifar_lightning.errors import UserError


@pytest.mark.parametrize(
    ("change", "fault"),
    [(lambda content: content[:-10], "is cut short,"), (lambda content: content[:-1] + b"?", "is not the official")],
)
def test_spoilt_archive_is_named_and_kept(tmp_path, small, official, change, fault):
    (tmp_path / ARCHIVE).write_bytes(change(official))
    with pytest.raises(UserError, match=rf"{ARCHIVE} {fault} .*Delete it .*data\.root=\.\.\..*data\.verify=false"):
        find_or_download(small, tmp_path)
    assert (tmp_path / ARCHIVE).exists()


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_cut_archive_leaves_nothing_half_unpacked(tmp_path, small, official, share):
    (tmp_path / ARCHIVE).write_bytes(official[: int(share * len(official))])
    with pytest.raises(UserError, match=f"{ARCHIVE} is cut short or corrupt"):
        find_or_download(small, tmp_path, verify=False)
    assert {path.name for path in tmp_path.iterdir()} <= {ARCHIVE, LOCK}


def test_unofficial_archive_is_read_unverified(tmp_path, packed, caplog):
    (tmp_path / ARCHIVE).write_bytes(packed.read_bytes())
    data = ImageDataModule(root=tmp_path, verify=False, val_size=0)
    data.setup()
    assert len(data.train) == 300
    assert "is not the official archive" in caplog.text


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        *(tarfile.TarInfo(name) for name in ("../outside", f"{FOLDER}/../../outside", "/outside", "C:/outside")),
        tarfile.TarInfo(f"{FOLDER}\\..\\outside"),
        link(FOLDER, "../.."),
        link(f"{FOLDER}/link", "../.."),
        link(f"{FOLDER}/device", "", tarfile.CHRTYPE),
    ],
    ids=lambda member: member.name,
)
def test_members_outside_of_the_folder_and_links_are_ignored(tmp_path, small, packed, member):
    root = tmp_path / "a" / "data"
    root.mkdir(parents=True)
    pack(packed.parent / FOLDER, root / ARCHIVE, (member, b""))
    find_or_download(small, root, verify=False)
    assert_fetched(root, packed)
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_the_place_of_a_file_is_refused(tmp_path, small, packed, kind):
    pack(packed.parent / FOLDER, tmp_path / ARCHIVE, (link(f"{FOLDER}/test_batch", "/etc/passwd", kind), b""))
    with pytest.raises(UserError, match="test_batch', which is not a plain file"):
        find_or_download(small, tmp_path, verify=False)
    assert {path.name for path in tmp_path.iterdir()} <= {ARCHIVE, LOCK}


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
    assert {path.name for path in tmp_path.iterdir()} <= {ARCHIVE, LOCK}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("name", [ARCHIVE, f"{FOLDER}/data_batch_1", f"{FOLDER}/batches.meta"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, capsys, name):
    if FOLDER in name:
        write_cifar(tmp_path / FOLDER)
        (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="is a pipe, socket or device"):
        ImageDataModule(root=tmp_path, verify=False, val_size=0).setup()


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
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE", 50 << 20)
    archive = bomb(tmp_path / ARCHIVE, member, size << 20)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="its content is too large"):
            unpack(CIFAR10, archive, tmp_path / FOLDER)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == [archive]


def test_an_archive_of_many_small_members_is_refused(tmp_path, packed):
    many = [(tarfile.TarInfo(f"{FOLDER}/{n}"), b"") for n in range(1_001)]
    with pytest.raises(UserError, match="more than 1,000 members"):
        unpack(CIFAR10, pack(packed.parent / FOLDER, tmp_path / ARCHIVE, *many), tmp_path / FOLDER)
    assert not (tmp_path / FOLDER).exists()


def test_only_the_known_files_are_unpacked(tmp_path, packed):
    extra = [
        (tarfile.TarInfo(name), b"hello") for name in (f"{FOLDER}/readme.html", "batches.meta", "other/test_batch")
    ]
    unpack(CIFAR10, pack(packed.parent / FOLDER, tmp_path / ARCHIVE, *extra), tmp_path / FOLDER)
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == set(CIFAR10.files)
    assert_fetched(tmp_path, packed)


def test_archive_without_one_of_the_files_is_refused(tmp_path, packed):
    write_cifar(tmp_path / "other")
    (tmp_path / "other" / "batches.meta").unlink()
    with pytest.raises(UserError, match=f"is not a CIFAR-10 archive: no {FOLDER}/batches.meta"):
        unpack(CIFAR10, pack(tmp_path / "other", tmp_path / ARCHIVE), tmp_path / FOLDER)
    assert not (tmp_path / FOLDER).exists()


def test_unpacked_folder_can_be_read_by_whoever_may_read_its_parent(tmp_path, packed):
    (tmp_path / "sibling").mkdir()
    unpack(CIFAR10, packed, tmp_path / FOLDER)
    assert (tmp_path / FOLDER).stat().st_mode == (tmp_path / "sibling").stat().st_mode
