"""A machine for pickles that knows plain containers and NumPy's way of writing an array, and nothing else.

A pickle is a program for a small stack machine. Python's own machine can be made to call anything, and to allocate
by a length that the file merely claims. The one here knows what the official files need, whichever Python wrote them
(protocols 2 to 5). It imports and calls nothing, refuses every other instruction by name, and never holds more than a
small multiple of the file.
"""

import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_FILE = 1 << 29  # 17 times an official batch


def unpickled(content: bytes) -> Any:
    """What the pickle builds, arrays as `PlainArray`.

    Raises CutShort, Refused, or, where its instructions make no sense, Corrupt.
    """
    try:
        return _Machine(content).run()
    except (IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError) as error:
        raise Corrupt from error


class CutShort(Exception):
    """The file ends inside an instruction."""


class Refused(Exception):
    """The file asks for what plain data never needs; the text completes "<path> …"."""


class Corrupt(Exception):
    """Its instructions make no sense."""


@dataclass
class _DType:
    code: str
    byte_order: str = "="


@dataclass
class PlainArray:
    """An array that the file holds; None until the file has said what is in it."""

    value: np.ndarray | None = None


@dataclass(frozen=True)
class _Global:
    """A name that the file asks to import. It is only ever compared, never imported."""

    name: str


_RECONSTRUCT, _FROMBUFFER = _Global("numpy._core.multiarray._reconstruct"), _Global("numpy._core.numeric._frombuffer")
_NDARRAY, _DTYPE, _ENCODE = _Global("numpy.ndarray"), _Global("numpy.dtype"), _Global("_codecs.encode")
_KNOWN = {known.name: known for known in (_RECONSTRUCT, _FROMBUFFER, _NDARRAY, _DTYPE, _ENCODE)}


