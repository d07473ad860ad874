"""The reader of the official files: what it reads, and what it refuses."""

import copyreg
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.official_format import CLASSES, batch, coloured_noise, python2_pickle
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cifar_lightning.data.pickles import parse_batch, parse_class_names, read_file
from cifar_lightning.errors import UserError

IMAGES, LABELS = coloured_noise(20, np.random.default_rng(0))
PROTOCOLS = [2, 3, 4, 5]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "data_batch_1"


def assert_read(content, file):
    file.write_bytes(content)
    images, labels = parse_batch(read_file(file), file)
    assert_array_equal(images, IMAGES, strict=True)
    assert_array_equal(labels, LABELS.astype(np.int64), strict=True)


def test_what_python2_wrote_is_read(file):
    content = python2_pickle(batch(IMAGES, LABELS))
    assert_array_equal(pickle.loads(content, encoding="bytes")[b"data"], IMAGES.reshape(20, 3072))
    assert_read(content, file)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", [str, str.encode], ids=["str keys", "bytes keys"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("labels", [LABELS.tolist(), LABELS, LABELS.astype(">i2"), LABELS.astype(np.uint8)])
def test_what_python3_writes_is_read(file, protocol, key, order, labels):
    data = np.asarray(IMAGES.reshape(20, 3072), order=order)
    assert_read(
        pickle.dumps({key("data"): data, key("labels"): labels, key("more"): [1.5, None, True]}, protocol), file
    )


@pytest.mark.parametrize("numpy", [b"numpy.core.", b"numpy._core."])
def test_names_of_both_numpys_are_known(file, numpy):
    content = python2_pickle(batch(IMAGES, LABELS))
    assert_read(content.replace(b"numpy.core.", numpy), file)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_class_names(tmp_path, protocol):
    file = tmp_path / "batches.meta"
    file.write_bytes(pickle.dumps({"label_names": list(CLASSES)}, protocol))
    assert parse_class_names(read_file(file), file) == CLASSES


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (CLASSES[:9], "does not hold 10 different class names"),
        (["cat"] * 10, "does not hold 10 different class names"),
        ([*CLASSES[:9], "new\nline"], "does not hold 10 different class names"),
        ([*CLASSES[:9], 10], "'label_names' are not a list of names"),
        ([*CLASSES[:9], b"\xff"], "a class name is not UTF-8"),
    ],
)
def test_wrong_class_names_are_refused(tmp_path, names, fault):
    file = tmp_path / "batches.meta"
    file.write_bytes(pickle.dumps({"label_names": list(names)}))
    with pytest.raises(UserError, match=fault):
        parse_class_names(read_file(file), file)


DATA = IMAGES.reshape(20, 3072)


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ({"data": DATA}, r"has no entry 'labels' \(it has data\)"),
        ({"data": DATA, "fine_labels": [0] * 20}, r"has no entry 'labels' \(it has data, fine_labels\)"),
        ({}, r"has no entry 'data' \(it has nothing\)"),
        ([DATA, LABELS], "does not hold a dictionary"),
        ({"data": DATA[:, :784], "labels": [0] * 20}, "not a uint8 array of 3,072 columns"),
        ({"data": DATA.astype(np.int64), "labels": [0] * 20}, "not a uint8 array of 3,072 columns"),
        ({"data": DATA.tolist(), "labels": [0] * 20}, "not a uint8 array of 3,072 columns"),
        ({"data": DATA.astype(float), "labels": [0] * 20}, "holds an array of type f8: refused"),
        ({"data": DATA, "labels": [0] * 19}, "has 20 images but 19 labels"),
        ({"data": DATA, "labels": [0] * 19 + [10]}, "has a label outside 0 to 9"),
        ({"data": DATA, "labels": [0] * 19 + [-1]}, "has a label outside 0 to 9"),
        ({"data": DATA, "labels": [0] * 19 + [2**70]}, "has a label outside 0 to 9"),
        ({"data": DATA, "labels": np.full(20, 2**63, np.uint64)}, "has a label outside 0 to 9"),
        ({"data": DATA, "labels": [True] * 20}, "'labels' are not a list of integers"),
        ({"data": DATA, "labels": [0.0] * 20}, "'labels' are not a list of integers"),
        ({"data": DATA, "labels": [[0] * 20] * 20}, "'labels' are not a list of integers"),
        ({"data": DATA, "labels": np.zeros((20, 1), int)}, "'labels' are not a list of integers"),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_foreign_content_is_refused_by_name(file, entries, fault, protocol):
    file.write_bytes(pickle.dumps(entries, protocol))
    with pytest.raises(UserError, match=rf"data_batch_1 .*{fault}.*Delete the folder .*data\.root=\.\.\."):
        parse_batch(read_file(file), file)


