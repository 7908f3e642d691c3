"""A simulated cohort as files: one .h5 a slide in the words of TRIDENT, a table, and SIMULATION.json."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ncmi.files import write_atomically, write_json
from ncmi.slides.bag import BagError
from ncmi.slides.simulation.lesions import SlidePlan, plan_slide
from ncmi.slides.simulation.numbers import (
    LEVEL0_MICRONS_PER_PIXEL,
    MICRONS_PER_PIXEL,
    PATCH_PIXELS,
    describe_simulation,
)
from ncmi.slides.simulation.options import CohortName, Difficulty, SimulationOptions
from ncmi.slides.simulation.slide import PATCH_LEVEL0, simulate_slide
from ncmi.slides.simulation.table import SlideRow, make_table, read_table, write_table

MARK = "SIMULATION.json"
"""File that says of the folder around it that nothing in it is real."""
TABLE, FEATURES = "labels.csv", "features"
_NOTE = "Simulated patch features. Behind them stand no patient, no slide and no encoder."
_BYTES_A_PATCH = 19  # coords, lesion, component, mimic


def write_simulation(
    out: str | Path,
    table: str | Path | Sequence[SlideRow] | None = None,
    *,
    cohort: CohortName = "camelyon17",
    feature_dim: int = 1024,
    scale: float = 1.0,
    seed: int = 0,
    difficulty: Difficulty | None = None,
    workers: int = 1,
    features: bool = True,
    on_slide: Callable[[str], None] = lambda name: None,
) -> Path:
    """Write a simulated cohort; a second call goes on where the first was stopped. The folder.

    ``OUT/SIMULATION.json`` has options and the numbers behind them, ``OUT/labels.csv`` the table and
    ``OUT/features/SLIDE.h5`` ``features`` ``[N, D]`` float16, ``coords`` ``[N, 2]``, and the truth: ``lesion`` and
    ``mimic`` ``[N]`` bool, ``component`` ``[N]`` uint8 (its attribute names them). Files appear whole or not at all.

    Args:
        out: folder, new or of the same simulation.
        table: CSV of the real cohort's slides, rows of it, or None for a table with the same counts.
        cohort, feature_dim, scale, seed, difficulty: see :class:`SimulationOptions`.
        workers: slides made side by side, in threads; 0 for one a processor.
        features: False for mark and table alone, from which :func:`open_simulation` makes bags without files.
        on_slide: called with the name of each slide that is there.

    Raises:
        BagError: for a table that cannot be used, a folder with another simulation, or a disk that is too small.
    """
    out, options = Path(out), SimulationOptions(cohort, seed, feature_dim, scale, difficulty or Difficulty())
    rows = _rows(table, options)
    plans = [plan_slide(options, row) for row in rows]
    _begin(out, options, rows, _content(options, plans))
    if features:
        make_files(out / FEATURES, options, rows, plans, workers, on_slide)
    return out


def simulation_bytes(options: SimulationOptions, plans: Iterable[SlidePlan]) -> int:
    """Size of a cohort's files."""
    return sum(plan.instances for plan in plans) * (2 * options.feature_dim + _BYTES_A_PATCH)


def make_files(
    folder: Path,
    options: SimulationOptions,
    rows: Sequence[SlideRow],
    plans: Sequence[SlidePlan],
    workers: int,
    on_slide: Callable[[str], None],
) -> None:
    """Write the .h5 files of slides that are not there yet.

    Raises:
        BagError: if they do not fit on the disk.
    """
    if workers < 0:
        raise ValueError(f"workers={workers}: must be at least 1, or 0 for one a processor")
    folder.mkdir(parents=True, exist_ok=True)
    due = [(row, plan) for row, plan in zip(rows, plans, strict=True) if not (folder / f"{row.name}.h5").exists()]
    needed, free = simulation_bytes(options, (plan for _, plan in due)), shutil.disk_usage(folder).free
    if needed > free:
        raise BagError(
            f"{folder}: {needed / 1e9:.1f} GB to write, {free / 1e9:.1f} GB free: give a smaller scale or feature_dim, "
            "or no features, and make bags without files"
        )
    for row in {row.name for row in rows} - {row.name for row, _ in due}:
        on_slide(row)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        pending = [pool.submit(_write_slide, folder, options, row, plan) for row, plan in due]
        try:
            for future in as_completed(pending):
                on_slide(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_slide(folder: Path, options: SimulationOptions, row: SlideRow, plan: SlidePlan) -> str:
    import h5py

    slide = simulate_slide(options, row, plan)
    attributes = {
        "name": row.name,
        "patch_size": PATCH_PIXELS,
        "patch_size_level0": PATCH_LEVEL0,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "mpp": MICRONS_PER_PIXEL,
        "level0_mpp": LEVEL0_MICRONS_PER_PIXEL,
        "savetodir": str(folder),
    }

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.attrs.update(encoder="simulation", simulation=json.dumps(asdict(options)), note=_NOTE)
            file.create_dataset("features", data=slide.features)
            file.create_dataset("coords", data=slide.coords).attrs.update(attributes)
            file.create_dataset("lesion", data=slide.lesion)
            file.create_dataset("mimic", data=slide.mimic)
            file.create_dataset("component", data=slide.component).attrs["names"] = list(slide.components)

    write_atomically(folder / f"{row.name}.h5", write)
    return row.name


def _rows(table: str | Path | Sequence[SlideRow] | None, options: SimulationOptions) -> tuple[SlideRow, ...]:
    if table is None:
        return make_table(options.cohort, options.seed)
    return read_table(table, options.cohort) if isinstance(table, str | Path) else tuple(table)


def _content(options: SimulationOptions, plans: Sequence[SlidePlan]) -> dict[str, Any]:
    return {
        "format": 1,
        "simulation": True,
        "note": _NOTE,
        "options": asdict(options),
        "slides": len(plans),
        "patches": sum(plan.instances for plan in plans),
        "numbers": [asdict(stated) for stated in describe_simulation(options)],
    }


def _begin(out: Path, options: SimulationOptions, rows: Sequence[SlideRow], content: dict[str, Any]) -> None:
    """Mark a folder as this simulation's, or see that it is."""
    mark = out / MARK
    if mark.exists():
        if json.loads(mark.read_text(encoding="utf-8")).get("options") != asdict(options):
            raise BagError(f"{out}: holds a simulation with other options: choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise BagError(f"{out}: holds files that are no simulation: choose a new folder")
    write_json(mark, content)
    path = out / TABLE
    if path.exists() and set(read_table(path, options.cohort)) != set(rows):
        raise BagError(f"{out}: holds a simulation of other slides: choose another folder")
    write_atomically(path, lambda temporary: write_table(rows, temporary, options.cohort))
