"""The command line. Verbs only: each is a few lines over the library, and imports what it needs when it runs."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

_SLIDE_PACKAGES = ("h5py", "onnxruntime", "openslide", "openslide_bin", "skimage")
_LONGEST = 1400  # signs of a message: names and paths may be of any length
_GO_ON = "a run goes on with `ncmi resume RUN`, a comparison with the same command and --resume"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``ncmi`` with the given arguments (by default the process's) and return the exit code.

    0: done. 2: bad input, or too little memory or disk, told in one line without traceback (``NCMI_TRACEBACK=1`` shows
    it). 1: a fault of this program. 128 and the number of the signal: stopped by Ctrl-C (130), SIGTERM (143) or SIGHUP
    (129); what was stopped can be gone on with.
    """
    _see_to_streams()
    try:
        with _heard_signals():
            code = _carried_out(arguments)
            sys.stdout.flush()
            return code
    except OSError as error:  # of the flush: a full disk, or a reader that has gone
        gone = isinstance(error, BrokenPipeError)
        _give_up_stdout()
        if not gone:
            _complain(f"ncmi: error: standard output: {error.strerror}: make room there")
        return 0 if gone else 2


def _carried_out(arguments: Sequence[str] | None) -> int:
    try:
        from ncmi.cli.app import in_typed_words, run
        from ncmi.errors import Interrupted, Terminated, in_one_line
    except ModuleNotFoundError as error:
        _complain(f"ncmi: error: {error.name} is not installed: pip install 'ncmi[app]'")
        return 2
    if os.environ.get("NCMI_TRACEBACK"):
        run(arguments)
        return 0
    try:
        run(arguments)
    except Interrupted as stopped:
        _complain(f"ncmi: {stopped}")
        return 128 + stopped.signal_number
    except KeyboardInterrupt as stopped:
        _complain(f"ncmi: stopped; {_GO_ON}")
        return 128 + (stopped.signal_number if isinstance(stopped, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        _give_up_stdout()  # the reader has gone
        return 0
    except ModuleNotFoundError as error:
        extra = "slides" if str(error.name).partition(".")[0] in _SLIDE_PACKAGES else "app"
        cure = f"{error.name} is not installed: pip install 'ncmi[{extra}]'"
        _complain(f"ncmi: error: {error if 'pip install' in str(error) else cure}")
        return 2
    except Exception as error:
        _complain(f"ncmi: error: {in_typed_words(in_one_line(error))}")
        bad_input = (ValueError, OSError, ArithmeticError, KeyError, RuntimeError, MemoryError)
        return 2 if isinstance(error, bad_input) else 1
    return 0


def _complain(line: str) -> None:
    from ncmi.errors import printable

    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST - 500]} … {line[-400:]}"
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed
        print(printable(" ".join(line.split("\n"))), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _heard_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a verb as Ctrl-C does, unless they are ignored, or somebody else listens."""
    from ncmi.training.stopping import STOP_SIGNALS, raise_terminated

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, raise_terminated)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _see_to_streams() -> None:
    """Streams that are closed swallow what is written, and no character is one too many for them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _give_up_stdout() -> None:
    """What is still in the buffer of standard output goes nowhere, or Python would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
