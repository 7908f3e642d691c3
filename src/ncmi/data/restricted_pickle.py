"""Pickles of plain data and NumPy arrays, read without unpickling: the format in which CIFAR is published.

The usual reader of this format imports and calls whatever a file names, and so runs what a hostile file says.
Here it is not used. A small machine knows only the instructions that build dicts, lists, tuples, numbers, text
and bytes. A function named by the file is neither imported nor called: its name is compared with the few that
stand for a NumPy array (:mod:`ncmi.data.pickled_arrays`), and every other instruction or name ends the reading.
Memory and time are bounded by the size of the file, and by the number of instructions.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from ncmi.data.pickled_arrays import PickledArray, build_array, call_known, known_name
from ncmi.data.pickled_bytes import SAFE, PickledBytes

# CIFAR needs at most about 16 for each of 50,000 records; an instruction of one byte takes 64 bytes of memory
MAX_INSTRUCTIONS = 2_000_000

_NUMBERS = {pickle.BININT1: "<B", pickle.BININT2: "<H", pickle.BININT: "<i", pickle.BINFLOAT: ">d"}
_CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False, pickle.EMPTY_TUPLE: ()}
_BYTES = {
    pickle.SHORT_BINSTRING: "<B",
    pickle.BINSTRING: "<i",
    pickle.SHORT_BINBYTES: "<B",
    pickle.BINBYTES: "<I",
    pickle.BINBYTES8: "<Q",
    pickle.BYTEARRAY8: "<Q",
}
_TEXT = {pickle.SHORT_BINUNICODE: "<B", pickle.BINUNICODE: "<I", pickle.BINUNICODE8: "<Q"}
_INTEGERS = {pickle.LONG1: "<B", pickle.LONG4: "<i"}
_PUT = {pickle.BINPUT: "<B", pickle.LONG_BINPUT: "<I"}
_GET = {pickle.BINGET: "<B", pickle.LONG_BINGET: "<I"}
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}


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
    machine = _Machine(blob)
    try:
        result = machine.run()
    except (IndexError, struct.error) as error:
        raise ValueError(
            f"the pickle of {len(blob):,} bytes is truncated or damaged at byte {machine.at:,}: {SAFE}"
        ) from error
    finally:
        machine.steps.clear()  # they refer to the machine: the bytes would stay until the next garbage collection
    if not isinstance(result, dict):
        raise ValueError(f"the pickle holds {type(result).__name__}, not a dict: {SAFE}")
    values: dict[str, object] = {}
    for key, value in result.items():
        name = key if isinstance(key, str) else str(key, "latin-1")
        if name in values:
            raise ValueError(f"key {name!r} occurs twice, as text and as bytes: {SAFE}")
        values[name] = value.whole() if isinstance(value, PickledArray) else value
    return values


class _Machine(PickledBytes):
    """The stack, marks and memo of the format, and one step for each allowed instruction."""

    def __init__(self, blob: bytes) -> None:
        super().__init__(blob)
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.encodable = len(blob)  # bytes that may still be made from text; each character stands for itself
        self.steps = self._table()

    def _table(self) -> dict[int, Callable[[], None]]:
        push = self.stack.append
        steps: dict[bytes, Callable[[], None]] = {
            pickle.PROTO: lambda: self.skip(1),
            pickle.FRAME: lambda: self.skip(8),
            pickle.MARK: lambda: self.marks.append(len(self.stack)),
            pickle.EMPTY_DICT: lambda: push({}),
            pickle.EMPTY_LIST: lambda: push([]),
            pickle.TUPLE: lambda: push(tuple(self.pop_mark())),
            pickle.APPEND: lambda: self.extend([self.stack.pop()]),
            pickle.APPENDS: lambda: self.extend(self.pop_mark()),
            pickle.SETITEM: lambda: self.update(self.pop(2)),
            pickle.SETITEMS: lambda: self.update(self.pop_mark()),
            pickle.MEMOIZE: lambda: self.memo.__setitem__(len(self.memo), self.stack[-1]),
            pickle.GLOBAL: lambda: push(known_name(self.line(), self.line())),
            pickle.STACK_GLOBAL: lambda: push(known_name(*self.pop(2))),
            pickle.REDUCE: self.reduce,
            pickle.BUILD: self.build,
        }
        steps |= {code: partial(push, value) for code, value in _CONSTANTS.items()}
        steps |= {code: partial(self.tuple_of, size) for code, size in _TUPLES.items()}
        readers: tuple[tuple[dict[bytes, str], Callable[[Callable[[], int]], None]], ...] = (
            (_NUMBERS, lambda number: push(number())),
            (_BYTES, lambda number: push(self.take(number()))),
            (_TEXT, lambda number: push(str(self.take(number()), "utf-8"))),
            (_INTEGERS, lambda number: push(self.integer(number()))),
            (_PUT, lambda number: self.memo.__setitem__(number(), self.stack[-1])),
            (_GET, lambda number: push(self.recall(number()))),
        )
        for formats, reader in readers:
            for code, form in formats.items():
                steps[code] = partial(reader, partial(self.number, struct.Struct(form)))
        return {code[0]: step for code, step in steps.items()}

    def run(self) -> object:
        for _ in range(MAX_INSTRUCTIONS):
            code = self.blob[self.at]
            self.at += 1
            if code == pickle.STOP[0]:
                break
            step = self.steps.get(code)
            if step is None:
                self.refuse(code)
            step()
        else:
            raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions, which is no CIFAR file: {SAFE}")
        if len(self.stack) != 1 or self.at != len(self.blob):
            raise ValueError(f"the pickle ends at byte {self.at:,} of {len(self.blob):,} with parts left over: {SAFE}")
        return self.stack[0]

    def refuse(self, code: int) -> NoReturn:
        at, names = self.at - 1, [found.name for found in pickletools.opcodes if found.code == chr(code)]
        name = f"instruction {names[0]}" if names else f"byte 0x{code:02x}"
        if code == pickle.INST[0]:
            name += f" for {self.line()}.{self.line()}"
        raise ValueError(f"{name} at byte {at:,} is not one that data of protocol 2 to 5 needs: {SAFE}")

    def tuple_of(self, size: int) -> None:
        self.stack.append(tuple(self.pop(size)))

    def recall(self, index: int) -> object:
        if index not in self.memo:
            raise IndexError
        return self.memo[index]

    def pop(self, count: int) -> list[object]:
        if count > len(self.stack):
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def pop_mark(self) -> list[object]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
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
        function, arguments = self.pop(2)
        value = call_known(function, arguments)
        if isinstance(value, bytes):
            self.encodable -= len(value)
            if self.encodable < 0:
                raise ValueError(f"the pickle unfolds to more bytes than it has: {SAFE}")
        self.stack.append(value)

    def build(self) -> None:
        target, state = self.pop(2)
        build_array(target, state)
        self.stack.append(target)
