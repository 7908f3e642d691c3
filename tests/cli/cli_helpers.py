"""``ncmi`` in this process, as a user would call it."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from ncmi.cli import main


@dataclass
class Done:
    """Exit code and what was printed."""

    returncode: int
    stdout: str
    stderr: str


def ncmi(*words: object, cwd: Path, check: int = 0) -> Done:
    """Run ``ncmi`` in this process, which has torch imported already, and check its exit code."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # tyro's way out
            code = stop.code if isinstance(stop.code, int) else 1
    assert code == check, out.getvalue() + errors.getvalue()
    return Done(code, out.getvalue(), errors.getvalue())
