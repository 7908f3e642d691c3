"""The command line. Verbs only: each is a few lines over the library, and imports what it needs when it runs."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

_SLIDE_PACKAGES = ("h5py", "onnxruntime", "openslide", "openslide_bin", "skimage")
_LONGEST = 1400  # signs of a message: names and paths may be of any length
_GO_ON = "a run goes on with `ncmi resume RUN`, a comparison with the same command and --resume"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``ncmi`` with the given arguments (by default the process's) and return the exit code.

    0: done. 2: bad input, or too little memory or disk, told in one line without traceback (``NCMI_TRACEBACK=1`` shows
    it). 1: a fault of this program. 128 and the number of the signal: stopped by Ctrl-C (130), SIGTERM (143), SIGHUP
    (129) or SIGUSR1 (138); what was stopped can be gone on with. 75: another process of a training was lost; it can be
    gone on with as well.

    Of processes that train together the first prints; an error is told by one of them.
    """
    _see_to_streams()
    try:
        with _heard_signals(), _printed_by_the_first():
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
        from ncmi.cli.app import TYPED, in_typed_words, run
        from ncmi.errors import Interrupted, PeerLost, RankError, ToldElsewhere, exit_code_of, in_one_line
    except ModuleNotFoundError as error:
        return _without_app(list(sys.argv[1:] if arguments is None else arguments), str(error.name))
    if os.environ.get("NCMI_TRACEBACK"):
        run(arguments)
        return 0
    try:
        run(arguments)
    except (Interrupted, PeerLost) as stopped:
        _complain(f"ncmi: {stopped}", by="any" if isinstance(stopped, PeerLost) else "first")
        return exit_code_of(stopped)
    except ToldElsewhere as stopped:
        return stopped.exit_code
    except KeyboardInterrupt as stopped:
        _complain(f"ncmi: stopped; {_GO_ON}")
        return exit_code_of(stopped)
    except BrokenPipeError:
        _give_up_stdout()  # the reader has gone
        return 0
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        extra = "slides" if missing in _SLIDE_PACKAGES else "sweep" if missing == "optuna" else "app"
        cure = f"{error.name} is not installed: pip install 'ncmi[{extra}]'"
        _complain(f"ncmi: error: {error if 'pip install' in str(error) else cure}")
        return 2
    except Exception as error:
        said = in_typed_words(in_one_line(error, TYPED or None))
        _complain(f"ncmi: error: {said}", by="any" if isinstance(error, RankError) else "host")
        return exit_code_of(error)
    return 0


def _without_app(arguments: Sequence[str], missing: str) -> int:
    """Where the packages of the command line are missing, the doctor alone can be asked."""
    complaint = f"{missing} is not installed: pip install 'ncmi[app]'"
    if arguments == ["doctor"]:
        from ncmi.cli.doctor import tell

        try:
            tell()
        except ValueError as error:
            complaint = str(error)
    _complain(f"ncmi: error: {complaint}")
    return 2


def _complain(line: str, *, by: Literal["first", "host", "any"] = "host") -> None:
    """Print a line to standard error, by the first process that trains, the first one of each host, or whichever."""
    from ncmi.errors import printable
    from ncmi.training.launch import place_of_process

    rank, local_rank = place_of_process()
    if (by == "first" and rank > 0) or (by == "host" and local_rank > 0):
        return
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


@contextlib.contextmanager
def _printed_by_the_first() -> Iterator[None]:
    """Of processes that train together the others print nothing."""
    from ncmi.training.launch import place_of_process

    if place_of_process()[0] == 0:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


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
