"""Whether slides are simulated: a cohort of :mod:`ncmi.slides.simulation` says so in its folder and in each file."""

import json
from pathlib import Path
from typing import Any

from ncmi.data.bags.bag import BagError
from ncmi.data.kinds import locate

MARK = "SIMULATION.json"
"""File that says of the folder around it that nothing in it is real."""
TABLE = "labels.csv"
"""Its table of slides and labels."""


def simulation_mark(path: str | Path) -> Path | None:
    """SIMULATION.json of the cohort that a path belongs to: its folder, or a folder or file in it."""
    path = locate(path)
    if path.name == MARK and path.is_file():
        return path
    return next((folder / MARK for folder in (path, path.parent) if (folder / MARK).is_file()), None)


def simulation_of(path: str | Path) -> dict[str, Any] | None:
    """The content of SIMULATION.json where a path belongs to a simulated cohort.

    >>> simulation_of(".") is None
    True
    """
    mark = simulation_mark(path)
    if mark is None:
        return None
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BagError(f"{mark}: not readable as JSON ({error}): simulate again") from None
    if not isinstance(content, dict):
        raise BagError(f"{mark}: holds no simulation: simulate again")
    return content


def is_simulated(path: str | Path) -> bool:
    """Whether a path belongs to a simulated cohort, by its SIMULATION.json or by the mark in an .h5 file itself."""
    import h5py

    if simulation_of(path) is not None:
        return True
    path = locate(path)
    file = next(path.glob("*.h5"), None) if path.is_dir() else path
    if file is None or file.suffix != ".h5":
        return False
    try:
        with h5py.File(file, "r") as opened:
            return "simulation" in opened.attrs
    except OSError:
        return False


def simulated_table(path: str | Path) -> Path | None:
    """The table of slides and labels of a simulated cohort; None where a path belongs to none."""
    mark = simulation_mark(path)
    return None if mark is None else mark.parent / TABLE
