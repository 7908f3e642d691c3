"""How slides are tiled: pixel size, patch size, overlap, and what counts as tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TilingSettings:
    """What defines the patches of a slide; stored with them.

    Attributes:
        mpp: wanted microns per pixel of the patches: 0.5 for 20x, 0.25 for 40x.
        patch_size: side of a patch in pixels at ``mpp``.
        overlap: of neighbouring patches in pixels at ``mpp``.
        min_tissue: least share of a patch that is tissue, above 0 … 1; 0 takes every patch of the slide.
        slide_mpp: microns per pixel of all slides' level 0, where the files do not say it; by default theirs.
        mpp_tolerance: a level whose pixel size differs by no more than this share is taken as it is, unscaled.
        upsample: let slides that are coarser than ``mpp`` be enlarged.
        min_region_mm2: tissue regions smaller than this are specks.
        max_hole_mm2: holes in tissue that are smaller than this count as tissue.
        pen: leave out green and deep blue ink; False for slides whose stain has these colours.

    Raises:
        ValueError: naming the option and what it can be.
    """

    mpp: float = 0.5
    patch_size: int = 256
    overlap: int = 0
    min_tissue: float = 0.25
    slide_mpp: float | None = None
    mpp_tolerance: float = 0.02
    upsample: bool = False
    min_region_mm2: float = 0.02
    max_hole_mm2: float = 0.02
    pen: bool = True

    def __post_init__(self) -> None:
        for name in ("mpp", "slide_mpp"):
            value = getattr(self, name)
            if value is not None and not 0.01 <= value <= 100:
                raise ValueError(f"{name}={value}: microns per pixel, 0.01 … 100 (20x is 0.5, 40x is 0.25)")
        if self.patch_size < 16:
            raise ValueError(f"patch_size={self.patch_size}: must be at least 16 pixels; 224 and 256 are usual")
        if not 0 <= self.overlap < self.patch_size:
            raise ValueError(
                f"overlap={self.overlap}: must be at least 0 and below patch_size={self.patch_size}, in pixels"
            )
        if not 0 <= self.min_tissue <= 1:
            raise ValueError(f"min_tissue={self.min_tissue}: a share of the patch, 0 … 1")
        if not 0 <= self.mpp_tolerance < 0.5:
            raise ValueError(f"mpp_tolerance={self.mpp_tolerance}: a share of mpp, at least 0 and below 0.5")
        for name in ("min_region_mm2", "max_hole_mm2"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: an area in mm², at least 0")
