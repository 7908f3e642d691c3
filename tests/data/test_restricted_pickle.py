"""Reading pickles without unpickling: the same values as the usual reader, and nothing ever runs."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import fractions
import os
import pickle
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_layouts import python2_pickle
from hypothesis import given
from hypothesis import strategies as st

from ncmi.data.restricted_pickle import MAX_INSTRUCTIONS, read_pickle

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 6)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**126), 2**126)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(min_size=1, max_size=300),
    lambda inner: (
        st.lists(inner) | st.tuples(inner) | st.tuples(inner, inner, inner, inner) | st.dictionaries(st.text(), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), plain), st.integers(2, 5))
def test_plain_values_as_the_usual_reader_has_them(values: dict[str, Any], protocol: int) -> None:
    blob = pickle.dumps(values, protocol=protocol)
    read = read_pickle(blob)
    assert read == values
    assert repr(read) == repr(pickle.loads(blob))  # repr: True is not 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<u2", "bool"])
def test_arrays(protocol: int, dtype: str) -> None:
    for array in (IMAGES.astype(dtype), np.asfortranarray(IMAGES.astype(dtype)), IMAGES[0].astype(dtype)):
        read = read_pickle(pickle.dumps({b"data": array, "again": array, "n": array.flat[3]}, protocol=protocol))
        np.testing.assert_array_equal(read["data"], array)
        assert read["data"].dtype == array.dtype
        np.testing.assert_array_equal(read["again"], array)
        assert read["n"] == int(array.flat[3])


def test_python_2_and_its_bytes() -> None:
    blob = python2_pickle({b"data": IMAGES, b"fine_labels": [3, 300], b"name": b"\xe9" * 400})
    read = read_pickle(blob)
    usual = pickle.loads(blob, encoding="bytes")
    np.testing.assert_array_equal(read["data"], usual[b"data"])
    np.testing.assert_array_equal(read["data"], IMAGES)
    assert (read["fine_labels"], read["name"]) == ([3, 300], b"\xe9" * 400)


class Calls:
    """What calls a function when the usual reader reads it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Slots:
    pass


