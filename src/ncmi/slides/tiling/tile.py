"""Slides to coordinates files, thumbnails and a summary."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ncmi.errors import listing
from ncmi.files import write_json
from ncmi.slides.tiling.coords import Coords, CoordsError, read_coords, write_coords
from ncmi.slides.tiling.grid import Grid, TilingSettings, plan_grid, tissue_shares
from ncmi.slides.tiling.slide_file import Slide, SlideError, find_slides, read_square
from ncmi.slides.tiling.tissue import Tissue, find_tissue, read_overview, write_thumbnail
from ncmi.slides.work import SlideResult, map_in_processes, write_summary

_FORMAT = 1
SETTINGS = "tiling"
"""Attribute of the coordinates that holds the settings they were made with, as JSON."""
NO_PATCHES = "no_patches"
"""Attribute of no coordinates that says why there are none."""
_LEAST_STAINED = 0.02
_SAME_MPP = 0.02


def tile_slides(
    folder: str | Path,
    out: str | Path,
    settings: TilingSettings = TilingSettings(),
    *,
    mpps: Mapping[str, float] | None = None,
    workers: int = 0,
    overwrite: bool = False,
    on_slide: Callable[[SlideResult], None] = lambda result: None,
) -> list[SlideResult]:
    """Find the patches with tissue of all slides of a folder.

    Writes OUT/coords/SLIDE.h5 and OUT/thumbnails/SLIDE.jpg of each slide, OUT/tiling.json (the settings) and
    OUT/summary.csv (slide, status, patches, reason). Slides that an earlier call has finished are kept; slides that
    failed are tried again.

    Args:
        folder: of slides, with its subfolders, or one slide.
        out: the folder to write.
        settings: what defines the patches, and what counts as tissue.
        mpps: microns per pixel of level 0 of some slides, by name, whatever their files say; see :func:`read_mpps`.
        workers: slides side by side, a process each; 0 for one a processor. With several, the calling script needs
            ``if __name__ == "__main__":``, as its processes import it.
        overwrite: make all slides anew, also those that were made with other settings.
        on_slide: called in this process with each slide's result, first those that were kept.

    Returns:
        The result of each slide, by name. A slide that cannot be read has the status "failed" and its reason.

    Raises:
        ValueError: for fewer than 0 workers.
        SlideError: if the folder is missing or empty, two slides have the same name, or ``mpps`` names others.
        CoordsError: if OUT holds coordinates made with other settings or by other programs (without ``overwrite``).
        KeyboardInterrupt: on Ctrl-C; finished slides are kept, and the same call goes on.
    """
    if workers < 0:
        raise ValueError(f"workers={workers}: the number of slides side by side, or 0 for one a processor")
    slides, out, mpps = find_slides(folder), Path(out), mpps or {}
    if unknown := sorted(mpps.keys() - slides.keys()):
        raise SlideError(f"{folder}: no slide {listing(unknown, 5)}, for which microns per pixel are given: correct it")
    kept = _open_folder(out, slides, settings, mpps, overwrite)
    results: dict[str, SlideResult] = {}
    pending = [path for name, path in slides.items() if name not in kept]
    work = partial(tile_slide, out=out, settings=settings)
    if mpps:
        work = partial(work, mpps=mpps)
    try:
        with closing(map_in_processes(work, pending, workers, _failed)) as made:
            for result in chain(kept.values(), made):
                results[result.slide] = result
                on_slide(result)
    finally:
        write_summary(out / "summary.csv", [results[name] for name in slides if name in results])
    return [results[name] for name in slides]


def _open_folder(
    out: Path, slides: Mapping[str, Path], settings: TilingSettings, mpps: Mapping[str, float], overwrite: bool
) -> dict[str, SlideResult]:
    """Check that OUT's files belong to the same settings, and return the slides that are finished."""
    if not overwrite:
        _check_settings(out / "tiling.json", settings)
    kept = {}
    for path in sorted((out / "coords").glob("*.h5")):
        if overwrite and path.stem in slides:
            continue
        coords = _check_coords(path, settings, mpps.get(path.stem), known=path.stem in slides)
        if path.stem in slides:
            status: Literal["tiled", "no tissue"] = "tiled" if len(coords) else "no tissue"
            reason = str(coords.attributes.get(NO_PATCHES, ""))
            kept[path.stem] = SlideResult(path.stem, status, len(coords), reason, False, slides[path.stem])
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


