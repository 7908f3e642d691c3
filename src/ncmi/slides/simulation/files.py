"""A simulated cohort as files: one .h5 a slide in the words of TRIDENT, a table, SIMULATION.json."""

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from ncmi.data.bags.bag import BagError
from ncmi.data.bags.simulated import MARK, TABLE
from ncmi.files import write_atomically, write_json
from ncmi.slides.simulation import options as numbers
from ncmi.slides.simulation.lesions import SlidePlan, plan_slide
from ncmi.slides.simulation.options import SimulationOptions, SlideRow, make_table, read_table
from ncmi.slides.simulation.slide import PATCH_LEVEL0, simulate_slide
from ncmi.training.workers import processors

_NOTE = "Simulated patch features. Behind them stand no patient, no slide and no encoder."
_BYTES_A_PATCH = 19  # coords, lesion, component, mimic


def write_simulation(
    out: str | Path,
    table: str | Path | Sequence[SlideRow] | None = None,
    options: SimulationOptions = SimulationOptions(),
    *,
    workers: int = 1,
    on_slide: Callable[[str], None] = lambda name: None,
) -> Path:
    """Write a simulated cohort; a second call goes on where the first was stopped. The folder.

    ``OUT/SIMULATION.json`` has options and the numbers behind them, ``OUT/labels.csv`` the table and
    ``OUT/features/SLIDE.h5`` ``features`` ``[N, D]`` float16, ``coords`` ``[N, 2]``, and the truth: ``lesion`` and
    ``mimic`` ``[N]`` bool, ``component`` ``[N]`` uint8 (its attribute names them). Files appear whole or not at all.

    Args:
        out: folder, new or of the same simulation.
        table: CSV of the real cohort's slides, rows of it, or None for a table with the same counts.
        options: which cohort, how large and how hard; ``options.seed`` draws all of it.
        workers: slides made side by side, in threads; 0 for one a processor.
        on_slide: called with the name of each slide that is there.

    Raises:
        BagError: for a table that cannot be used, a folder with another simulation, or a disk that is too small.
    """
    out = Path(out)
    if table is None:
        rows = make_table(options.cohort, options.seed)
    else:
        rows = read_table(table, options.cohort) if isinstance(table, str | Path) else tuple(table)
    plans = [plan_slide(options, row) for row in rows]
    content = {
        **{"format": 1, "simulation": True, "note": _NOTE, "options": asdict(options), "slides": len(plans)},
        "patches": sum(plan.instances for plan in plans),
        "numbers": [asdict(stated) for stated in numbers.describe_simulation(options)],
    }
    mark, path = out / MARK, out / TABLE
    if mark.exists():
        if json.loads(mark.read_text(encoding="utf-8")).get("options") != asdict(options):
            raise BagError(f"{out}: holds another simulation, with other options: choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise BagError(f"{out}: holds files that are no simulation: choose a new folder")
    write_json(mark, content)
    if path.exists() and set(read_table(path, options.cohort)) != set(rows):
        raise BagError(f"{out}: holds a simulation of other slides: choose another folder")
    write_atomically(path, lambda temporary: numbers.write_table(rows, temporary, options.cohort))
    write_slides(out / "features", options, rows, plans, workers, on_slide)
    return out


def write_slides(
    folder: Path,
    options: SimulationOptions,
    rows: Sequence[SlideRow],
    plans: Sequence[SlidePlan],
    workers: int = 1,
    on_slide: Callable[[str], None] = lambda name: None,
) -> None:
    """Write the .h5 files of slides of these numbers of patches, as far as they are not there yet."""
    if workers < 0:
        raise ValueError(f"workers={workers}: must be at least 1, or 0 for one a processor")
    folder.mkdir(parents=True, exist_ok=True)
    due = {row: plan for row, plan in zip(rows, plans, strict=True) if not (folder / f"{row.name}.h5").exists()}
    patches = sum(plan.instances for plan in due.values())
    needed, free = patches * (2 * options.feature_dim + _BYTES_A_PATCH), shutil.disk_usage(folder).free
    if needed > free:
        raise BagError(
            f"{folder}: {needed / 1e9:.1f} GB to write, {free / 1e9:.1f} GB free: give a smaller scale or feature_dim"
        )
    for row in set(rows) - due.keys():
        on_slide(row.name)
    with ThreadPoolExecutor(workers or processors()) as pool:
        pending = [pool.submit(_write_slide, folder, options, row, plan) for row, plan in due.items()]
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
        "patch_size": numbers.PATCH_PIXELS,
        "patch_size_level0": PATCH_LEVEL0,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "mpp": numbers.MICRONS_PER_PIXEL,
        "level0_mpp": numbers.LEVEL0_MICRONS_PER_PIXEL,
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
