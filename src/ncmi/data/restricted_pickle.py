"""Pickles of plain data and NumPy arrays, read without unpickling: the format in which CIFAR is published.

The usual reader of this format imports and calls whatever a file names, and so runs what a hostile file says. Here it
is not used: ``pickletools.genops``, which executes nothing, cuts the file into instructions, and a small machine
knows only those that build dicts, lists, tuples, numbers, text and bytes. A function named by the file is neither
imported nor called: its name is compared with the few that stand for a NumPy array, and every other instruction or
name ends the reading. Arrays are put together from shape, type and bytes after each has been checked; NumPy's own
functions for the purpose trust what they are given (types that hold Python objects, subclasses, sizes that are not
there). Memory and time are bounded by the size of the file, and by the number of instructions.
"""

import math
import pickle
import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# CIFAR needs at most about 16 for each of 50,000 records; an instruction of one byte takes 64 bytes of memory
MAX_INSTRUCTIONS = 2_000_000
MAX_INTEGER_BYTES = 16
MAX_DIMENSIONS = 4
SAFE = "nothing in it was executed; delete it and download the original again"
_WHOLE_NUMBERS = re.compile("[iu][1248]|b1")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# instructions whose argument is the value
_VALUES = (
    *("BININT1", "BININT", "BININT2", "BINFLOAT", "LONG1", "LONG4", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINSTRING", "BINSTRING"),
)


def read_pickle(blob: bytes) -> dict[str, object]:
    """The dict in a pickle of protocol 2 to 5, by Python 2 or 3; nothing that it names is imported or called.

    Args:
        blob: the whole file.

    Returns:
        Keys as text; values None, bool, int, float, ``str``, ``bytes`` (the text of Python 2), list, tuple,
        dict or, directly in the dict, a read-only NumPy array of whole numbers.

    Raises:
        ValueError: for any other function or instruction (naming it), a truncated or damaged file, a file
            that is no dict.

    Example:
        >>> read_pickle(pickle.dumps({b"labels": [1, 2], "name": "toy"}, protocol=2))
        {'labels': [1, 2], 'name': 'toy'}
    """
    if not blob.startswith(pickle.PROTO):
        raise ValueError(f"not a pickle of protocol 2 or newer (empty, or of another format): {SAFE}")
    result = _Machine(blob).run()
    if not isinstance(result, dict):
        raise ValueError(f"the pickle holds {type(result).__name__}, not a dict: {SAFE}")
    values: dict[str, object] = {}
    for key, value in result.items():
        name = key if isinstance(key, str) else str(key, "latin-1")
        if name in values:
            raise ValueError(f"key {name!r} occurs twice, as text and as bytes: {SAFE}")
        values[name] = value.whole() if isinstance(value, _Array) else value
    return values


class _Machine:
    """The stack, marks and memo of the format, and what each allowed instruction does to them."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.at = 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.encodable = len(blob)  # bytes that may still be made from text; each character stands for itself

    def run(self) -> object:
        instructions = pickletools.genops(self.blob)
        for _ in range(MAX_INSTRUCTIONS):
            try:
                opcode, argument, position = next(instructions)
            except ValueError as error:
                raise ValueError(f"{self._damage()} ({error}): {SAFE}") from error
            self.at = position or 0
            if opcode.name == "STOP":
                break
            try:
                self.step(opcode.name, argument)
            except IndexError as error:
                raise ValueError(f"{self._damage()}: {SAFE}") from error
        else:
            raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions, which is no CIFAR file: {SAFE}")
        if len(self.stack) != 1 or self.at + 1 != len(self.blob):
            raise ValueError(
                f"the pickle ends at byte {self.at + 1:,} of {len(self.blob):,} with parts left over: {SAFE}"
            )
        return self.stack[0]

    def _damage(self) -> str:
        return f"the pickle of {len(self.blob):,} bytes is truncated or damaged at byte {self.at:,}"

    def step(self, name: str, argument: Any) -> None:
        """Do one instruction; IndexError where stack or memo do not have what it needs."""
        push = self.stack.append
        if name in _VALUES:
            push(self.value(name, argument))
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _TUPLES:
            push(tuple(self.pop(_TUPLES[name])))
        else:
            match name:
                case "PROTO" | "FRAME":
                    pass
                case "BINPUT" | "LONG_BINPUT":
                    self.memo[argument] = self.stack[-1]
                case "MEMOIZE":
                    self.memo[len(self.memo)] = self.stack[-1]
                case "BINGET" | "LONG_BINGET":
                    if argument not in self.memo:
                        raise IndexError
                    push(self.memo[argument])
                case "MARK":
                    self.marks.append(len(self.stack))
                case "EMPTY_DICT" | "EMPTY_LIST":
                    push({} if name == "EMPTY_DICT" else [])
                case "TUPLE":
                    push(tuple(self.pop()))
                case "APPEND":
                    self.extend([self.stack.pop()])
                case "APPENDS":
                    self.extend(self.pop())
                case "SETITEM":
                    self.update(self.pop(2))
                case "SETITEMS":
                    self.update(self.pop())
                case "GLOBAL" | "STACK_GLOBAL":
                    push(_known_name(*(argument.split(" ", 1) if name == "GLOBAL" else self.pop(2))))
                case "REDUCE":
                    self.reduce()
                case "BUILD":
                    target, state = self.pop(2)
                    if not isinstance(target, _Type | _Array):
                        what = f"a state for {type(target).__name__}"
                        raise ValueError(f"{what}: the file is damaged or hostile; nothing was executed")
                    target.build(state)
                    push(target)
                case _:
                    called = f" for {argument[:200].replace(' ', '.')}" if name == "INST" else ""
                    raise ValueError(
                        f"instruction {name}{called} at byte {self.at:,} is not one that data of protocol 2 to 5 "
                        f"needs: {SAFE}"
                    )

    def value(self, name: str, argument: Any) -> object:
        if name in ("LONG1", "LONG4"):
            size = int.from_bytes(self.blob[self.at + 1 : self.at + (2 if name == "LONG1" else 5)], "little")
            if size > MAX_INTEGER_BYTES:
                raise ValueError(f"a whole number of {size:,} bytes at byte {self.at:,}: {SAFE}")
        if name.endswith("STRING"):
            return argument.encode("latin-1")  # the text of Python 2, which is bytes
        return bytes(argument) if isinstance(argument, bytearray) else argument

    def pop(self, count: int | None = None) -> list[object]:
        """The last ``count`` items of the stack, by default those above the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start < 0:
            raise IndexError
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def extend(self, items: list[object]) -> None:
        if not isinstance(target := self.stack[-1], list):
            raise IndexError
        target.extend(items)

    def update(self, items: list[object]) -> None:
        target, keys = self.stack[-1], items[::2]
        if not isinstance(target, dict) or len(items) % 2:
            raise IndexError
        # text alone: the hash of deeply nested tuples would recurse without bound
        if not all(isinstance(key, str | bytes) for key in keys):
            raise ValueError(f"a key of a dict before byte {self.at:,} is neither text nor bytes: {SAFE}")
        target.update(zip(keys, items[1::2], strict=True))

    def reduce(self) -> None:
        value = _call(*self.pop(2))
        if isinstance(value, bytes):
            self.encodable -= len(value)
            if self.encodable < 0:
                raise ValueError(f"the pickle unfolds to more bytes than it has: {SAFE}")
        self.stack.append(value)


@dataclass(frozen=True)
class _Name:
    """A name that stands for a part of a NumPy array."""

    role: str


_KNOWN = {
    ("numpy", "ndarray"): _Name("array class"),
    ("numpy", "dtype"): _Name("type"),
    ("_codecs", "encode"): _Name("encode"),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Name("array") for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Name("scalar") for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Name("buffer") for core in ("core", "_core")},
}


