"""Slides to coordinates files, thumbnails and a summary."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ncmi.files import write_json
from ncmi.slides.tiling.coords import CoordsError, read_coords, write_coords
from ncmi.slides.tiling.grid import Grid, TilingSettings, plan_grid, tissue_shares
from ncmi.slides.tiling.slide_file import Slide, SlideError, find_slides, read_square
from ncmi.slides.tiling.tissue import read_overview, tissue_mask, write_thumbnail
from ncmi.slides.work import SlideResult, map_in_processes, write_summary

_FORMAT = 1
SETTINGS = "tiling"
"""Attribute of the coordinates that holds the settings they were made with, as JSON."""


def tile_slides(
    folder: str | Path,
    out: str | Path,
    settings: TilingSettings = TilingSettings(),
    *,
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
        workers: slides side by side, a process each; 0 for one a processor. With several, the calling script needs
            ``if __name__ == "__main__":``, as its processes import it.
        overwrite: make all slides anew, also those that were made with other settings.
        on_slide: called in this process with each slide's result, first those that were kept.

    Returns:
        The result of each slide, by name. A slide that cannot be read has the status "failed" and its reason.

    Raises:
        ValueError: for fewer than 0 workers.
        SlideError: if the folder is missing or empty, or two slides have the same name.
        CoordsError: if OUT holds coordinates made with other settings or by other programs (without ``overwrite``).
        KeyboardInterrupt: on Ctrl-C; finished slides are kept, and the same call goes on.
    """
    if workers < 0:
        raise ValueError(f"workers={workers}: the number of slides side by side, or 0 for one a processor")
    slides, out = find_slides(folder), Path(out)
    kept = _open_folder(out, slides, settings, overwrite)
    results: dict[str, SlideResult] = {}
    pending = [path for name, path in slides.items() if name not in kept]
    work = partial(tile_slide, out=out, settings=settings)
    try:
        with closing(map_in_processes(work, pending, workers, _failed)) as made:
            for result in chain(kept.values(), made):
                results[result.slide] = result
                on_slide(result)
    finally:
        write_summary(out / "summary.csv", [results[name] for name in slides if name in results])
    return [results[name] for name in slides]


def _open_folder(
    out: Path, slides: Mapping[str, Path], settings: TilingSettings, overwrite: bool
) -> dict[str, SlideResult]:
    """Check that OUT's files belong to the same settings, and return the slides that are finished."""
    if not overwrite:
        _check_settings(out / "tiling.json", settings)
    kept = {}
    for path in sorted((out / "coords").glob("*.h5")):
        if overwrite and path.stem in slides:
            continue
        patches = _check_coords(path, settings, known=path.stem in slides)
        if path.stem in slides:
            kept[path.stem] = _counted(path.stem, slides[path.stem], patches, settings, made=False)
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
    if text != json.dumps(asdict(settings), sort_keys=True):
        raise CoordsError(f"{path}: was made with {_differences(json.loads(text), settings)}: {cure}")
    return len(coords)


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


def _counted(slide: str, path: Path, patches: int, settings: TilingSettings, *, made: bool = True) -> SlideResult:
    """The result of a slide that could be read."""
    if patches:
        return SlideResult(slide, "tiled", patches, made=made, path=path)
    reason = f"no patch has {settings.min_tissue:.0%} of tissue or more: see the thumbnail"
    return SlideResult(slide, "no tissue", 0, reason, made, path)


def tile_slide(path: Path, out: Path, settings: TilingSettings) -> SlideResult:
    """Write OUT/thumbnails/SLIDE.jpg, then OUT/coords/SLIDE.h5, each whole or not at all.

    A slide that cannot be read or does not fit the settings is a result like any other, with its reason.
    """
    try:
        with Slide(path, settings.slide_mpp) as slide:
            return _tile(slide, out, settings)
    except SlideError as error:
        return _failed(path, str(error))
    except MemoryError:
        return _failed(path, f"{path}: out of memory: give fewer workers")


def _tile(slide: Slide, out: Path, settings: TilingSettings) -> SlideResult:
    grid = plan_grid(slide, settings)
    overview = read_overview(slide)
    limits = {"min_region_mm2": settings.min_region_mm2, "max_hole_mm2": settings.max_hole_mm2}
    mask = tissue_mask(overview, pen=settings.pen, **limits)
    corners = grid.corners(slide.size)
    corners = corners[tissue_shares(mask, overview.scale, corners, grid.side) >= settings.min_tissue]
    # the first, the middle and the last patch: a file that was cut off often shows it there alone
    for index in {0, len(corners) // 2, len(corners) - 1} if len(corners) else ():
        x, y = corners[index].tolist()
        read_square(slide, x, y, grid.side, settings.patch_size)
    picture = out / "thumbnails" / f"{slide.name}.jpg"
    write_thumbnail(picture, slide, overview, mask, corners, grid, settings.patch_size)
    # last: where it is, the slide is done
    write_coords(out / "coords" / f"{slide.name}.h5", corners, _attributes(slide, out, grid, settings))
    return _counted(slide.name, slide.path, len(corners), settings)


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