class _Machine:
    """Runs one pickle. Every instruction is a method below; what has none is refused."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0

    def run(self) -> Any:
        content = self.content
        if len(content) < 2:
            raise CutShort
        if content[0] != pickle.PROTO[0] or content[1] not in (2, 3, 4, 5):
            raise Refused("is no CIFAR-10 file (not a pickle of protocol 2 to 5)")
        # An image takes 3,072 bytes and 5 instructions; with 12 for each, no file fills the memory with tiny objects.
        for _ in range(1_000 + len(content) // 256):
            if self.at >= len(content):
                raise CutShort
            instruction = content[self.at]
            self.at += 1
            if instruction == pickle.STOP[0]:
                return self.stack.pop()
            step = _STEPS.get(instruction)
            if step is None:
                raise Refused(_unknown(instruction))
            step(self)
        raise Refused("is no CIFAR-10 file: it has far more entries than images")

    def take(self, n: int) -> bytes:
        start, self.at = self.at, self.at + n
        if self.at > len(self.content):
            raise CutShort
        return self.content[start : self.at]

    def view(self, n: int) -> bytes | memoryview:
        """Long strings are pixels, and needn't be copied."""
        if n < 1 << 16:
            return self.take(n)
        start, self.at = self.at, self.at + n
        if self.at > len(self.content):
            raise CutShort
        return memoryview(self.content)[start : self.at]

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> str:
        end = self.content.find(b"\n", self.at, self.at + 200)
        if end < 0:
            raise CutShort if self.at + 200 > len(self.content) else Refused("is corrupt")
        return self.take(end + 1 - self.at)[:-1].decode("ascii")

    def since_mark(self) -> list:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def pack(self, n: int) -> None:
        if n > len(self.stack):
            raise IndexError
        self.stack[-n:] = [tuple(self.stack[-n:])]

    def append(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(items)

    def set_items(self, items: list) -> None:
        if type(self.stack[-1]) is not dict or not set(map(type, items[::2])) <= {bytes, str}:
            raise TypeError
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def look_up(self, module: str, name: str) -> None:
        # NumPy 2 renamed numpy.core to numpy._core; either may have written the file.
        found = _KNOWN.get(f"{re.sub('^numpy[.]core[.]', 'numpy._core.', module)}.{name}")
        if found is None:
            asked = printable(f"{module}.{name}")
            raise Refused(f"asks for {asked}: refused, as only plain data and NumPy arrays are read from it")
        self.stack.append(found)

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError
        self.look_up(module, name)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or not isinstance(function, _Global):
            raise TypeError
        if function is _RECONSTRUCT and arguments[0] is _NDARRAY:
            self.stack.append(PlainArray())
        elif function is _DTYPE:
            self.stack.append(_DType(_plain_dtype(arguments[0])))
        elif function is _FROMBUFFER:
            buffer, dtype, shape, order = arguments
            self.stack.append(PlainArray(_array(buffer, dtype, shape, order)))
        elif function is _ENCODE:
            self.stack.append(self.encode(*arguments))
        else:
            raise Refused(f"calls {function.name} as plain data never does: refused")

    def encode(self, text: str, encoding: str) -> bytes:
        """How Python 3 writes bytes for Python 2. Bounded, as one text could be encoded again and again."""
        if type(text) is not str or encoding != "latin1":
            raise TypeError
        self.encoded += len(text)
        if self.encoded > len(self.content):
            raise Refused("is no CIFAR-10 file: it encodes more text than it has")
        return text.encode("latin1")

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(state) is not tuple:
            raise TypeError
        if isinstance(target, _DType):
            target.byte_order = _text(state[1])
        elif isinstance(target, PlainArray):
            _, shape, dtype, fortran, raw = state
            target.value = _array(raw, dtype, shape, "F" if fortran is True else "C")
        else:
            raise Refused("sets the state of something else than an array: refused")


def _plain_dtype(code: Any) -> str:
    text = _text(code)
    if re.fullmatch("[iu][1248]", text) is None:
        raise Refused(f"holds an array of type {printable(text)}: refused, as only whole numbers are read from it")
    return text


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """A read-only view of the raw bytes, which a claimed shape can't exceed."""
    if type(raw) not in (bytes, memoryview) or not isinstance(dtype, _DType) or type(shape) is not tuple:
        raise TypeError
    if not 1 <= len(shape) <= 4 or not all(type(length) is int and 0 <= length <= LARGEST_FILE for length in shape):
        raise ValueError
    if _text(order) not in ("C", "F") or dtype.byte_order not in ("<", ">", "|", "="):
        raise ValueError
    order_of_type = "=" if dtype.byte_order == "|" else dtype.byte_order  # "|": a single byte has none
    values = np.frombuffer(raw, np.dtype(order_of_type + dtype.code))
    return values.reshape(shape, order="F" if _text(order) == "F" else "C")


def printable(name: Any) -> str:
    """What a file says, in at most 60 characters that can be shown to a person."""
    text = name.decode("latin1") if isinstance(name, bytes) else str(name)
    return ascii(text[:60])[1:-1]


def _text(value: Any) -> str:
    if type(value) is bytes:
        return value.decode("ascii")
    if type(value) is not str:
        raise TypeError
    return value


def _unknown(instruction: int) -> str:
    import pickletools  # only needed to name what is refused

    for known in pickletools.opcodes:
        if ord(known.code) == instruction:
            return f"uses the pickle instruction {known.name}: refused, as plain data and NumPy arrays do without it"
    return "is corrupt"


def _bytes(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.view(machine.number(size)))


def _unicode(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.take(machine.number(size)).decode("utf-8", "surrogatepass"))


def _constant(make: Callable[[], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(make())


def _remember(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.memo.__setitem__(machine.number(size), machine.stack[-1])


def _recall(size: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.memo[machine.number(size)])


_STEPS: dict[int, Callable[[_Machine], Any]] = {
    pickle.PROTO[0]: lambda machine: machine.take(1),
    pickle.FRAME[0]: lambda machine: machine.take(8),
    pickle.MARK[0]: lambda machine: machine.marks.append(len(machine.stack)),
    pickle.NONE[0]: _constant(lambda: None),
    pickle.NEWTRUE[0]: _constant(lambda: True),
    pickle.NEWFALSE[0]: _constant(lambda: False),
    pickle.EMPTY_DICT[0]: _constant(dict),
    pickle.EMPTY_LIST[0]: _constant(list),
    pickle.EMPTY_TUPLE[0]: _constant(tuple),
    pickle.BININT1[0]: lambda machine: machine.stack.append(machine.number(1)),
    pickle.BININT2[0]: lambda machine: machine.stack.append(machine.number(2)),
    pickle.BININT[0]: lambda machine: machine.stack.append(machine.number(4, signed=True)),
    pickle.LONG1[0]: lambda machine: machine.stack.append(machine.number(machine.number(1), signed=True)),
    pickle.BINFLOAT[0]: lambda machine: machine.stack.append(struct.unpack(">d", machine.take(8))[0]),
    pickle.SHORT_BINSTRING[0]: _bytes(1),
    pickle.BINSTRING[0]: _bytes(4),
    pickle.SHORT_BINBYTES[0]: _bytes(1),
    pickle.BINBYTES[0]: _bytes(4),
    pickle.BINBYTES8[0]: _bytes(8),
    pickle.BYTEARRAY8[0]: _bytes(8),
    pickle.SHORT_BINUNICODE[0]: _unicode(1),
    pickle.BINUNICODE[0]: _unicode(4),
    pickle.BINUNICODE8[0]: _unicode(8),
    pickle.TUPLE[0]: lambda machine: machine.stack.append(tuple(machine.since_mark())),
    pickle.TUPLE1[0]: lambda machine: machine.pack(1),
    pickle.TUPLE2[0]: lambda machine: machine.pack(2),
    pickle.TUPLE3[0]: lambda machine: machine.pack(3),
    pickle.APPEND[0]: lambda machine: machine.append([machine.stack.pop()]),
    pickle.APPENDS[0]: lambda machine: machine.append(machine.since_mark()),
    pickle.SETITEM[0]: lambda machine: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    pickle.SETITEMS[0]: lambda machine: machine.set_items(machine.since_mark()),
    pickle.BINPUT[0]: _remember(1),
    pickle.LONG_BINPUT[0]: _remember(4),
    pickle.MEMOIZE[0]: lambda machine: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    pickle.BINGET[0]: _recall(1),
    pickle.LONG_BINGET[0]: _recall(4),
    pickle.GLOBAL[0]: lambda machine: machine.look_up(machine.line(), machine.line()),
    pickle.STACK_GLOBAL[0]: _Machine.stack_global,
    pickle.REDUCE[0]: _Machine.reduce,
    pickle.BUILD[0]: _Machine.build,
}
