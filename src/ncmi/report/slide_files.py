"""Attention over one slide as files: overlay, GeoJSON for QuPath, table by patch, top patches, a page with zoom."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ncmi.data.columns import patches_off_slide
from ncmi.files import inert_cell, write_atomically, write_text
from ncmi.report import text
from ncmi.report.attention import TOP, Attention, Picture
from ncmi.report.heat_maps import LOWEST, Extent, color_places, colors_of, extent_of, heat_png, jpeg, paint, top_of
from ncmi.report.page import render
from ncmi.report.tables import Table, table_row

if TYPE_CHECKING:
    from PIL.Image import Image

Coloring = Literal["even", "percentile"]
OVERLAY = 2000
"""Pixels on the longer side of an overlay."""
_OPACITY = 0.6
# lower ends of the classes that QuPath colors, in multiples of an even share, and in percent of the patches below
_BANDS: dict[Coloring, tuple[float, ...]] = {"even": (0, 1, 3, 10, 30), "percentile": (0, 50, 75, 90, 99)}
# in ASCII: of other signs than letters in a class's name QuPath warns that later versions may not read it
_SIGNS: dict[Coloring, str] = {"even": "x", "percentile": "%"}
_ROWS = 10_000  # features that are made into text at once


def percentiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percent of the patches that have less attention than each, ties counting half; 0 … 100.

    >>> percentiles(np.array([0.1, 0.7, 0.2])).round(1).tolist()
    [16.7, 83.3, 50.0]
    """
    return np.asarray(100 * (rankdata(values) - 0.5) / len(values))


def write_slide(
    folder: Path,
    weights: Attention,
    picture: Picture,
    *,
    coloring: Coloring = "even",
    sentences: Sequence[str] = (),
    probabilities: Mapping[str, float] = {},
) -> list[str]:
    """Write a slide's attention into a folder; each file whole or not at all.

    ``attention.csv`` (a line a patch), and where the patches' places are known ``overlay.png``, ``page.html``, in
    pixels of level 0 also ``attention.geojson``, and where the slide is at hand ``patches/RANK_x_y.png``.

    Args:
        folder: of the slide alone.
        weights, picture: of :meth:`ncmi.report.attention.Sources.look`.
        coloring: colors by multiples of an even share, on a logarithmic scale, or by percentile.
        sentences: on the slide, for its page.
        probabilities: of the classes, for its page.

    Returns:
        What could not be written, and why, and what is not known of the slide.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "attention.csv", lambda path: _write_csv(path, weights))
    if weights.coords is None:
        return ["the features hold no coordinates: a table by patch alone"]
    notes = []
    if weights.estimated:
        unit = "microns" if weights.microns else "pixels"
        by_neighbors = f"taken to be {weights.patch_size:g} {unit} wide, by the distance of neighbors"
        drawn = by_neighbors if weights.patch_size > 1 else "and it has no neighbors to tell it by: drawn as a point"
        notes.append(f"the features do not say how large a patch is: {drawn}")
    if count := patches_off_slide(weights.coords, None if weights.estimated else weights.patch_size):
        notes.append(
            f"{count} of {len(weights.values)} patches have negative positions, off the slide: positions count from "
            "its upper left corner; are they of this slide?"
        )
    if weights.microns:
        notes.append(
            "places are in microns, and nothing says how large a pixel is: no GeoJSON (--slides with the slide, or "
            "--slide-mpp)"
        )
    else:
        write_atomically(folder / "attention.geojson", lambda path: _write_geojson(path, weights, coloring))
    if picture.thumbnail is None and picture.note:
        notes.append(f"no picture below the heat map: {picture.note}")
    overlay = _overlay(weights, picture, coloring)
    write_atomically(folder / "overlay.png", lambda path: overlay.save(path, "png", optimize=False, compress_level=3))
    top = weights.top(len(picture.patches))
    for rank, (index, image) in enumerate(zip(top, picture.patches, strict=True), start=1):
        x, y = (int(value) for value in weights.coords[index])
        path = folder / "patches" / f"{rank:02d}_x{x}_y{y}.png"
        write_atomically(path, lambda temporary, image=image: image.save(temporary, "png"))  # type: ignore[misc]
    write_text(folder / "page.html", _page(folder / "page.html", weights, picture, coloring, sentences, probabilities))
    return notes


def _write_csv(path: Path, weights: Attention) -> None:
    unit = "um" if weights.microns else "px"
    columns = [weights.values, weights.relative, percentiles(weights.values)]
    heading = ["patch", "attention", "times_even", "percentile"]
    if weights.coords is not None:
        columns += [*weights.coords.T, np.full(len(weights.values), weights.patch_size)]
        heading += [f"x_{unit}", f"y_{unit}", f"side_{unit}"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heading)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        writer.writerows([number, *(f"{v:.6g}" for v in row[:3]), *row[3:]] for number, row in enumerate(rows))


def _write_geojson(path: Path, weights: Attention, coloring: Coloring) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for number, part in enumerate(_features(weights, coloring)):
            file.write(("," if number else "") + part)
        file.write("]}\n")


def _features(weights: Attention, coloring: Coloring) -> Iterator[str]:
    """Patches as QuPath's detections, some thousands at a time: closed squares in pixels of level 0."""
    assert weights.coords is not None
    ranks = rankdata(-weights.values, method="ordinal").tolist()
    percents, relative = percentiles(weights.values), weights.relative
    bands = np.searchsorted(_BANDS[coloring], relative if coloring == "even" else percents, side="right") - 1
    classes = [json.dumps(each, separators=(",", ":")) for each in _classes(coloring)]
    far = weights.coords + round(weights.patch_size)
    rows = zip(
        weights.coords.tolist(),
        far.tolist(),
        bands.tolist(),
        weights.values.tolist(),
        relative.tolist(),
        percents.tolist(),
        ranks,
        strict=True,
    )
    texts = []
    for (x, y), (right, low), band, value, times, percent, rank in rows:
        texts.append(
            '{"type":"Feature","geometry":{"type":"Polygon","coordinates":'
            f"[[[{x},{y}],[{right},{y}],[{right},{low}],[{x},{low}],[{x},{y}]]]}},"
            f'"properties":{{"objectType":"detection","classification":{classes[band]},"measurements":'
            f'{{"Attention":{value:.6g},"Attention / even share":{times:.6g},"Attention percentile":{percent:.6g},'
            f'"Attention rank":{rank}}}}}}}'
        )
        if len(texts) == _ROWS:
            yield ",".join(texts)
            texts = []
    if texts:
        yield ",".join(texts)


