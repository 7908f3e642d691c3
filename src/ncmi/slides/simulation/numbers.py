"""The numbers behind the simulated cohorts, each with its source, or named an assumption."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ncmi.slides.simulation.options import RANK, CohortName, SimulationOptions

PATCH_PIXELS = 256
MICRONS_PER_PIXEL = 0.5
LEVEL0_MICRONS_PER_PIXEL = 0.25
PATCH_MM2 = (PATCH_PIXELS * MICRONS_PER_PIXEL / 1000) ** 2
"""Area of a patch: 128 µm × 128 µm."""

MEAN_PATCHES: dict[CohortName, int] = {"camelyon17": 10_450, "bracs": 3_000}
LOG_SD_PATCHES = 1.0
PATCHES_LIMITS = (300, 60_000)

DIAMETERS_MM = {"itc": (0.03, 0.2), "micro": (0.2, 2.0), "macro": (2.0, 12.0)}
"""Least and largest diameter of a slide's main lesion."""
ASPECT = (0.4, 1.0)
"""Least and largest ratio of a lesion's width to its length."""
SATELLITES = {"itc": ("itc", 0.5), "micro": ("itc", 0.5), "macro": ("micro", 1.0)}
"""Further lesions of a slide: of which class, and how many on average."""
LARGEST_SHARE = 0.7
"""Of a slide's patches in lesions."""
BRACS_SHARE = (0.01, 0.4)
BRACS_MILDER = 0.3

Kind = Literal["published", "measured", "derived", "assumption"]


@dataclass(frozen=True)
class Stated:
    """One number of the simulation: what it is, its value, how it is known, and from where."""

    what: str
    value: str
    kind: Kind
    source: str


_CAMELYON17 = (
    Stated(
        "slides, patients, centres, classes",
        "500, 100 of 5 slides, 5 of 20 patients; 318 negative, 36 ITC, 59 micro, 87 macro",
        "published",
        "CAMELYON17 training set, its table of slides; doi:10.1093/gigascience/giy065",
    ),
    Stated(
        "mean number of patches",
        f"{MEAN_PATCHES['camelyon17']:,}",
        "derived",
        "CLAM (Lu 2021): 41,802 patches of 256 px at 40× a slide of CAMELYON16+17, a quarter of which at 20×; "
        "others at 20×, CAMELYON16: 8,000 (DSMIL, 224 px), 9,200 (DTFD-MIL); 12,247 in the features that DSMIL "
        "released, 15,867 by one user of CLAM (github.com/hrzhang1123/DTFD-MIL/issues/3, binli123/dsmil-wsi/issues/32)",
    ),
    Stated(
        "standard deviation of the logarithm of the number of patches",
        f"{LOG_SD_PATCHES:g}",
        "measured",
        "1.03 over 29 slides of CAMELYON16 in a log at 5× (github.com/binli123/dsmil-wsi/issues/14); that it is "
        "normal is an assumption",
    ),
    Stated(
        "diameter that divides ITC, micro and macro",
        "0.2 mm (or 200 cells), 2 mm",
        "published",
        "camelyon17.grand-challenge.org/Evaluation; only the diameter is used here",
    ),
    Stated(
        "diameter of the main lesion",
        "logarithm uniform: ITC 0.03–0.2 mm, micro 0.2–2 mm, macro 2–12 mm",
        "assumption",
        "within the published limits; 0.03 mm is a group of a few cells, 12 mm most of a lymph node's section",
    ),
    Stated(
        "patches in a lesion of diameter d",
        "(π/4)·d²·w / 0.0164 mm², w uniform in 0.4–1; at least 1: ITC 1–2, micro 1–192, macro 77–6,900",
        "derived",
        "an ellipse of width w·d over the area of a patch",
    ),
    Stated(
        "further lesions of a slide",
        "Poisson: 0.5 more of ITC's size in ITC and micro slides, 1 of micro size in macro slides",
        "assumption",
        "a slide's class is that of its largest lesion",
    ),
    Stated(
        "patients",
        "no effect",
        "published",
        "the challenge made its patients of slides of several real ones (camelyon17.grand-challenge.org/Evaluation)",
    ),
)
_BRACS = (
    Stated(
        "slides, split, labels",
        "547; 395 train, 65 validation, 87 test; 7 labels in 3 groups",
        "published",
        "BRACS (Brancati 2022), doi:10.1093/database/baac093",
    ),
    Stated(
        "mean number of patches",
        f"{MEAN_PATCHES['bracs']:,}",
        "published",
        "about 3,000 by CLAM at 20×, 224 px (github.com/invoker-LL/Long-MIL/issues/3)",
    ),
    Stated(
        "standard deviation of the logarithm of the number of patches",
        f"{LOG_SD_PATCHES:g}",
        "assumption",
        "as in CAMELYON",
    ),
    Stated(
        "share of a slide's worst lesion",
        f"logarithm uniform in {BRACS_SHARE[0]:g}–{BRACS_SHARE[1]:g}; none in N",
        "assumption",
        "no published figure found",
    ),
    Stated(
        "milder lesions beside it",
        f"each with probability {BRACS_MILDER:g}",
        "assumption",
        "a slide is labelled by its worst lesion, as in BRACS",
    ),
    Stated("patients and centres", "no effect", "assumption", "all slides come from one centre"),
)


