"""Abuse of the command line: what every case must come to, whatever is done."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cli_helpers import Done, ncmi

QUICK = ("--training.epochs", "1", "--training.accelerator", "cpu", "--training.threads", "1")


def contents(folder: Path) -> dict[str, object]:
    """All that lies below a folder: bytes of files, targets of links, kinds of everything else."""
    found: dict[str, object] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[str(path)] = path.readlink()
            elif stat.S_ISREG(mode):
                found[str(path)] = path.read_bytes() if os.access(path, os.R_OK) else path.stat().st_size
            else:
                found[str(path)] = stat.S_IFMT(mode)
    return found


def refused(*words: object, cwd: Path, says: str = "", left: frozenset[str] = frozenset()) -> Done:
    """Run ``ncmi``, which must refuse in one line of error and leave every file as it was, and none of its own.

    Args:
        words: of the command line.
        cwd: where everything lies that it is given.
        says: what the line must hold, whatever its case.
        left: names at the top that may come into being.
    """
    before = contents(cwd)
    done = ncmi(*words, cwd=cwd, check=2)
    after = {name: what for name, what in contents(cwd).items() if Path(name).relative_to(cwd).parts[0] not in left}
    assert after == before
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("ncmi: error: ")
    assert len(lines[0]) < 1500
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert says.lower() in lines[0].lower(), lines[0]
    return done