def _classes(coloring: Coloring) -> list[dict[str, object]]:
    """QuPath's classes, the lowest first: name and color."""
    ends, sign = _BANDS[coloring], _SIGNS[coloring]
    names = [f"Attention {low:g}-{high:g}{sign}" for low, high in pairwise(ends)]
    names[0], last = f"Attention < {ends[1]:g}{sign}", f"Attention >= {ends[-1]:g}{sign}"
    colors = colors_of(np.linspace(0, 1, len(ends))).tolist()
    return [{"name": name, "color": color} for name, color in zip([*names, last], colors, strict=True)]


def _heat(
    weights: Attention, picture: Picture, coloring: Coloring, most: int
) -> tuple[NDArray[np.float64], float, Extent]:
    """Painted values on the scale of colors of even shares, its upper end, and the part of the slide it covers."""
    assert weights.coords is not None
    extent = Extent(0, 0, *picture.size) if picture.thumbnail else extent_of(weights.coords, weights.patch_size)
    values, top = weights.relative, top_of(weights.relative)
    if coloring == "percentile":
        # the scale of colors is logarithmic: a percentile becomes the value at its place
        values = LOWEST * (top / LOWEST) ** (percentiles(weights.values) / 100)
    return paint(values, weights.coords, weights.patch_size, extent, most), top, extent


def _overlay(weights: Attention, picture: Picture, coloring: Coloring) -> Image:
    """The heat map over the slide in gray, or over white where there is no picture of it."""
    from PIL import Image

    pixels, top, extent = _heat(weights, picture, coloring, OVERLAY)
    zoom = OVERLAY / max(extent.width, extent.height)
    size = max(1, round(extent.width * zoom)), max(1, round(extent.height * zoom))
    painted = np.isfinite(pixels)
    colors = colors_of(color_places(np.where(painted, pixels, LOWEST), top))
    opacity = np.where(painted, round(255 * (_OPACITY if picture.thumbnail else 1)), 0).astype(np.uint8)
    heat = Image.fromarray(np.dstack([colors, opacity])).resize(size, Image.Resampling.NEAREST)
    base = Image.new("RGB", size, "white")
    if picture.thumbnail is not None:
        base.paste(picture.thumbnail.convert("L").resize(size, Image.Resampling.BICUBIC))
    base.paste(heat, mask=heat.getchannel("A"))
    return base


def _page(
    path: Path,
    weights: Attention,
    picture: Picture,
    coloring: Coloring,
    sentences: Sequence[str],
    probabilities: Mapping[str, float],
) -> str:
    assert weights.coords is not None
    pixels, top, extent = _heat(weights, picture, coloring, OVERLAY)
    ranks = [
        table_row(
            str(rank),
            *(f"{value:g}" for value in weights.coords[index].tolist()),
            f"{text.significant(float(weights.relative[index]))}×",
            f"{100 * weights.values[index]:.2g} %",
        )
        for rank, index in enumerate(weights.top(TOP), start=1)
    ]
    shares = [table_row(name, f"{value:.3f}") for name, value in probabilities.items()]
    return render(
        "slide",
        path,
        simulation=False,
        title=weights.slide,
        verdict=sentences,
        weights=weights,
        picture=picture,
        note=picture.note or "no picture of the slide",
        ratio=extent.height / extent.width,
        slide_image=jpeg(picture.thumbnail) if picture.thumbnail else "",
        heat_image=heat_png(pixels, top),
        coloring=coloring,
        top=Table("top", ("Top", "x", "y", "attention / even", "share"), ranks, sortable=False),
        probabilities=Table("probabilities", ("Class", "probability"), shares, sortable=False) if shares else None,
        patches=[jpeg(image) for image in picture.patches],
        shares=[f"{text.significant(float(weights.relative[index]))}×" for index in weights.top(len(picture.patches))],
    )


def write_slides_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a CSV of one line a slide; all rows have the same columns."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            writer.writerows([inert_cell(value) for value in row.values()] for row in rows)

    write_atomically(path, write)
