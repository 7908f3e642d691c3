"""Numbers, lines and stretches of bytes in a pickle, none longer than the file."""

from __future__ import annotations

import struct

MAX_INTEGER_BYTES = 16
MAX_LINE = 256
SAFE = "nothing in it was executed; delete it and download the original again"


class PickledBytes:
    """A position in the bytes of a pickle.

    Where the bytes end too early, the methods raise ``IndexError`` or ``struct.error``, or ``ValueError`` with
    the announced and the actual size.
    """

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.at = 0

    def number(self, form: struct.Struct) -> int:
        """The number of this form here."""
        value: int = form.unpack_from(self.blob, self.at)[0]
        self.at += form.size
        return value

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        start, end = self.at, self.at + size
        if size < 0 or end > len(self.blob):
            raise ValueError(
                f"truncated or damaged: {size:,} bytes are announced at byte {start:,}, but the file has "
                f"{len(self.blob):,} in all: {SAFE}"
            )
        self.at = end
        return self.blob[start:end]

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes."""
        self.take(size)

    def line(self) -> str:
        """Text up to the end of this line."""
        start, end = self.at, self.blob.find(b"\n", self.at, self.at + MAX_LINE)
        if end < 0:
            raise IndexError(f"no end of line within {MAX_LINE} bytes")
        self.at = end + 1
        return str(self.blob[start:end], "latin-1")

    def integer(self, size: int) -> int:
        """A whole number of ``size`` bytes, two's complement."""
        if size > MAX_INTEGER_BYTES:
            raise ValueError(f"a whole number of {size:,} bytes at byte {self.at:,}: {SAFE}")
        return int.from_bytes(self.take(size), "little", signed=True)
