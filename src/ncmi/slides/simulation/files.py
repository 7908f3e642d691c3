"""A simulated cohort as files (one .h5 a slide in the words of TRIDENT, a table, SIMULATION.json), or without them."""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ncmi.data.bags.bag import BagError
from ncmi.data.bags.simulated import MARK, TABLE, simulation_mark, simulation_of
from ncmi.files import write_atomically, write_json
from ncmi.slides.simulation import options as numbers
from ncmi.slides.simulation.lesions import SlidePlan, plan_slide, scaled
from ncmi.slides.simulation.options import Difficulty, SimulationOptions, SlideRow, make_table, read_table, stream
from ncmi.slides.simulation.slide import PATCH_LEVEL0, SimulatedBags, simulate_slide
from ncmi.slides.work import worker_count

_FEATURES, _DISTINCT = "features", "distinct"
_NOTE = "Simulated patch features. Behind them stand no patient, no slide and no encoder."
_BYTES_A_PATCH = 19  # coords, lesion, component, mimic
_SLIDES_A_PATIENT = 5  # of a cohort of links


def write_simulation(
    out: str | Path,
    table: str | Path | Sequence[SlideRow] | None = None,
    options: SimulationOptions = SimulationOptions(),
    *,
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
        options: which cohort, how large and how hard; ``options.seed`` draws all of it.
        workers: slides made side by side, in threads; 0 for one a processor.
        features: False for mark and table alone, from which :func:`open_simulation` makes bags without files.
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
    _mark(out, content, lambda earlier: earlier.get("options") == asdict(options))
    path = out / TABLE
    if path.exists() and set(read_table(path, options.cohort)) != set(rows):
        raise BagError(f"{out}: holds a simulation of other slides: choose another folder")
    write_atomically(path, lambda temporary: numbers.write_table(rows, temporary, options.cohort))
    if features:
        _make_files(out / _FEATURES, options, rows, plans, workers, on_slide)
    return out


def open_simulation(path: str | Path) -> SimulatedBags:
    """Bags of a written simulation, made when they are asked for; only SIMULATION.json and labels.csv are read.

    Args:
        path: folder of :func:`write_simulation`, or its SIMULATION.json.

    Raises:
        BagError: where there is no simulation, or a cohort of links, which has files only.
    """
    mark, content = simulation_mark(path), simulation_of(path)
    if mark is None or content is None:
        raise BagError(f"{path}: no {MARK} here: give a folder that a simulation was written to")
    if "linked" in content:
        raise BagError(f"{mark.parent}: a cohort of links has no bags but its files: open {mark.parent / 'features'}")
    try:
        fields = content["options"]
        options = SimulationOptions(**{**fields, "difficulty": Difficulty(**fields["difficulty"])})
    except (KeyError, TypeError, ValueError) as error:
        raise BagError(f"{mark}: not the options of a simulation ({error}): simulate again") from None
    return SimulatedBags(options, read_table(mark.parent / TABLE, options.cohort), mark)


def link_cohort(
    out: str | Path,
    *,
    slides: int = 10_000,
    distinct: int = 200,
    instances: int = 5_000,
    feature_dim: int = 1024,
    seed: int = 0,
    workers: int = 1,
    on_slide: Callable[[str], None] = lambda name: None,
) -> Path:
    """Write ``distinct`` simulated slides and a cohort of ``slides`` that are symbolic links to them. The folder.

    It is for measuring memory and time, and nothing else. A reader opens, reads and converts as many bytes as of a
    cohort of different slides, but the disk holds, and the system's page cache serves, few of them. Accuracy on it
    means nothing: every bag stands in it many times. Columns of the table and classes are those of CAMELYON-17.

    Args:
        out: folder, new or of the same links.
        slides, distinct: at least as many slides as distinct ones, of which there are at most 500.
        instances, feature_dim: N and D_feat of every bag.
        seed: of the distinct slides.
        workers: slides made side by side.
        on_slide: called with the name of each distinct slide that is there.

    Raises:
        BagError: if the folder holds other links, or the disk is too small.
    """
    out = Path(out)
    options = SimulationOptions(seed=seed, feature_dim=feature_dim)
    table = make_table("camelyon17", seed)
    if not 1 <= distinct <= min(slides, len(table)):
        raise ValueError(f"distinct={distinct}: must be from 1 to {min(slides, len(table))}")
    if instances < 1:
        raise ValueError(f"instances={instances}: must be at least 1")
    order = stream(seed, "linked").permutation(len(table))
    originals = [table[index] for index in order[:distinct].tolist()]
    lesions = (plan_slide(options, row).lesions for row in originals)
    plans = [SlidePlan(instances, scaled(of_slide, 1, max(1, int(0.7 * instances)))) for of_slide in lesions]
    linked = {"slides": slides, "distinct": distinct, "instances": instances}
    content = {
        "format": 1,
        "simulation": True,
        "note": f"Simulated: {slides} slides are links to {distinct}, to measure memory and time, not accuracy.",
        "options": asdict(options),
        "linked": {**linked, "bytes_if_loaded": slides * instances * feature_dim * 2},
        "bytes_on_disk": simulation_bytes(options, plans),
    }
    _mark(out, content, lambda earlier: earlier == content)
    _make_files(out / _DISTINCT, options, originals, plans, workers, on_slide)
    (out / _FEATURES).mkdir(exist_ok=True)
    rows = []
    for index in range(slides):
        original = originals[index % distinct]
        # a patient's slides in one center, as far as splits by center are concerned: patients are numbered by center
        patient = f"linked_{original.center}_{index // _SLIDES_A_PATIENT:05d}"
        rows.append(replace(original, name=f"linked_{index:05d}", patient=patient))
        link = out / _FEATURES / f"{rows[-1].name}.h5"
        if not link.is_symlink():
            link.symlink_to(Path("..", _DISTINCT, f"{original.name}.h5"))
    write_atomically(out / TABLE, lambda path: numbers.write_table(rows, path, "camelyon17"))
    return out


def simulation_bytes(options: SimulationOptions, plans: Iterable[SlidePlan]) -> int:
    """Size of a cohort's files."""
    return sum(plan.instances for plan in plans) * (2 * options.feature_dim + _BYTES_A_PATCH)


def _make_files(
    folder: Path,
    options: SimulationOptions,
    rows: Sequence[SlideRow],
    plans: Sequence[SlidePlan],
    workers: int,
    on_slide: Callable[[str], None],
) -> None:
    """Write the .h5 files of slides that are not there yet."""
    if workers < 0:
        raise ValueError(f"workers={workers}: must be at least 1, or 0 for one a processor")
    folder.mkdir(parents=True, exist_ok=True)
    due = {row: plan for row, plan in zip(rows, plans, strict=True) if not (folder / f"{row.name}.h5").exists()}
    needed, free = simulation_bytes(options, due.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise BagError(
            f"{folder}: {needed / 1e9:.1f} GB to write, {free / 1e9:.1f} GB free: give a smaller scale or feature_dim, "
            "or no features, and make bags without files"
        )
    for row in set(rows) - due.keys():
        on_slide(row.name)
    with ThreadPoolExecutor(worker_count(workers)) as pool:
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


def _mark(out: Path, content: dict[str, Any], is_same: Callable[[dict[str, Any]], bool]) -> None:
    """Write SIMULATION.json into a folder that is new, or whose own is of the same simulation."""
    path = out / MARK
    if path.exists():
        if not is_same(json.loads(path.read_text(encoding="utf-8"))):
            raise BagError(f"{out}: holds another simulation, with other options: choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise BagError(f"{out}: holds files that are no simulation: choose a new folder")
    write_json(path, content)