class Matrix(np.ndarray):
    pass


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(module: str, name: str, arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


HOSTILE: dict[str, tuple[Callable[[str], Any], str]] = {
    "os.system": (lambda shell: Calls(os.system, shell), f"asks for {os.name}.system, which no data set needs"),
    "eval": (lambda shell: Calls(eval, f"__import__('os').system({shell!r})"), "asks for builtins.eval"),
    "exec": (lambda shell: Calls(exec, f"__import__('os').system({shell!r})"), "asks for builtins.exec"),
    "nested": (lambda shell: [{"a": ([Calls(os.system, shell)],)}], "asks for posix.system"),
    "getattr": (
        lambda shell: Calls(getattr, shell, "upper"),
        "builtins.getattr",
    ),
    "object array": (lambda shell: np.array([Calls(os.system, shell)], dtype=object), "type 'O8': only whole numbers"),
    "fields": (lambda shell: np.zeros(3, [("a", "u1")]), "type 'V1': only whole numbers"),
    "text array": (lambda shell: np.array([shell]), "type 'U"),
    "floats": (lambda shell: np.zeros(3), "type 'f8'"),
    "subclass": (lambda shell: np.zeros(3, np.uint8).view(Matrix), "asks for test_restricted_pickle.Matrix"),
    "numpy function": (lambda shell: Calls(np.load, shell), "asks for numpy.load"),
    "fraction": (lambda shell: fractions.Fraction(1, 3), "asks for fractions.Fraction"),
    "ordered dict": (lambda shell: collections.OrderedDict(a=1), "asks for collections.OrderedDict"),
    "instance": (lambda shell: Slots(), "asks for .*Slots"),
    "set": (lambda shell: {shell}, "instruction EMPTY_SET|asks for builtins.set|asks for __builtin__.set"),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_values_run_nothing(tmp_path: Path, case: str, protocol: int) -> None:
    marker = tmp_path / "ran"
    make, message = HOSTILE[case]
    value = make(f"touch {marker}")
    blob = pickle.dumps({b"data": IMAGES, b"fine_labels": value}, protocol=protocol)
    message = re.sub(r"builtins\.(?=\w+$)", r"(__builtin__|builtins).", message)
    with pytest.raises(ValueError, match=message.replace("asks for nt.", "asks for posix.")):
        read_pickle(blob)
    assert not marker.exists()
    if case == "os.system":
        pickle.loads(blob)  # the test can fail: the usual reader does run it
        assert marker.exists()


MARKED = b"\x80\x02}("
END = b"u."
RAW = {
    "persistent id": (b"U\x01aQ", "instruction BINPERSID at byte 7"),
    "persistent id, text": (b"Pabc\n", "instruction PERSID"),
    "EXT1": (b"\x82\xf0", "instruction EXT1"),
    "EXT2": (b"\x83\xf0\xf0", "instruction EXT2"),
    "EXT4": (b"\x84\xf0\xf0\x00\x00", "instruction EXT4"),
    "INST": (b"(S'touch'\niposix\nsystem\n", "instruction STRING"),
    "INST alone": (b"(iposix\nsystem\n", "instruction INST for posix.system"),
    "OBJ": (b"(cnumpy\nndarray\no", "instruction OBJ"),
    "NEWOBJ": (b"cnumpy\nndarray\n)\x81", "instruction NEWOBJ"),
    "NEWOBJ_EX": (b"cnumpy\nndarray\n)}\x92", "instruction NEWOBJ_EX"),
    "out of band": (b"\x97", "instruction NEXT_BUFFER"),
    "pop": (b"N0", "instruction POP"),
    "unknown": (b"\xff", "damaged at byte .*xff"),
    "text protocol": (b"I5\n", "instruction INT"),
    "state of a dict": (b"}U\x01aU\x01b\x86b", "a state for dict"),
    "state of a name": (b"cnumpy\nndarray\n}U\x01aU\x01bsb", "a state for _Name"),
    "call of text": (text("os") + b")R", "a call of no function"),
    "call of the class": (call("numpy", "ndarray", b"K\x01\x85"), "a call of array class"),
    "rot13": (call("_codecs", "encode", text("a") + text("rot13") + b"\x86"), "a call of encode with unusual"),
    "escapes": (call("_codecs", "encode", text("a") + text("unicode_escape") + b"\x86"), "a call of encode"),
    "decode": (call("_codecs", "decode", text("a") + text("hex") + b"\x86"), "asks for _codecs.decode"),
    "dotted": (b"\x8c\x05numpy\x8c\x0fndarray.__new__\x93", "asks for numpy.ndarray.__new__"),
    "name is no text": (b"K\x01K\x02\x93", "a function without a name"),
    "other subtype": (
        call("numpy.core.multiarray", "_reconstruct", b"cnumpy\ndtype\nK\x00\x85U\x01b\x87"),
        "a call of array with unusual arguments",
    ),
    "huge integer": (b"\x8a\xff" + bytes(255), "a whole number of 255 bytes"),
    "negative length": (b"T\xff\xff\xff\xff", "damaged at byte .*-1"),
    "no such memo": (b"h\x07", "damaged at byte"),
    "append to text": (b"U\x01aU\x01ba", "damaged at byte"),
    "odd items": (b"U\x01a", "damaged at byte"),
    "key is a number": (b"K\x01K\x02", "neither text nor bytes"),
    "key is a list": (b"]K\x02", "neither text nor bytes"),
    "long name": (b"c" + b"a" * 300 + b"\nb\n", r"asks for a{100}\.b"),
    "not UTF-8": (b"X\x01\x00\x00\x00\xff", "utf-8"),
}


@pytest.mark.parametrize("case", RAW)
def test_instructions_that_data_does_not_need(case: str) -> None:
    code, message = RAW[case]
    with pytest.raises(ValueError, match=message):
        read_pickle(MARKED + code + END)


def test_registered_extension_is_not_looked_up(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 0xF0)
    try:
        blob = b"\x80\x02}(U\x01a\x82\xf0" + text(f"touch {tmp_path / 'ran'}") + b"\x85Ru."
        with pytest.raises(ValueError, match=r"instruction EXT1 at byte 7 .*nothing in it was executed"):
            read_pickle(blob)
        pickle.loads(blob)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert (tmp_path / "ran").exists()  # by the usual reader, after ours


def array_state(shape: bytes, data: bytes, code: bytes = b"U\x02u1") -> bytes:
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
    kind = b"cnumpy\ndtype\n" + code + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return b"U\x01a" + head + b"K\x01" + shape + kind + b"\x89" + data + b"tb"


HUGE = b"\x8a\x08" + (2**62).to_bytes(8, "little")
BOMBS = {
    "bytes": b"U\x01a\x8e" + (2**62).to_bytes(8, "little"),
    "bytearray": b"U\x01a\x96" + (2**40).to_bytes(8, "little"),
    "text": b"U\x01a\x8d" + (2**63).to_bytes(8, "little"),
    "shape": array_state(HUGE + b"\x85", b"U\x01x"),
    "shape whose product overflows": array_state(HUGE + HUGE + HUGE + b"\x87", b"U\x01x"),
    "shape with 0": array_state(HUGE + b"K\x00\x86", b"U\x00"),
    "negative shape": array_state(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", b"U\x01x"),
    "no shape": array_state(b")", b"U\x01x"),
    "many dimensions": array_state(b"(" + 40 * b"K\x01" + b"t", b"U\x01x"),
    "objects as data": array_state(b"K\x01\x85", b"]"),
    "type of a terabyte": array_state(b"K\x01\x85", b"U\x01x", b"U\x0eV1099511627776"),
    "array never filled": b"U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
    "unfolding": b"c_codecs\nencode\nq\x01" + text("é" * 5000) + text("latin1") + b"\x86q\x02" + 2000 * b"h\x01h\x02R",
}


@pytest.mark.parametrize("case", BOMBS)
def test_announced_sizes_are_never_allocated(case: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            read_pickle(MARKED + BOMBS[case] + END)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_memo_takes_no_room_for_unused_numbers() -> None:
    tracemalloc.start()
    try:
        assert read_pickle(MARKED + b"U\x01aNr\xff\xff\xff\x7f" + END) == {"a": None}
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_number_of_instructions_is_bounded() -> None:
    with pytest.raises(ValueError, match="more than 2,000,000 instructions, which is no CIFAR file"):
        read_pickle(b"\x80\x02" + MAX_INSTRUCTIONS * b")" + b".")


def test_deep_nesting() -> None:
    deep = 300_000 * b"\x85"
    read = read_pickle(b"\x80\x02}U\x01aN" + deep + b"s.")
    assert isinstance(read["a"], tuple)
    with pytest.raises(ValueError, match="neither text nor bytes"):
        read_pickle(b"\x80\x02}N" + deep + b"Ns.")
    itself = read_pickle(b"\x80\x02}q\x01U\x01ah\x01s.")
    assert list(itself) == ["a"]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "not a pickle of protocol 2 or newer"),
        (b"\x1f\x8b\x08 gzip", "not a pickle"),
        (pickle.dumps({"a": 1}, protocol=0), "not a pickle"),
        (pickle.dumps([1, 2]), "holds list, not a dict"),
        (pickle.dumps({"a": 1, b"a": 2}), "'a' occurs twice"),
        (pickle.dumps({"a": 1}) + b"N", "ends at byte .* with parts left over"),
        (b"\x80\x02}}.", "with parts left over"),
        (b"\x80\x02.", "with parts left over"),
    ],
)
def test_not_one_dict(blob: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}.*nothing in it was executed; delete it and download"):
        read_pickle(blob)


WHOLE = {
    "python 2": python2_pickle({b"data": IMAGES, b"fine_labels": [3, 300], b"name": b"x" * 300}),
    **{f"protocol {p}": pickle.dumps({b"data": IMAGES, "labels": [1, 70000, 2**40]}, protocol=p) for p in (2, 3, 4, 5)},
}


@pytest.mark.parametrize("case", WHOLE)
def test_every_truncation_is_told(case: str) -> None:
    blob = WHOLE[case]
    for length in range(len(blob)):
        with pytest.raises(ValueError):
            read_pickle(blob[:length])


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_damage_is_a_value_error_or_another_value(case: str, data: st.DataObject) -> None:
    blob = bytearray(WHOLE[case])
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(2, len(blob) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read_pickle(bytes(blob))


@given(st.binary(max_size=200))
def test_noise_is_a_value_error_or_a_value(noise: bytes) -> None:
    for start in (b"\x80\x02", MARKED, WHOLE["protocol 4"][:60]):
        with contextlib.suppress(ValueError):
            read_pickle(start + noise)
