"""Exceptions that cross the borders between packages, and what messages are made of."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Interrupted(Exception):
    """A run was asked to stop, and has written a checkpoint to go on from."""


def listing(names: Sequence[str], limit: int = 20) -> str:
    """Names for an error message, the first ``limit`` of them.

    >>> listing(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def reason(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Put a path in front of every complaint (ValueError) about its contents."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
