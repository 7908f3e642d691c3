"""Which cohort is simulated: options, the numbers behind them (``numbers.csv``), and its table of slides."""

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ncmi.data.bags.bag import BagError

CohortName = Literal["camelyon17", "bracs"]
RANK = 24
"""Dimensions of the space in which tissue types, lesions and centers differ."""

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


CAMELYON17_CLASSES = ("negative", "itc", "micro", "macro")
BRACS_LABELS = ("N", "PB", "UDH", "FEA", "ADH", "DCIS", "IC")
"""From the mildest to the worst."""
BRACS_COARSE = {"N": "BT", "PB": "BT", "UDH": "BT", "FEA": "AT", "ADH": "AT", "DCIS": "MT", "IC": "MT"}
COLUMNS: dict[CohortName, tuple[str, ...]] = {
    "camelyon17": ("slide_id", "patient_id", "center", "label"),
    "bracs": ("slide_id", "patient_id", "split", "label_fine", "label_coarse"),
}
# slides of each class by center, in the challenge's training set
_CENTERS = ((64, 11, 10, 15), (58, 7, 23, 12), (75, 2, 8, 15), (60, 8, 13, 19), (61, 8, 5, 26))
# slides of each label by part, in the official split
_PARTS = {"train": (27, 120, 56, 24, 28, 40, 100), "val": (10, 11, 9, 6, 8, 9, 12), "test": (7, 16, 9, 11, 12, 12, 20)}
_BRACS_SLIDES_A_PATIENT = 3


@dataclass(frozen=True)
class Difficulty:
    """How hard a simulated cohort is. Lengths are in standard deviations of patches of one type of tissue.

    The defaults are chosen so that gated ABMIL with cross-entropy comes near its published macro F1 and AUC (0.522 and
    0.853; BRACS 0.680 and 0.866). Found with scale 0.1 and D = 256 in 10 epochs: 0.58 to 0.62 and 0.85 to 0.87 on
    centers 3 and 4; for BRACS in three classes, scale 0.2, 12 epochs, 0.55 to 0.69 and 0.89 to 0.91.

    Attributes:
        lesion_distance: how far tumor lies from the tissue that it resembles most; lesions of BRACS lie at 0.3 to 0.8
            of it. Smaller is harder.
        lesion_spread: length of a lesion's own deviation, drawn once a slide.
        mimics: mean share of normal patches that lie part of the way to the lesion.
        mimic_strength: largest part of that way.
        slide_shift: of what all patches of a slide have in common, in each of the 24 dimensions.
        center_shift: the same of a center, which moreover scales each feature by a factor of its own, whose logarithm
            has a tenth of this standard deviation. 0 for centers that are alike.
        noise: of the noise outside the 24 dimensions, for features of variance about 1.
        tail: degrees of freedom of the multivariate t distribution of what is random in a patch; more is lighter.
    """

    lesion_distance: float = 8.0
    lesion_spread: float = 2.0
    mimics: float = 0.01
    mimic_strength: float = 0.5
    slide_shift: float = 0.3
    center_shift: float = 0.3
    noise: float = 0.5
    tail: float = 5.0

    def __post_init__(self) -> None:
        for name in ("lesion_distance", "lesion_spread", "slide_shift", "center_shift", "noise"):
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
        seed: of everything; a slide's bag depends on these options, its name, label and center alone.
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


@dataclass(frozen=True)
class Stated:
    """One number of the simulation: what it is, its value, how it is known, and from where.

    Its kind is published, measured, derived or assumption.
    """

    what: str
    value: str
    kind: str
    source: str