def _known_name(module: object, name: object) -> _Name:
    """The meaning of a name in a pickle of arrays; every other name is told, and not imported."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError(f"the pickle asks for a function without a name: {SAFE}")
    if (module, name) not in _KNOWN:
        raise ValueError(f"the pickle asks for {module[:100]}.{name[:100]}, which no data set needs: {SAFE}")
    return _KNOWN[module, name]


class _Type:
    """A type of whole numbers; its byte order follows in a later instruction."""

    def __init__(self, code: object) -> None:
        self.code, self.order = _text(code), "|"
        if _WHOLE_NUMBERS.fullmatch(self.code) is None:
            raise ValueError(f"an array of NumPy type {self.code[:20]!r}: only whole numbers are read, never objects")

    def build(self, state: object) -> None:
        """Take the byte order of ``(version, order, subtype, names, fields, size, alignment, flags, …)``."""
        if not isinstance(state, tuple) or len(state) not in (8, 9) or any(part is not None for part in state[2:5]):
            raise ValueError("a NumPy type with fields or of unknown form: only plain whole numbers are read")
        self.order = _text(state[1])
        if self.order not in ("<", ">", "|", "="):
            raise ValueError(f"byte order {self.order[:20]!r} of a NumPy type: the file is damaged")


class _Array:
    """An array that later instructions may fill."""

    def __init__(self, values: npt.NDArray[Any] | None = None) -> None:
        self.values = values

    def build(self, state: object) -> None:
        """Take ``(version, shape, type, Fortran order, bytes)``."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[3], bool | int):
            raise ValueError("a NumPy array of unknown form: the file is damaged")
        self.values = _array(data=state[4], kind=state[2], shape=state[1], order="F" if state[3] else "C")

    def whole(self) -> npt.NDArray[Any]:
        if self.values is None:
            raise ValueError("a NumPy array without contents: the file is damaged")
        return self.values