def test_batch_without_images_is_refused(file):
    file.write_bytes(python2_pickle({b"data": DATA[:0], b"labels": []}))
    with pytest.raises(UserError, match="holds no images"):
        parse_batch(read_file(file), file)


@pytest.mark.parametrize("content", [b"hello, world", b"\x1f\x8b\x08\x00", b"(dp0\n.", pickle.dumps({}, 1)])
def test_file_that_is_no_such_pickle_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_1 is not a pickle of protocol 2 to 5"):
        parse_batch(read_file(file), file)


def test_missing_file_is_named(file):
    with pytest.raises(UserError, match="data_batch_1 is missing"):
        parse_batch(read_file(file), file)


def test_giant_file_is_not_read(file):
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(UserError, match=r"is not a CIFAR file: it has 1,099,511,627,776 bytes"):
        parse_batch(read_file(file), file)


# Attacks. Each leaves a trap behind where Python's own unpickler reads it, which the first assertion makes sure of.


class Evil:
    def __init__(self, trap):
        self.trap = str(trap)

    def __reduce__(self):
        import os

        return os.mkdir, (self.trap,)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numpy_load(trap):
    holder = trap.with_name("evil.npy")
    np.save(holder, np.array([Evil(trap)], object), allow_pickle=True)
    return b"\x80\x02cnumpy\nload\n" + text(str(holder)) + b"N\x88\x87R."


ATTACKS = {
    "GLOBAL REDUCE": lambda trap: pickle.dumps(Evil(trap), 2),
    "STACK_GLOBAL REDUCE": lambda trap: pickle.dumps(Evil(trap), 4),
    "os.system": lambda trap: b"\x80\x02cos\nsystem\n" + text(f"mkdir '{trap}'") + b"\x85R.",
    "eval": lambda trap: b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').mkdir({str(trap)!r})") + b"\x85R.",
    "INST": lambda trap: b"\x80\x02(" + text(str(trap)) + b"ios\nmkdir\n.",
    "OBJ": lambda trap: b"\x80\x02(cos\nmkdir\n" + text(str(trap)) + b"o.",
    "NEWOBJ": lambda trap: (
        b"\x80\x02cbuiltins\nlist\n(cbuiltins\nmap\ncos\nmkdir\n" + text(str(trap)) + b"\x85\x86\x81tR."
    ),
    "NEWOBJ_EX": lambda trap: (
        b"\x80\x04cbuiltins\nlist\n(cbuiltins\nmap\ncos\nmkdir\n" + text(str(trap)) + b"\x85\x86}\x92tR."
    ),
    "BUILD with __setstate__": lambda trap: (
        b"\x80\x02cfunctools\npartial\ncbuiltins\nlen\n\x85R(cos\nmkdir\n" + text(str(trap)) + b"\x85}}tb)R."
    ),
    "object array": lambda trap: pickle.dumps(np.array([Evil(trap)], object), 2),
    "in the entries of a batch": lambda trap: pickle.dumps({"data": Evil(trap), "labels": LABELS}),
    "in the state of an array": lambda trap: (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + pickle.dumps(Evil(trap), 2)[2:-1]
        + b"0."
    ),
    "numpy.load": numpy_load,
    "EXT1": lambda trap: b"\x80\x02\x82\x7f" + text(str(trap)) + b"\x85R.",
}


@pytest.fixture
def extension():
    copyreg.add_extension("os", "mkdir", 0x7F)
    yield
    copyreg.remove_extension("os", "mkdir", 0x7F)
    copyreg.clear_extension_cache()


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_code_runs(file, tmp_path, attack):
    trap = tmp_path / "trap"
    content = ATTACKS[attack](trap)
    pickle.loads(content)
    assert trap.is_dir()
    trap.rmdir()
    copyreg.clear_extension_cache()

    file.write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_1 .*: refused|data_batch_1 is corrupt"):
        parse_batch(read_file(file), file)
    assert not trap.exists()


