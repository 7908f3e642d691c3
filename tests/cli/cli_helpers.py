"""``ncmi`` in this process, as a user would call it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncmi.cli import main

PATIENCE = 300
"""Seconds that a process is waited for: a machine may be busy with other things."""


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


def begin_ncmi(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """A command that goes on meanwhile, in a session of its own: a signal to its group does not reach this test."""
    return subprocess.Popen(
        [sys.executable, "-m", "ncmi", *words],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a process has written a file; one that ends before it has is at fault."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)


def read(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change what a JSON file holds."""
    content = read(path)
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV by its heading."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def flat(content: Any, name: str = "") -> dict[str, Any]:
    """Nested values as one level, for pytest.approx."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        return {leaf: value for key, inner in items for leaf, value in flat(inner, f"{name} {key}").items()}
    return {name: content}
