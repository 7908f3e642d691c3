"""Whether a folder is simulated, and its bags without its files."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from ncmi.slides.bag import BagError
from ncmi.slides.simulation.options import Difficulty, SimulationOptions
from ncmi.slides.simulation.source import SimulatedBags
from ncmi.slides.simulation.table import read_table
from ncmi.slides.simulation.writing import MARK, TABLE


def simulation_of(path: str | Path) -> dict[str, Any] | None:
    """The content of SIMULATION.json where a path belongs to a simulated cohort: its folder, or a folder or file in it.

    >>> simulation_of(".") is None
    True
    """
    mark = _mark(Path(path))
    return None if mark is None else _read(mark)


def is_simulated(path: str | Path) -> bool:
    """Whether a path belongs to a simulated cohort, by its SIMULATION.json or by the mark in an .h5 file itself."""
    if simulation_of(path) is not None:
        return True
    path = Path(path)
    files = path.glob("*.h5") if path.is_dir() else [path] if path.suffix == ".h5" else []
    return any(_marked(file) for file in islice(files, 1))


def simulated_table(path: str | Path) -> Path | None:
    """The table of slides and labels of a simulated cohort; None where a path belongs to none."""
    mark = _mark(Path(path))
    return None if mark is None else mark.parent / TABLE


def open_simulation(path: str | Path) -> SimulatedBags:
    """Bags of a written simulation, made when they are asked for; only SIMULATION.json and labels.csv are read.

    Args:
        path: folder of :func:`write_simulation`, or its SIMULATION.json.

    Raises:
        BagError: where there is no simulation, or a cohort of links, which has files only.
    """
    mark = _mark(Path(path))
    if mark is None:
        raise BagError(f"{path}: no {MARK} here: give a folder that a simulation was written to")
    content = _read(mark)
    if "linked" in content:
        raise BagError(f"{mark.parent}: a cohort of links has no bags but its files: open {mark.parent / 'features'}")
    try:
        given = content["options"]
        options = SimulationOptions(**{**given, "difficulty": Difficulty(**given["difficulty"])})
    except (KeyError, TypeError, ValueError) as error:
        raise BagError(f"{mark}: not the options of a simulation ({error}): simulate again") from None
    return SimulatedBags(options, read_table(mark.parent / TABLE, options.cohort), mark)


def _marked(file: Path) -> bool:
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            return "simulation" in opened.attrs
    except OSError:
        return False


def _mark(path: Path) -> Path | None:
    if path.name == MARK and path.is_file():
        return path
    return next((folder / MARK for folder in (path, path.parent) if (folder / MARK).is_file()), None)


def _read(mark: Path) -> dict[str, Any]:
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BagError(f"{mark}: not readable as JSON ({error}): simulate again") from None
    if not isinstance(content, dict):
        raise BagError(f"{mark}: holds no simulation: simulate again")
    return content