def describe_simulation(options: SimulationOptions) -> tuple[Stated, ...]:
    """Every number of the simulation with its source, in order: cohort first, then features.

    >>> rows = describe_simulation(SimulationOptions())
    >>> rows[1].value, rows[1].kind
    ('10,450', 'derived')
    """
    hard = options.difficulty
    cohort = _CAMELYON17 if options.cohort == "camelyon17" else _BRACS
    return (
        *cohort,
        Stated(
            "patch",
            f"{PATCH_PIXELS} px at {MICRONS_PER_PIXEL:g} µm/px: {PATCH_MM2:.4f} mm²",
            "published",
            "the usual setting at 20×",
        ),
        Stated(
            "limits of the number of patches",
            f"{PATCHES_LIMITS[0]:,}–{PATCHES_LIMITS[1]:,}, before scale",
            "assumption",
            "keeps bags within what slides have",
        ),
        Stated(
            "largest share of lesions", f"{LARGEST_SHARE:g} of a slide", "assumption", "some tissue is always normal"
        ),
        Stated("scale", f"{options.scale:g} of all patches", "assumption", "option"),
        Stated(
            "features",
            f"D = {options.feature_dim}; a mixture of tissue types in {RANK} dimensions, noise {hard.noise:g} outside: "
            f"{1 / (1 + _noise_share(options)):.0%} of the variance in {RANK} dimensions",
            "assumption",
            "of a real slide (TCGA-AD-6964, 777 × 512) 16 dimensions hold 87 % and 32 hold 94 % of the variance",
        ),
        Stated(
            "lesion",
            f"distance {hard.lesion_distance:g} from the nearest tissue, {hard.lesion_spread:g} between slides, "
            "in standard deviations within a type of tissue; patches that a lesion covers in part move by the root of "
            "the part",
            "assumption",
            "option: sets the difficulty",
        ),
        Stated(
            "mimics",
            f"{hard.mimics:g} of normal patches, up to {hard.mimic_strength:g} of the way to the lesion",
            "assumption",
            "option: sets the difficulty",
        ),
        Stated(
            "centres and slides",
            f"offsets of {hard.centre_shift:g} and {hard.slide_shift:g} standard deviations",
            "assumption",
            "that encoders keep centres is published (de Jong 2025, arXiv 2501.18055); how much is an option",
        ),
        Stated("tails", f"multivariate t, {hard.tail:g} degrees of freedom", "assumption", "a slide has odd patches"),
    )


def log_mean_patches(cohort: CohortName) -> float:
    """Mean of the logarithm of the number of patches, from the mean of the number."""
    return math.log(MEAN_PATCHES[cohort]) - LOG_SD_PATCHES**2 / 2


def _noise_share(options: SimulationOptions) -> float:
    # variance of the noise over that of the features: types' means 1 and patches 1 a dimension
    return options.difficulty.noise**2 / 2
