"""Zarr stores of one slide each: LazySlide's (SpatialData) and anndata's; features and the corners of their tiles.

zarr is an optional extra, imported here alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncmi.data.bags.bag import BagError, UnusableBag
from ncmi.errors import listing

_POLYGON = b"\x01\x03\x00\x00\x00\x01\x00\x00\x00"  # in well-known binary: little-endian, of one ring
_RING = len(_POLYGON) + 4  # where its points begin


@dataclass(frozen=True)
class TileFeatures:
    """Features of a table with what else it says of its tiles, where readers look for attributes."""

    values: Any
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the features, without reading them."""
        return tuple(self.values.shape)

    def __getitem__(self, chosen: Any) -> Any:
        return self.values[chosen]


def zarr_content(path: Path, table: str | None = None) -> dict[str, Any]:
    """``features``, and ``coords`` where they are known, of a store; X is read where it is asked for.

    A store of SpatialData holds tables/TABLE with X and obs/tile_id, and the tiles as polygons in pixels of level 0 in
    shapes/TILES/shapes.parquet; TABLE is called ENCODER_TILES. One of anndata holds X, obsm/spatial and uns/tile_spec.

    Args:
        table: of several tables the one with the features.

    Raises:
        BagError: without zarr, for a store without features, or with several tables and none of that name.
    """
    try:
        import zarr
    except ImportError as error:
        raise BagError(
            f"{path}: Zarr needs zarr ({error}): pip install ncmi[zarr], or write the features of each slide as .h5ad "
            "(LazySlide: wsi.fetch.features_anndata(KEY).write_h5ad(FILE))"
        ) from None
    # metadata of all in one file may be older than what is there
    store = zarr.open_group(str(path), mode="r", use_consolidated=False)
    if _matrix(store) is not None:
        return _of_anndata(store)
    tables = {name: group for name, group in _groups(store.get("tables")) if _matrix(group) is not None}
    if not tables:
        raise UnusableBag(path, "a Zarr store without tables of features [N, D]")
    if table is None and len(tables) > 1:
        raise BagError(
            f"{path}: several tables of features ({listing(list(tables))}): choose one (--data.features-key)"
        )
    name = next(iter(tables)) if table is None else table
    if name not in tables:
        raise BagError(f"{path}: no table {name!r} (there is {listing(list(tables))}): see --data.features-key")
    return _of_spatialdata(path, name, tables[name])


def _groups(group: Any) -> list[tuple[str, Any]]:
    return [] if not hasattr(group, "groups") else sorted(group.groups())


def _matrix(group: Any) -> Any:
    """X of a table where it is a matrix with columns; None where it is sparse, empty or not there."""
    x = group.get("X")
    return x if len(getattr(x, "shape", ())) == 2 and x.shape[1] else None


def _of_anndata(store: Any) -> dict[str, Any]:
    spec = store.get("uns/tile_spec")
    sides = [] if spec is None else [spec[key] for key in ("base_width", "raw_width") if key in spec]
    attributes = {"patch_size_level0": np.asarray(sides[0][()]).item()} if sides else {}
    corners = store.get("obsm/spatial")
    content: dict[str, Any] = {"features": TileFeatures(store["X"], attributes)}
    return content if corners is None else content | {"coords": np.asarray(corners[:])}


def _of_spatialdata(path: Path, name: str, table: Any) -> dict[str, Any]:
    region = table.get("uns/spatialdata_attrs/region")
    tiles = "tiles" if region is None else str(np.asarray(region[()]).ravel()[0])
    encoder = name.removesuffix(f"_{tiles}")
    shapes = path / "shapes" / tiles / "shapes.parquet"
    if not shapes.is_file():
        return {"features": TileFeatures(table["X"], {"encoder": encoder})}
    import pandas as pd

    frame = pd.read_parquet(shapes)
    corners, side = _corners(path, list(frame["geometry"]))
    rows = np.arange(len(frame))
    numbers = table.get("obs/tile_id")
    if numbers is not None and "tile_id" in frame:
        rows = pd.Index(frame["tile_id"]).get_indexer(np.asarray(numbers[:]))
    count = table["X"].shape[0]
    if len(rows) != count or (rows < 0).any():
        raise UnusableBag(path, f"{count} features of {name!r}, but {len(frame)} tiles of {tiles!r}, which are others")
    features = TileFeatures(table["X"], {"encoder": encoder, "patch_size_level0": side})
    return {"features": features, "coords": corners[rows]}


def _corners(path: Path, polygons: Sequence[bytes]) -> tuple[npt.NDArray[np.float64], float]:
    """Upper left corners ``[N, 2]`` of squares in well-known binary, and the side that they share."""
    if not polygons or any(not polygon.startswith(_POLYGON) for polygon in polygons):
        raise UnusableBag(path, "tiles that are no polygons")
    points = [np.frombuffer(polygon, "<f8", offset=_RING).reshape(-1, 2) for polygon in polygons]
    return np.stack([ring.min(axis=0) for ring in points]), float(np.ptp(points[0][:, 0]))
