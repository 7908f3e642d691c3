"""Options of the simulated cohorts; no torch, no numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CohortName = Literal["camelyon17", "bracs"]
RANK = 24
"""Dimensions of the space in which tissue types, lesions and centres differ."""


@dataclass(frozen=True)
class Difficulty:
    """How hard a simulated cohort is. Lengths are in standard deviations of patches of one type of tissue.

    The defaults are chosen so that gated ABMIL with cross-entropy comes near its published macro F1 and AUC (0.522 and
    0.853; BRACS 0.680 and 0.866). Found with scale 0.1 and D = 256 in 10 epochs: 0.58 to 0.62 and 0.85 to 0.87 on
    centres 3 and 4; for BRACS in three classes, scale 0.2, 12 epochs, 0.55 to 0.69 and 0.89 to 0.91.

    Attributes:
        lesion_distance: how far tumour lies from the tissue that it resembles most; lesions of BRACS lie at 0.3 to 0.8
            of it. Smaller is harder.
        lesion_spread: length of a lesion's own deviation, drawn once a slide.
        mimics: mean share of normal patches that lie part of the way to the lesion.
        mimic_strength: largest part of that way.
        slide_shift: of what all patches of a slide have in common, in each of the 24 dimensions.
        centre_shift: the same of a centre, which moreover scales each feature by a factor of its own, whose logarithm
            has a tenth of this standard deviation. 0 for centres that are alike.
        noise: of the noise outside the 24 dimensions, for features of variance about 1.
        tail: degrees of freedom of the multivariate t distribution of what is random in a patch; more is lighter.
    """

    lesion_distance: float = 8.0
    lesion_spread: float = 2.0
    mimics: float = 0.01
    mimic_strength: float = 0.5
    slide_shift: float = 0.3
    centre_shift: float = 0.3
    noise: float = 0.5
    tail: float = 5.0

    def __post_init__(self) -> None:
        for name in ("lesion_distance", "lesion_spread", "slide_shift", "centre_shift", "noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 0")
        for name in ("mimics", "mimic_strength"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 0 and below 1")
        if not self.tail > 2:
            raise ValueError(f"tail={self.tail}: must be above 2, where the variance is finite")


@dataclass(frozen=True)
class SimulationOptions:
    """What is simulated. Where the numbers come from: :func:`describe_simulation`.

    Attributes:
        cohort: "camelyon17" (metastases in lymph nodes, four classes) or "bracs" (breast lesions, seven labels).
        seed: of everything; a slide's bag depends on these options, its name, label and centre alone.
        feature_dim: D_feat, width of a patch's feature, at least 24.
        scale: share of each slide's patches that is made, for smaller cohorts. Lesions shrink by the same factor but
            the one that the label tells of never vanishes: at a small scale small lesions take a larger share of their
            slide than they should.
        difficulty: how hard it is.
    """

    cohort: CohortName = "camelyon17"
    seed: int = 0
    feature_dim: int = 1024
    scale: float = 1.0
    difficulty: Difficulty = Difficulty()

    def __post_init__(self) -> None:
        if self.cohort not in ("camelyon17", "bracs"):
            raise ValueError(f"cohort={self.cohort!r}: there are camelyon17 and bracs")
        if self.feature_dim < RANK:
            raise ValueError(
                f"feature_dim={self.feature_dim}: must be at least {RANK}, the dimensions in which tissue differs"
            )
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale={self.scale}: must be above 0 and at most 1, such as 0.1")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be at least 0")