NDARRAY, RECONSTRUCT = b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\nU\x02u1\x85R"


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        (b"cos\nsystem\n.", r"asks for os\.system: refused"),
        (b"cnumpy\nndarray.__class__\n.", r"asks for numpy\.ndarray\.__class__: refused"),
        (b"cnumpy.core.multiarray\nfromfile\n.", r"asks for numpy\.core\.multiarray\.fromfile: refused"),
        (b"cnumpy.core.multiarray\nscalar\n.", r"asks for numpy\.core\.multiarray\.scalar: refused"),
        (b"c\x1b[31m\nx\n.", r"asks for \\x1b\[31m\.x: refused"),
        (b"Pid\n.", "is corrupt"),
        (b"\x97.", "is corrupt"),
        (NDARRAY + b"}U\x01aK\x01sb.", "is corrupt"),
        (b"]r\xff\xff\xff\x7f.", "is corrupt"),  # a memo of 2**31 entries
        (b"N.", "does not hold a dictionary"),
        (b".", "is corrupt"),
        (b"R.", "is corrupt"),
        (b"h\x07.", "is corrupt"),
        (b"\xff.", "is corrupt"),
        (b"", "is cut short"),
        (b"cnumpy", "is cut short"),
    ],
)
def test_other_programs_are_refused(file, program, fault):
    file.write_bytes(b"\x80\x02" + program)
    with pytest.raises(UserError, match=f"data_batch_1 {fault}|data_batch_1 is not a CIFAR file: it {fault}"):
        parse_batch(read_file(file), file)


def assert_read_or_refused(content):
    """Well-formed arrays, or one clear error: any other exception fails the test."""
    try:
        images, labels = parse_batch(content, Path("data_batch_1"))
    except UserError:
        return
    assert images.dtype == np.uint8
    assert images.shape == (len(labels), 3, 32, 32)
    assert labels.dtype == np.int64
    assert labels.min() >= 0
    assert labels.max() <= 9


SMALL = batch(IMAGES[:2], LABELS[:2])
WRITTEN = [python2_pickle(SMALL), *(pickle.dumps(SMALL, protocol) for protocol in PROTOCOLS)]
WRITERS = ["python 2", *(f"protocol {protocol}" for protocol in PROTOCOLS)]


@pytest.mark.parametrize("content", WRITTEN, ids=WRITERS)
def test_file_cut_anywhere_is_called_cut_short(content):
    for length in range(len(content)):
        with pytest.raises(UserError, match=r"is cut short \(it ends after"):
            parse_batch(content[:length], Path("data_batch_1"))


@pytest.mark.parametrize("content", WRITTEN, ids=WRITERS)
def test_any_flipped_bit_is_read_or_refused(content):
    pixels = content.find(IMAGES[:2].tobytes())
    # All bits around the pixels, which are free to be anything. (Protocol 2 of Python 3 writes them as text.)
    places = {*range(pixels + 2), *range(pixels + 6142, len(content))} if pixels > 0 else range(0, len(content), 7)
    for at in places:
        for bit in range(8):
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            assert_read_or_refused(bytes(changed))


@settings(deadline=None, max_examples=300)
@given(
    content=st.sampled_from(WRITTEN),
    edits=st.lists(st.tuples(st.integers(-700, 700), st.binary(min_size=0, max_size=4)), min_size=1, max_size=4),
    data=st.data(),
)
def test_any_edit_is_read_or_refused(content, edits, data):
    for at, new in edits:
        at %= len(content)
        length = data.draw(st.integers(0, 4))
        content = content[:at] + new + content[at + length :]
    assert_read_or_refused(content)


@settings(deadline=None)
@given(program=st.lists(st.sampled_from([bytes([code]) for code in range(256)] + [DTYPE, NDARRAY, RECONSTRUCT])))
def test_any_program_is_read_or_refused(program):
    assert_read_or_refused(b"\x80\x04" + b"".join(program))