def _call(function: object, arguments: object) -> object:
    """What a call stands for: a type, an array, filled or not, a number, or bytes; anything else is an error."""
    role = function.role if isinstance(function, _Name) else None
    match role, arguments:
        case "type", (code, _, _):
            return _Type(code)
        case "array", (_Name(role="array class"), (0,), b"b" | "b"):
            return _Array()
        case "buffer", (data, kind, shape, "C" | "F" as order):
            return _Array(_array(data, kind, shape, order))
        case "scalar", (kind, data):
            return int(_array(data, kind, (1,), "C")[0])
        case "encode", (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")
    raise ValueError(f"a call of {role or 'no function'} with unusual arguments: the file is damaged or hostile")


def _array(data: object, kind: object, shape: object, order: str) -> npt.NDArray[Any]:
    """A view of the bytes; their number has to be what shape and type say."""
    if not isinstance(data, bytes) or not isinstance(kind, _Type) or not isinstance(shape, tuple):
        raise ValueError("a NumPy array of unknown form: the file is damaged; objects are never read")
    sizes = [size for size in shape if type(size) is int and size > 0]
    if len(sizes) != len(shape) or not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise ValueError(f"a NumPy array with a shape of {len(shape)} entries, not 1 to {MAX_DIMENSIONS} whole numbers")
    dtype = np.dtype(kind.order + kind.code)
    needed = math.prod(sizes) * dtype.itemsize
    if needed != len(data):
        raise ValueError(
            f"a NumPy array of shape {[min(size, 10**15) for size in sizes]} needs {min(needed, 10**15):,} bytes, "
            f"the file has {len(data):,} for it: truncated or damaged"
        )
    return np.frombuffer(data, dtype).reshape(sizes, order="F" if order == "F" else "C")


def _text(value: object) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError(f"{type(value).__name__} where the name of a NumPy type belongs: the file is damaged")
    return value if isinstance(value, str) else str(value, "latin-1")
