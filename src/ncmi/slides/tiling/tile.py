"""A folder of slides to a folder of coordinates files, thumbnails and a summary."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ncmi.files import write_json, write_text
from ncmi.slides.tiling.coords_file import CoordsError, read_coords
from ncmi.slides.tiling.one_slide import SETTINGS, TileResult, counted, settings_text, tile_slide
from ncmi.slides.tiling.processes import run_side_by_side
from ncmi.slides.tiling.search import find_slides
from ncmi.slides.tiling.settings import TilingSettings
from ncmi.slides.tiling.slide_file import slide_name

_FORMAT = 1


def tile_slides(
    folder: str | Path,
    out: str | Path,
    *,
    mpp: float = 0.5,
    patch_size: int = 256,
    overlap: int = 0,
    min_tissue: float = 0.25,
    slide_mpp: float | None = None,
    mpp_tolerance: float = 0.02,
    upsample: bool = False,
    min_region_mm2: float = 0.02,
    max_hole_mm2: float = 0.02,
    pen: bool = True,
    workers: int = 0,
    overwrite: bool = False,
    on_slide: Callable[[TileResult], None] = lambda result: None,
) -> list[TileResult]:
    """Find the patches with tissue of all slides of a folder.

    Writes OUT/coords/SLIDE.h5 and OUT/thumbnails/SLIDE.jpg of each slide, OUT/tiling.json (the settings) and
    OUT/summary.csv (slide, status, patches, reason). Slides that an earlier call has finished are kept; slides that
    failed are tried again.

    Args:
        folder: of slides, with its subfolders, or one slide.
        out: the folder to write.
        mpp, patch_size, overlap, min_tissue, slide_mpp, mpp_tolerance, upsample: what defines the patches; see
            :class:`TilingSettings`.
        min_region_mm2, max_hole_mm2, pen: what counts as tissue; likewise.
        workers: slides side by side, a process each; 0 for one a processor. With several, the calling script needs
            ``if __name__ == "__main__":``, as its processes import it.
        overwrite: make all slides anew, also those that were made with other settings.
        on_slide: called in this process with each slide's result, first those that were kept.

    Returns:
        The result of each slide, by name. A slide that cannot be read has the status "failed" and its reason.

    Raises:
        ValueError: for a setting that cannot be.
        SlideError: if the folder is missing or empty, or two slides have the same name.
        CoordsError: if OUT holds coordinates made with other settings or by other programs (without ``overwrite``).
        KeyboardInterrupt: on Ctrl-C; finished slides are kept, and the same call goes on.
    """
    if workers < 0:
        raise ValueError(f"workers={workers}: the number of slides side by side, or 0 for one a processor")
    settings = TilingSettings(
        mpp=mpp,
        patch_size=patch_size,
        overlap=overlap,
        min_tissue=min_tissue,
        slide_mpp=slide_mpp,
        mpp_tolerance=mpp_tolerance,
        upsample=upsample,
        min_region_mm2=min_region_mm2,
        max_hole_mm2=max_hole_mm2,
        pen=pen,
    )
    slides, out = find_slides(folder), Path(out)
    kept = _open_folder(out, slides, settings, overwrite)
    results: dict[str, TileResult] = {}
    pending = [path for name, path in slides.items() if name not in kept]
    try:
        for result in kept.values():
            results[result.slide] = result
            on_slide(result)
        work = partial(tile_slide, out=out, settings=settings)
        with closing(run_side_by_side(work, pending, workers, _died)) as made:
            for result in made:
                results[result.slide] = result
                on_slide(result)
    finally:
        _write_summary(out, [results[name] for name in slides if name in results])
    return [results[name] for name in slides]


def _open_folder(
    out: Path, slides: Mapping[str, Path], settings: TilingSettings, overwrite: bool
) -> dict[str, TileResult]:
    """Check that OUT's files belong to the same settings, and return the slides that are finished."""
    if not overwrite:
        _check_settings(out / "tiling.json", settings)
    kept = {}
    for path in sorted((out / "coords").glob("*.h5")):
        if overwrite and path.stem in slides:
            continue
        patches = _check_coords(path, settings, known=path.stem in slides)
        if path.stem in slides:
            kept[path.stem] = counted(path.stem, slides[path.stem], patches, settings, made=False)
    (out / "coords").mkdir(parents=True, exist_ok=True)
    write_json(out / "tiling.json", {"format": _FORMAT, "settings": asdict(settings)})
    return kept


def _check_settings(path: Path, settings: TilingSettings) -> None:
    if not path.exists():
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))["settings"]
        differences = _differences(earlier, settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CoordsError(f"{path}: damaged ({error}): choose another out, or overwrite") from None
    if differences:
        raise CoordsError(
            f"{path.parent} was made with {differences}: give the same settings, choose another out, or overwrite"
        )


def _check_coords(path: Path, settings: TilingSettings, *, known: bool) -> int:
    """The number of patches in a finished file of these settings."""
    cure = "choose another out, or overwrite" if known else "move it away, or choose another out"
    try:
        coords = read_coords(path)
    except CoordsError as error:
        raise CoordsError(f"{error}; or {cure}") from None
    text = coords.attributes.get(SETTINGS)
    if text is None:
        raise CoordsError(f"{path}: was made by another program: {cure}")
    if text != settings_text(settings):
        raise CoordsError(f"{path}: was made with {_differences(json.loads(text), settings)}: {cure}")
    return len(coords)


def _differences(earlier: Mapping[str, Any], settings: TilingSettings) -> str:
    now = asdict(settings)
    return ", ".join(
        f"{key}={earlier.get(key)} (now {now.get(key)})"
        for key in sorted(now.keys() | earlier.keys())
        if earlier.get(key) != now.get(key)
    )


def _died(path: Path) -> TileResult:
    reason = f"{path}: its process was killed (out of memory?): run again, with fewer workers"
    return TileResult(slide_name(path), path, "failed", reason=reason)


def _write_summary(out: Path, results: Sequence[TileResult]) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["slide", "status", "patches", "reason"])
    rows.writerows([result.slide, result.status, result.patches, result.reason] for result in results)
    write_text(out / "summary.csv", text.getvalue())
