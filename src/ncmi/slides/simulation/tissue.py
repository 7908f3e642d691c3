"""What patches look like: tissue types, lesions and centres in a space of few dimensions, and the features of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ncmi.slides.simulation.options import RANK, SimulationOptions
from ncmi.slides.simulation.randomness import stream
from ncmi.slides.simulation.table import BRACS_LABELS

Array = npt.NDArray[np.float32]

TISSUES = {
    "camelyon17": ("lymphocytes", "sinus histiocytes", "germinal centre", "stroma", "fat"),
    "bracs": ("stroma", "normal ducts", "fat", "inflammation", "necrosis"),
}
"""Normal tissue of a cohort. Lesions lie beside the second, which is also what mimics them."""
RESEMBLED = 1
_SHARES = {"camelyon17": (5.0, 1.5, 1.0, 1.5, 2.0), "bracs": (4.0, 2.0, 3.0, 1.0, 0.5)}
# of BRACS' lesions along and across the way from benign to malignant, in parts of the lesion's distance
_GRADES = {"PB": 0.25, "UDH": 0.32, "FEA": 0.44, "ADH": 0.52, "DCIS": 0.67, "IC": 0.77}
_ACROSS = 0.24


@dataclass(frozen=True, eq=False)
class Palette:
    """What all slides of a cohort share.

    Attributes:
        components: names: tissue types, then lesions.
        means: ``[components, 24]``; within a component each dimension has standard deviation 1.
        directions: ``[24, D]`` orthogonal rows that carry the 24 dimensions into features of variance about 1 each.
        shares: ``[tissues]`` parameters of the Dirichlet distribution of a slide's tissue.
    """

    components: tuple[str, ...]
    means: Array
    directions: Array
    shares: npt.NDArray[np.float64]


def palette(options: SimulationOptions) -> Palette:
    """The palette of a simulation; made once."""
    return _palette(options.cohort, options.seed, options.feature_dim, options.difficulty.lesion_distance)


@lru_cache(maxsize=4)
def _palette(cohort: str, seed: int, dim: int, distance: float) -> Palette:
    random = stream(seed, cohort, "palette")
    tissues = TISSUES[cohort]
    means = random.normal(size=(len(tissues), RANK))
    # the QR of a tall matrix: orthonormal columns
    frame = np.linalg.qr(random.normal(size=(RANK, RANK)))[0]
    if cohort == "camelyon17":
        lesions: tuple[str, ...] = ("tumour",)
        offsets = [frame[0]]
    else:
        lesions = BRACS_LABELS[1:]
        offsets = [_GRADES[name] * frame[0] + _ACROSS * frame[1 + at] for at, name in enumerate(lesions)]
    means = np.concatenate([means, means[RESEMBLED] + distance * np.array(offsets)])
    directions = np.linalg.qr(random.normal(size=(dim, RANK)))[0].T * np.sqrt(dim / (2 * RANK))
    return Palette(
        (*tissues, *lesions), means.astype(np.float32), directions.astype(np.float32), np.array(_SHARES[cohort])
    )


def centre_effect(options: SimulationOptions, centre: str) -> tuple[Array, Array]:
    """(offset ``[24]``, factors ``[D]``) of a centre; nothing for a cohort without centres."""
    if not centre or options.difficulty.centre_shift == 0:
        return np.zeros(RANK, np.float32), np.ones(options.feature_dim, np.float32)
    random = stream(options.seed, options.cohort, "centre", centre)
    offset = options.difficulty.centre_shift * random.normal(size=RANK)
    factors = np.exp(options.difficulty.centre_shift / 10 * random.normal(size=options.feature_dim))
    return offset.astype(np.float32), factors.astype(np.float32)
