"""From slides to the coordinates of their patches: tissue mask, grid, files that TRIDENT and CLAM read as well."""

from ncmi.slides.tiling.coords import Coords, CoordsError, read_coords, read_patch, write_coords
from ncmi.slides.tiling.grid import TilingSettings
from ncmi.slides.tiling.slide_file import Slide, SlideError, find_slides
from ncmi.slides.tiling.tile import read_mpps, tile_slides

__all__ = [
    "Coords",
    "CoordsError",
    "Slide",
    "SlideError",
    "TilingSettings",
    "find_slides",
    "read_coords",
    "read_mpps",
    "read_patch",
    "tile_slides",
    "write_coords",
]
