"""A cohort of many slides whose files are links to a few: for measuring memory and time, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from ncmi.files import write_atomically, write_json
from ncmi.slides.bag import BagError
from ncmi.slides.simulation.lesions import SlidePlan, plan_slide
from ncmi.slides.simulation.options import SimulationOptions
from ncmi.slides.simulation.randomness import stream
from ncmi.slides.simulation.table import SlideRow, make_table, write_table
from ncmi.slides.simulation.writing import FEATURES, MARK, TABLE, make_files, simulation_bytes

DISTINCT = "distinct"
_SLIDES_A_PATIENT = 5


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

    A reader opens, reads and converts as many bytes as of a cohort of different slides, but the disk holds, and the
    system's page cache serves, few of them. Accuracy on it means nothing: every bag stands in it many times. Columns of
    the table and classes are those of CAMELYON-17.

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
    plans = [_of_size(plan_slide(options, row), instances) for row in originals]
    linked = {"slides": slides, "distinct": distinct, "instances": instances}
    content = {
        "format": 1,
        "simulation": True,
        "note": f"Simulated: {slides} slides are links to {distinct}, to measure memory and time, not accuracy.",
        "options": asdict(options),
        "linked": {**linked, "bytes_if_loaded": slides * instances * feature_dim * 2},
        "bytes_on_disk": simulation_bytes(options, plans),
    }
    mark = out / MARK
    if mark.exists():
        if json.loads(mark.read_text(encoding="utf-8")) != content:
            raise BagError(f"{out}: holds another simulation: choose another folder")
    elif out.exists() and any(out.iterdir()):
        raise BagError(f"{out}: holds files that are no simulation: choose a new folder")
    write_json(mark, content)
    make_files(out / DISTINCT, options, originals, plans, workers, on_slide)
    (out / FEATURES).mkdir(exist_ok=True)
    rows = tuple(_linked_row(index, originals[index % distinct]) for index in range(slides))
    for index, row in enumerate(rows):
        link = out / FEATURES / f"{row.name}.h5"
        if not link.is_symlink():
            link.symlink_to(Path("..", DISTINCT, f"{originals[index % distinct].name}.h5"))
    write_atomically(out / TABLE, lambda path: write_table(rows, path, "camelyon17"))
    return out


def _linked_row(index: int, original: SlideRow) -> SlideRow:
    # a patient's slides in one centre, as far as splits by centre are concerned: patients are numbered by centre
    patient = f"linked_{original.centre}_{index // _SLIDES_A_PATIENT:05d}"
    return replace(original, name=f"linked_{index:05d}", patient=patient)


def _of_size(plan: SlidePlan, instances: int) -> SlidePlan:
    most = max(1, int(0.7 * instances))
    lesions = []
    for lesion in plan.lesions:
        patches = min(lesion.patches, most)
        if patches:
            lesions.append(replace(lesion, patches=patches))
            most -= patches
    return SlidePlan(instances, tuple(lesions))