def describe_simulation(options: SimulationOptions) -> tuple[Stated, ...]:
    """Every number of the simulation with its source (``numbers.csv``), in order: cohort first, then features.

    >>> rows = describe_simulation(SimulationOptions())
    >>> rows[1].value, rows[1].kind
    ('10,450', 'derived')
    """
    values = {
        **{**vars(options), **vars(options.difficulty)},
        **{"mean_patches": MEAN_PATCHES[options.cohort], "log_sd": LOG_SD_PATCHES, "limits": PATCHES_LIMITS},
        **{"patch_pixels": PATCH_PIXELS, "microns_per_pixel": MICRONS_PER_PIXEL, "patch_mm2": PATCH_MM2, "rank": RANK},
        **{"bracs_share": BRACS_SHARE, "bracs_milder": BRACS_MILDER, "largest_share": LARGEST_SHARE},
        # variance of the types' means, 1, and of patches, 1, in each dimension, over that with the noise
        "tissue_share": 1 / (1 + options.difficulty.noise**2 / 2),
    }
    with Path(__file__).with_name("numbers.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("cohort") in (options.cohort, "both")]
    return tuple(Stated(**{name: text.format(**values) for name, text in row.items()}) for row in rows)


def log_mean_patches(cohort: CohortName) -> float:
    """Mean of the logarithm of the number of patches, from the mean of the number."""
    return math.log(MEAN_PATCHES[cohort]) - LOG_SD_PATCHES**2 / 2


@dataclass(frozen=True)
class SlideRow:
    """One slide of a table.

    Attributes:
        name, patient: of the slide.
        label: negative, itc, micro, macro; or N, PB, UDH, FEA, ADH, DCIS, IC.
        center: number or name; empty in BRACS.
        part: train, val or test; empty in CAMELYON-17.
    """

    name: str
    patient: str
    label: str
    center: str = ""
    part: str = ""


def labels_of(cohort: CohortName) -> tuple[str, ...]:
    """Labels of a cohort's slides, from the mildest to the worst."""
    return CAMELYON17_CLASSES if cohort == "camelyon17" else BRACS_LABELS


def read_table(path: str | Path, cohort: CohortName) -> tuple[SlideRow, ...]:
    """Rows of a CSV with the columns that ``COLUMNS`` names; ``label_coarse`` follows from ``label_fine``."""
    path = Path(path)
    if not path.is_file():
        raise BagError(f"{path}: no such table of slides; give its CSV, or none for a table with the same counts")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS[cohort] if name != "label_coarse" and name not in (reader.fieldnames or ())]
        if missing:
            raise BagError(f"{path}: no column {missing[0]!r}; a table of {cohort} has {', '.join(COLUMNS[cohort])}")
        label, place, name = (
            ("label", "center", "center") if cohort == "camelyon17" else ("label_fine", "part", "split")
        )
        rows = tuple(SlideRow(row["slide_id"], row["patient_id"], row[label], **{place: row[name]}) for row in reader)
    known, names = labels_of(cohort), set()
    for row in rows:
        if row.label not in known:
            raise BagError(f"{path}: slide {row.name} has the label {row.label!r}; known are {', '.join(known)}")
        if row.name in names:
            raise BagError(f"{path}: slide {row.name} occurs twice; keep one row a slide")
        names.add(row.name)
    if not rows:
        raise BagError(f"{path}: no rows; a table has one row a slide")
    return rows


def make_table(cohort: CohortName, seed: int = 0) -> tuple[SlideRow, ...]:
    """A table with the real cohort's numbers of slides by class and center or part; who has what is drawn.

    >>> rows = make_table("camelyon17")
    >>> len(rows), len({row.patient for row in rows}), sum(row.label == "itc" for row in rows)
    (500, 100, 36)
    """
    random = stream(seed, "table", cohort)
    rows = []
    if cohort == "camelyon17":
        for center, counts in enumerate(_CENTERS):
            for index, label in enumerate(random.permutation(np.repeat(CAMELYON17_CLASSES, counts))):
                patient = f"simulated_{20 * center + index // 5:03d}"
                rows.append(SlideRow(f"{patient}_node_{index % 5}", patient, str(label), center=str(center)))
        return tuple(rows)
    for part, part_counts in _PARTS.items():
        for index, label in enumerate(random.permutation(np.repeat(BRACS_LABELS, part_counts))):
            patient = f"simulated_{part}_{index // _BRACS_SLIDES_A_PATIENT:03d}"
            rows.append(SlideRow(f"simulated_{part}_{index:03d}", patient, str(label), part=part))
    return tuple(rows)


def write_table(rows: Sequence[SlideRow], path: Path, cohort: CohortName) -> None:
    """Write rows as a CSV that :func:`read_table` reads, with the columns of the real table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS[cohort])
        for row in rows:
            if cohort == "camelyon17":
                writer.writerow((row.name, row.patient, row.center, row.label))
            else:
                writer.writerow((row.name, row.patient, row.part, row.label, BRACS_COARSE[row.label]))


def stream(seed: int, *words: str) -> np.random.Generator:
    """The stream that a seed and some words name; other words, another stream.

    >>> stream(0, "slide", "a").random() == stream(0, "slide", "a").random()
    True
    >>> stream(0, "slide", "a").random() == stream(0, "slide", "b").random()
    False
    """
    # lengths first: ("ab", "c") and ("a", "bc") are different names
    key = "".join(f"{len(word)}:{word}" for word in (str(seed), *words))
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(int.from_bytes(digest, "big"))))
