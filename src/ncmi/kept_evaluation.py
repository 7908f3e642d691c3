"""What an evaluation leaves in a run folder for the report and for predictions: calibration, and foreign data."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from ncmi.training.run_folder import RunFolder, RunFolderError

_LONGEST = 80


def temperature_of(folder: RunFolder, readout: str) -> float:
    """The τ of a read-out that was fitted to the run's validation part.

    Raises:
        RunFolderError: if the run has none, or results.json is damaged; the message names the cure.
    """
    results = folder.read("results.json")
    path = folder.path / "results.json"
    if results.get("num_validation") == 0:
        raise RunFolderError(
            f"{folder.path}: this run has no validation part to fit a temperature to: predict without --calibrated, "
            "or train with a validation part"
        )
    try:
        value = results["readouts"][readout].get("temperature_scale")
    except (KeyError, TypeError, AttributeError):
        raise RunFolderError(f"{path}: damaged, no results of {readout!r}: restore the file") from None
    if value is None:
        raise RunFolderError(
            f"{path}: holds no temperature_scale, as runs of earlier versions do not: `ncmi evaluate {folder.path}` "
            "adds it"
        )
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise RunFolderError(f"{path}: temperature_scale of {readout!r} is {value!r}, not a number above 0: restore it")
    return float(value)


def keep_calibration(run: str | Path, evaluated: dict[str, Any]) -> Path | None:
    """Add the calibration to the results.json of a run that was trained before there was one; else change nothing.

    Args:
        run: the run folder.
        evaluated: of the run's own parts, from :func:`ncmi.evaluation.evaluate_run`.

    Returns:
        The file, if it was changed. What it held stays as it was.

    Raises:
        RunFolderError: if results.json is damaged.
    """
    folder = RunFolder.open(run)
    results = folder.read("results.json")
    if "reliability" in results:
        return None
    old = results.get("readouts")
    if not isinstance(old, dict) or not all(isinstance(found, dict) for found in old.values()):
        raise RunFolderError(f"{folder.path / 'results.json'}: damaged, no 'readouts': restore the file")
    results["readouts"] = {name: evaluated["readouts"].get(name, {}) | found for name, found in old.items()}
    results["reliability"] = evaluated["reliability"]
    folder.write("results.json", results)
    return folder.path / "results.json"


def keep_foreign(run: str | Path, name: str, found: dict[str, Any]) -> Path:
    """Write what was found with foreign data as ``ood-NAME.json`` into the run folder, replacing an earlier one."""
    # a path becomes a name; of a long one its end
    plain = re.sub(r"[^\w.-]+", "-", name)[-_LONGEST:].strip("-.") or "data"
    folder = RunFolder.open(run)
    folder.write(f"ood-{plain}.json", found)
    return folder.path / f"ood-{plain}.json"
