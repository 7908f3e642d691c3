"""The command line. Verbs only: each is a few lines over the library, and imports what it needs when it runs."""

import os
import sys
from collections.abc import Sequence

_SLIDE_PACKAGES = ("h5py", "onnxruntime", "openslide", "openslide_bin", "skimage")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``ncmi`` with the given arguments (by default the process's) and return the exit code.

    0: done. 2: bad input, told in one line without traceback (``NCMI_TRACEBACK=1`` shows it). 130: stopped by Ctrl-C or
    SIGTERM; the run can be resumed.
    """
    try:
        from ncmi.cli.app import run
        from ncmi.errors import Interrupted
    except ModuleNotFoundError as error:
        print(f"ncmi: error: {error.name} is not installed: pip install 'ncmi[app]'", file=sys.stderr)
        return 2
    if os.environ.get("NCMI_TRACEBACK"):
        run(arguments)
        return 0
    try:
        run(arguments)
    except Interrupted as stopped:
        print(f"ncmi: {stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print(
            "ncmi: stopped; a run goes on with `ncmi resume RUN`, a comparison with the same command and --resume",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone: nobody to complain to
        return 0
    except ModuleNotFoundError as error:
        extra = "slides" if str(error.name).partition(".")[0] in _SLIDE_PACKAGES else "app"
        print(f"ncmi: error: {error.name} is not installed: pip install 'ncmi[{extra}]'", file=sys.stderr)
        return 2
    except (ValueError, OSError, ArithmeticError, KeyError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            message = f"{error.filename}: {error.strerror}: check the path, its permissions and the room on its disk"
        print(f"ncmi: error: {message}", file=sys.stderr)
        return 2
    return 0
