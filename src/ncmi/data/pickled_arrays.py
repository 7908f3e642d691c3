"""NumPy arrays as pickles describe them, put together from shape, type and bytes after each has been checked.

The names below are only compared: NumPy's own functions for the purpose are never called, since they trust what
they are given (types that hold Python objects, subclasses, sizes that are not there).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ncmi.data.pickled_bytes import SAFE

MAX_DIMENSIONS = 4
_WHOLE_NUMBERS = re.compile("[iu][1248]|b1")


@dataclass(frozen=True)
class KnownName:
    """A name that stands for a part of a NumPy array."""

    role: str


_KNOWN = {
    ("numpy", "ndarray"): KnownName("array class"),
    ("numpy", "dtype"): KnownName("type"),
    ("_codecs", "encode"): KnownName("encode"),
    **{(f"numpy.{core}.multiarray", "_reconstruct"): KnownName("array") for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): KnownName("scalar") for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): KnownName("buffer") for core in ("core", "_core")},
}


def known_name(module: object, name: object) -> KnownName:
    """The meaning of a name in a pickle of arrays.

    Raises:
        ValueError: for every other name, which is told and not imported.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError(f"the pickle asks for a function without a name: {SAFE}")
    if (module, name) not in _KNOWN:
        raise ValueError(f"the pickle asks for {module[:100]}.{name[:100]}, which no data set needs: {SAFE}")
    return _KNOWN[module, name]


class PickledType:
    """A type of whole numbers; its byte order follows in a later instruction."""

    def __init__(self, code: object) -> None:
        text = _text(code)
        if _WHOLE_NUMBERS.fullmatch(text) is None:
            raise ValueError(f"an array of NumPy type {text[:20]!r}: only whole numbers are read, never objects")
        self.code, self.order = text, "|"

    def build(self, state: object) -> None:
        """Take the byte order of ``(version, order, subtype, names, fields, size, alignment, flags, …)``."""
        if not isinstance(state, tuple) or len(state) not in (8, 9) or any(part is not None for part in state[2:5]):
            raise ValueError("a NumPy type with fields or of unknown form: only plain whole numbers are read")
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"byte order {order[:20]!r} of a NumPy type: the file is damaged")
        self.order = order

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type as NumPy has it."""
        return np.dtype(self.order + self.code)


class PickledArray:
    """An array that later instructions fill."""

    def __init__(self) -> None:
        self.values: npt.NDArray[Any] | None = None

    def build(self, state: object) -> None:
        """Take ``(version, shape, type, Fortran order, bytes)``."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[3], bool | int):
            raise ValueError("a NumPy array of unknown form: the file is damaged")
        self.values = _array(data=state[4], kind=state[2], shape=state[1], order="F" if state[3] else "C")

    def whole(self) -> npt.NDArray[Any]:
        """The array.

        Raises:
            ValueError: if it was announced but never filled.
        """
        if self.values is None:
            raise ValueError("a NumPy array without contents: the file is damaged")
        return self.values


def call_known(function: object, arguments: object) -> object:
    """What a call in the pickle stands for: a type, an array to be filled, an array, a number, or bytes.

    Raises:
        ValueError: for anything but the known names with arguments of the usual form.
    """
    role = function.role if isinstance(function, KnownName) else None
    match role, arguments:
        case "type", (code, _, _):
            return PickledType(code)
        case "array", (KnownName(role="array class"), (0,), b"b" | "b"):
            return PickledArray()
        case "buffer", (data, kind, shape, "C" | "F" as order):
            array = PickledArray()
            array.values = _array(data, kind, shape, order)
            return array
        case "scalar", (kind, data):
            return int(_array(data, kind, (1,), "C")[0])
        case "encode", (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")
    raise ValueError(f"a call of {role or 'no function'} with unusual arguments: the file is damaged or hostile")


def build_array(target: object, state: object) -> None:
    """Fill a type or an array.

    Raises:
        ValueError: for any other target, or a state of unusual form.
    """
    if not isinstance(target, PickledType | PickledArray):
        raise ValueError(f"a state for {type(target).__name__}: the file is damaged or hostile; nothing was executed")
    target.build(state)


def _array(data: object, kind: object, shape: object, order: str) -> npt.NDArray[Any]:
    """A view of the bytes; their number has to be what shape and type say."""
    if not isinstance(data, bytes) or not isinstance(kind, PickledType) or not isinstance(shape, tuple):
        raise ValueError("a NumPy array of unknown form: the file is damaged; objects are never read")
    sizes = [size for size in shape if type(size) is int and size > 0]
    if len(sizes) != len(shape) or not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise ValueError(f"a NumPy array with a shape of {len(shape)} entries, not 1 to {MAX_DIMENSIONS} whole numbers")
    needed = math.prod(sizes) * kind.dtype.itemsize
    if needed != len(data):
        raise ValueError(
            f"a NumPy array of shape {[min(size, 10**15) for size in sizes]} needs {min(needed, 10**15):,} bytes, "
            f"the file has {len(data):,} for it: truncated or damaged"
        )
    return np.frombuffer(data, kind.dtype).reshape(sizes, order="F" if order == "F" else "C")


def _text(value: object) -> str:
    if not isinstance(value, str | bytes):
        raise ValueError(f"{type(value).__name__} where the name of a NumPy type belongs: the file is damaged")
    return value if isinstance(value, str) else str(value, "latin-1")
