"""How many patches a slide has, and how many of them its lesions take."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ncmi.slides.simulation.numbers import (
    ASPECT,
    BRACS_MILDER,
    BRACS_SHARE,
    DIAMETERS_MM,
    LARGEST_SHARE,
    LOG_SD_PATCHES,
    PATCH_MM2,
    PATCHES_LIMITS,
    SATELLITES,
    log_mean_patches,
)
from ncmi.slides.simulation.options import SimulationOptions
from ncmi.slides.simulation.randomness import stream
from ncmi.slides.simulation.table import BRACS_LABELS, SlideRow

_LEAST_PATCHES = 16


@dataclass(frozen=True)
class Lesion:
    """One lesion of a slide.

    Attributes:
        kind: "tumour", or BRACS' label of it.
        patches: that it touches, at least 1.
        aspect: its width over its length.
        coverage: share of its patches' area that it covers; below 1 for a lesion smaller than a patch.
    """

    kind: str
    patches: int
    aspect: float
    coverage: float = 1.0


@dataclass(frozen=True)
class SlidePlan:
    """A slide before its features are drawn.

    Attributes:
        instances: N, number of patches.
        lesions: first the one that the slide's label tells of.
    """

    instances: int
    lesions: tuple[Lesion, ...]

    @property
    def lesion_patches(self) -> int:
        return sum(lesion.patches for lesion in self.lesions)


def plan_slide(options: SimulationOptions, slide: SlideRow) -> SlidePlan:
    """Numbers of patches of a slide and of its lesions; the features of :func:`simulate_slide` follow it.

    Lesions take at most 70 % of a slide.

    >>> plan_slide(SimulationOptions(), SlideRow("a", "p", "negative")).lesions
    ()
    """
    random = stream(options.seed, options.cohort, slide.name, "plan")
    # one draw each, whatever the label: a slide's size does not follow its label
    size = math.exp(random.normal(log_mean_patches(options.cohort), LOG_SD_PATCHES))
    instances = int(min(max(size, PATCHES_LIMITS[0]), PATCHES_LIMITS[1]))
    draw = _metastases if options.cohort == "camelyon17" else _breast_lesions
    lesions = draw(random, slide.label, instances)
    kept = max(_LEAST_PATCHES, round(instances * options.scale))
    return SlidePlan(kept, _scaled(lesions, options.scale, int(LARGEST_SHARE * kept)))


def _metastases(random: np.random.Generator, label: str, instances: int) -> list[Lesion]:
    if label == "negative":
        return []
    further, mean = SATELLITES[label]
    kinds = [label, *[further] * int(random.poisson(mean))]
    return [_metastasis(random, DIAMETERS_MM[kind]) for kind in kinds]


def _metastasis(random: np.random.Generator, limits: tuple[float, float]) -> Lesion:
    diameter = _log_uniform(random, limits)
    aspect = random.uniform(*ASPECT)
    area = math.pi / 4 * diameter**2 * aspect / PATCH_MM2
    return Lesion("tumour", max(1, round(area)), aspect, min(1.0, area))


def _breast_lesions(random: np.random.Generator, label: str, instances: int) -> list[Lesion]:
    worst = BRACS_LABELS.index(label)
    milder = [kind for kind in BRACS_LABELS[1:worst] if random.random() < BRACS_MILDER]
    found = []
    for kind in [*([label] if worst else []), *milder]:
        share = _log_uniform(random, BRACS_SHARE)
        found.append(Lesion(kind, max(1, round(share * instances)), random.uniform(*ASPECT)))
    return found


def _log_uniform(random: np.random.Generator, limits: tuple[float, float]) -> float:
    return math.exp(random.uniform(math.log(limits[0]), math.log(limits[1])))


def _scaled(lesions: list[Lesion], scale: float, most: int) -> tuple[Lesion, ...]:
    """Lesions of a slide of which a share is kept. The first one, which its label tells of, never vanishes."""
    room = most
    kept: list[Lesion] = []
    for lesion in lesions:
        patches = min(max(round(scale * lesion.patches), 0 if kept else 1), room)
        if patches > 0:
            kept.append(replace(lesion, patches=patches))
            room -= patches
    return tuple(kept)