def _check_coords(path: Path, settings: TilingSettings, mpp: float | None, *, known: bool) -> Coords:
    """What a finished file of these settings holds."""
    cure = "choose another out, or overwrite" if known else "move it away, or choose another out"
    try:
        coords = read_coords(path)
    except CoordsError as error:
        raise CoordsError(f"{error}; or {cure}") from None
    text = coords.attributes.get(SETTINGS)
    if text is None:
        raise CoordsError(f"{path}: was made by another program: {cure}")
    if text != json.dumps(asdict(settings), sort_keys=True):
        raise CoordsError(f"{path}: was made with {_differences(json.loads(text), settings)}: {cure}")
    if mpp is not None and coords.level0_mpp != mpp:
        raise CoordsError(f"{path}: was made with {coords.level0_mpp} microns per pixel of level 0, now {mpp}: {cure}")
    return coords


def _differences(earlier: Mapping[str, Any], settings: TilingSettings) -> str:
    now = asdict(settings)
    return ", ".join(
        f"{key}={earlier.get(key)} (now {now.get(key)})"
        for key in sorted(now.keys() | earlier.keys())
        if earlier.get(key) != now.get(key)
    )


def _failed(path: Path, reason: str = "") -> SlideResult:
    reason = reason or f"{path}: its process was killed (out of memory?): run again, with fewer workers"
    return SlideResult(Slide.name_of(path), "failed", reason=reason, path=path)


def read_mpps(path: Path) -> dict[str, float]:
    """Microns per pixel by slide, of a CSV with the columns slide and mpp.

    Raises:
        SlideError: if it cannot be read, or says no number from 0.01 to 100.
    """
    from ncmi.data.bags.labels import read_text_frame, slide_name
    from ncmi.data.columns import SLIDE_COLUMNS, called_like

    frame = read_text_frame(path)
    names, values = called_like(frame.columns, SLIDE_COLUMNS), called_like(frame.columns, ("mpp", "slide_mpp"))
    if len(names) != 1 or len(values) != 1:
        raise SlideError(f"{path}: columns {listing(list(frame.columns))}: give slide and mpp")
    mpps = {}
    for name, text in zip(frame[names[0]], frame[values[0]], strict=True):
        try:
            mpps[slide_name(name)] = TilingSettings(slide_mpp=float(text.replace(",", "."))).slide_mpp or 0.0
        except ValueError:
            raise SlideError(f"{path}: mpp {text!r} of {name!r}: microns per pixel, 0.01 … 100") from None
    return mpps


def tile_slide(path: Path, out: Path, settings: TilingSettings, mpps: Mapping[str, float] | None = None) -> SlideResult:
    """Write OUT/thumbnails/SLIDE.jpg, then OUT/coords/SLIDE.h5, each whole or not at all.

    A slide that cannot be read or does not fit the settings is a result like any other, with its reason.
    """
    try:
        given = (mpps or {}).get(Slide.name_of(path))
        with Slide(path, given, fallback_mpp=settings.slide_mpp) as slide:
            return _tile(slide, out, settings)
    except SlideError as error:
        return _failed(path, str(error))
    except MemoryError:
        return _failed(path, f"{path}: out of memory: give fewer workers")


