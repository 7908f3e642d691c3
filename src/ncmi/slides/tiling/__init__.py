"""From slides to the coordinates of their patches: tissue mask, grid, files that TRIDENT and CLAM read as well."""

from ncmi.slides.tiling.coords_file import Coords, CoordsError, read_coords, write_coords
from ncmi.slides.tiling.one_slide import TileResult
from ncmi.slides.tiling.patches import read_patch
from ncmi.slides.tiling.search import find_slides
from ncmi.slides.tiling.settings import TilingSettings
from ncmi.slides.tiling.slide_file import Slide, SlideError
from ncmi.slides.tiling.tile import tile_slides

__all__ = [
    "Coords",
    "CoordsError",
    "Slide",
    "SlideError",
    "TileResult",
    "TilingSettings",
    "find_slides",
    "read_coords",
    "read_patch",
    "tile_slides",
    "write_coords",
]
