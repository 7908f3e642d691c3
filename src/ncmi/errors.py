"""Exceptions that cross the borders between packages, and what messages are made of."""

import errno
import re
import signal
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory|bad_alloc|DefaultCPUAllocator|"
    r"integer multiplication overflow|Storage size calculation overflowed|Invalid buffer size|"
    r"invalid argument.*size|array is too big|Maximum allowed dimension exceeded",
    re.IGNORECASE,
)
_MEMORY_CURES = {
    "--training.batch-size": "a smaller batch (--training.batch-size, or --training.accumulate)",
    "--network.width": "a narrower network (--network.width)",
    "--data.image-size": "smaller images (--data.image-size)",
    "--workers": "fewer --workers",
}
_PEER = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer|Broken pipe|clients joined|Socket Timeout")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Interrupted(Exception):
    """Work was asked to stop, and can be gone on with.

    Args:
        message: what was stopped, and how to go on.
        signal_number: what asked for it; a command ends with 128 and this number.
    """

    def __init__(self, message: str, signal_number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signal_number = int(signal_number)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP where nothing writes a checkpoint: like Ctrl-C, with the signal that came."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = int(signal_number)


class PeerLost(Exception):
    """Another process of a training has ended or stands still; the run can be gone on with from its checkpoint."""

    exit_code = 75
    """Of a command that is to be tried again: EX_TEMPFAIL."""


class RankError(ValueError):
    """An error of one of the processes that train together, which the others do not have.

    Args:
        rank: of the process.
        text: of the error.
    """

    def __init__(self, rank: int, text: str) -> None:
        super().__init__(f"rank {rank}: {text}")


class ToldElsewhere(Exception):
    """A training has ended, and another of its processes says of what.

    Args:
        exit_code: of that process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this training says what has ended it")
        self.exit_code = exit_code


def exit_code_of(error: BaseException) -> int:
    """Exit code of a command that an error ends: 128 and the signal, 2 for bad input, 1 for a fault of this program.

    >>> exit_code_of(ValueError()), exit_code_of(Interrupted("stopped", signal.SIGTERM)), exit_code_of(TypeError())
    (2, 143, 1)
    """
    if isinstance(error, Interrupted | Terminated):
        return 128 + error.signal_number
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, PeerLost | ToldElsewhere):
        return error.exit_code
    if is_of_peer(error):
        return PeerLost.exit_code
    bad_input = (ValueError, OSError, ArithmeticError, KeyError, RuntimeError, MemoryError)
    return 2 if isinstance(error, bad_input) else 1


def is_of_peer(error: BaseException) -> bool:
    """Whether an error says that another process of a training cannot be reached."""
    return isinstance(error, RuntimeError) and _PEER.search(str(error)) is not None


def listing(names: Sequence[str], limit: int = 20) -> str:
    """Names for an error message, the first ``limit`` of them.

    >>> listing(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def left_out_in_words(left_out: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """A note of what could not be used, by (name, reason); none where there is nothing.

    >>> left_out_in_words([("a.png", "an empty file"), ("b.png", "not an image")])
    ('2 left out, such as a.png: an empty file',)
    """
    return (f"{len(left_out)} left out, such as {': '.join(left_out[0])}",) if left_out else ()


def reason(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())


def in_one_line(error: BaseException, options: Collection[str] | None = None) -> str:
    """What an error means, with a cure where the library that raised it knows none: memory, disk, paths.

    Args:
        error: what was raised.
        options: those that can be given; by default all of training.

    >>> in_one_line(MemoryError()).split(":")[0]
    'not enough memory'
    """
    text = reason(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | ValueError) and _NO_MEMORY.search(text)):
        said = f" ({_shortened(text)})" if text else ""
        cures = [cure for option, cure in _MEMORY_CURES.items() if options is None or option in options]
        take = (
            f"take {', or '.join(cures)}" if cures else "give less data at a time, or take a machine with more memory"
        )
        return f"not enough memory{said}: {take}"
    if is_of_peer(error):
        return "another process of this training has ended: see what it says; a run goes on with ncmi resume RUN"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        where = "" if error.filename is None else f"{error.filename}: "
        if error.errno in _FULL:
            return (
                f"{where}{error.strerror}: make room on this disk, then try again (runs: ncmi resume RUN, or --resume)"
            )
        return f"{where}{error.strerror}: check the path, its permissions and the room on its disk"
    if isinstance(error, RecursionError):
        return "nested too deep to be read: give a file that ncmi, or a usual program, has written"
    if isinstance(error, KeyError) and error.args:
        return reason(Exception(error.args[0]))
    if isinstance(error, ValueError | ArithmeticError | OSError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {_shortened(text)} (NCMI_TRACEBACK=1 shows where)"


def _shortened(text: str, most: int = 300) -> str:
    # torch explains itself at length, and adds where in its C++ it was
    text = re.sub(r"\[enforce fail at [^\]]*\]\s*\.?\s*|Exception raised from .*", "", text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text: str) -> str:
    """The same text with nothing in it that a terminal would obey: control characters are shown by their codes.

    Line ends and tabs stay. What turns the direction of writing, or is no character at all, is shown too.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(sign) for sign in text)


def on_one_line(text: str) -> str:
    """The same text with nothing in it that a terminal would obey, nor an end of a line.

    >>> on_one_line("a\\nb")
    'a\\\\nb'
    """
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


def _shown(sign: str) -> str:
    if sign in "\n\t" or sign.isprintable() or unicodedata.category(sign) == "Zs" or sign == "\u200d":
        return sign
    return sign.encode("unicode_escape").decode("ascii")


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Put a path in front of every complaint (ValueError) about its contents."""
    try:
        yield
    except ValueError as error:
        words = str(error)
        raise ValueError(words if words.startswith(f"{path}: ") else f"{path}: {words}") from error