def _tile(slide: Slide, out: Path, settings: TilingSettings) -> SlideResult:
    grid = plan_grid(slide, settings)
    overview = read_overview(slide)
    limits = {"min_region_mm2": settings.min_region_mm2, "max_hole_mm2": settings.max_hole_mm2}
    tissue = find_tissue(overview, pen=settings.pen, **limits)
    corners = grid.corners(slide.size, edge=settings.edge)
    corners = corners[tissue_shares(tissue.mask, overview.scale, corners, grid.side) >= settings.min_tissue]
    if settings.min_tissue > 0:  # in a hole that was filled there is nothing but glass
        corners = corners[tissue_shares(tissue.stained, overview.scale, corners, grid.side) >= _LEAST_STAINED]
    if 0 < settings.max_patches < len(corners):
        corners = corners[np.linspace(0, len(corners) - 1, settings.max_patches).round().astype(int)]
    # the first, the middle and the last patch: a file that was cut off often shows it there alone
    for index in {0, len(corners) // 2, len(corners) - 1} if len(corners) else ():
        x, y = corners[index].tolist()
        read_square(slide, x, y, grid.side, settings.patch_size)
    picture = out / "thumbnails" / f"{slide.name}.jpg"
    write_thumbnail(picture, slide, overview, tissue.mask, corners, grid, settings.patch_size)
    # last: where it is, the slide is done
    reason = "" if len(corners) else _why_none(tissue, settings)
    attributes = _attributes(slide, out, grid, settings) | ({NO_PATCHES: reason} if reason else {})
    write_coords(out / "coords" / f"{slide.name}.h5", corners, attributes)
    stated, note = slide.stated_mpp, ""
    if stated and settings.slide_mpp and slide.mpp == stated and abs(settings.slide_mpp / stated - 1) > _SAME_MPP:
        note = f"says {stated:.4g} microns per pixel, which was taken, and not --slide-mpp (see --slide-mpps)"
    return SlideResult(
        slide.name, "tiled" if len(corners) else "no tissue", len(corners), reason, path=slide.path, note=note
    )


def _why_none(tissue: Tissue, settings: TilingSettings) -> str:
    if not tissue.largest_mm2:
        return "no tissue found: see the thumbnail"
    if not tissue.mask.any():
        least = settings.min_region_mm2
        return (
            f"tissue found, but all regions are below {least:g} mm² (the largest has {tissue.largest_mm2:.2g}): see "
            "the thumbnail, and lower --min-region where that is tissue"
        )
    return f"no patch has {settings.min_tissue:.0%} of tissue or more: see the thumbnail (--min-tissue, --patch-size)"


def _attributes(slide: Slide, out: Path, grid: Grid, settings: TilingSettings) -> dict[str, Any]:
    """What TRIDENT and CLAM call the same things.

    CLAM reads ``patch_size`` pixels at ``patch_level``: the same area only where ``custom_downsample`` is 1.
    TRIDENT reads by the ratio of the magnifications, which is exact here.
    """
    magnification = slide.objective_power or 10 / slide.mpp
    downsample = slide.downsamples[grid.level]
    return {
        "patch_size": settings.patch_size,
        "patch_size_level0": grid.side,
        "level0_magnification": _whole(magnification),
        "target_magnification": _whole(magnification * settings.patch_size / grid.side),
        "overlap": settings.overlap,
        "name": slide.name,
        "savetodir": str(out),
        "level0_width": slide.size[0],
        "level0_height": slide.size[1],
        "patch_level": grid.level,
        "downsample": [downsample, downsample],
        "custom_downsample": _whole(grid.side / (settings.patch_size * downsample)),
        "downsampled_level_dim": list(slide.level_sizes[grid.level]),
        "level_dim": list(slide.level_sizes[grid.level]),
        "save_path": str(out),
        "mpp": grid.mpp,
        "level0_mpp": slide.mpp,
        SETTINGS: json.dumps(asdict(settings), sort_keys=True),
    }


def _whole(value: float) -> int | float:
    return round(value) if abs(value - round(value)) < 1e-9 else value
