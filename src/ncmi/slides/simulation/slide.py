"""One simulated slide: its features, coordinates, and the truth about every patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ncmi.slides.simulation.geometry import Cells, grow, regions, tissue_cells
from ncmi.slides.simulation.lesions import SlidePlan, plan_slide
from ncmi.slides.simulation.numbers import LEVEL0_MICRONS_PER_PIXEL, MICRONS_PER_PIXEL, PATCH_PIXELS
from ncmi.slides.simulation.options import RANK, Difficulty, SimulationOptions
from ncmi.slides.simulation.randomness import stream
from ncmi.slides.simulation.table import SlideRow
from ncmi.slides.simulation.tissue import RESEMBLED, Array, Palette, centre_effect, palette

PATCH_LEVEL0 = round(PATCH_PIXELS * MICRONS_PER_PIXEL / LEVEL0_MICRONS_PER_PIXEL)
"""Side of a patch in pixels of level 0."""
_SEEDS = 48
_STRAY = 0.1
"""Share of patches whose tissue is not that of their region."""
_BORDER = (0.5, 1.0)


@dataclass(frozen=True, eq=False)
class SimulatedSlide:
    """A slide that exists nowhere but here.

    Attributes:
        row: its row in the table.
        features: ``[N, D]`` float16.
        coords: ``[N, 2]`` int64, pixels of level 0.
        lesion: ``[N]`` bool, patches that hold any of the lesion that the label tells of.
        component: ``[N]`` uint8, what each patch shows; ``components`` names them.
        mimic: ``[N]`` bool, normal patches that look like lesion in part.
    """

    row: SlideRow
    features: npt.NDArray[np.float16]
    coords: Cells
    lesion: npt.NDArray[np.bool_]
    component: npt.NDArray[np.uint8]
    mimic: npt.NDArray[np.bool_]
    components: tuple[str, ...]


def simulate_slide(options: SimulationOptions, row: SlideRow, plan: SlidePlan | None = None) -> SimulatedSlide:
    """Make one slide. It depends on the options and its own row alone, not on other slides.

    Args:
        options: of the simulation.
        row: of the slide.
        plan: its numbers of patches; by default those of :func:`plan_slide`.

    >>> slide = simulate_slide(SimulationOptions(feature_dim=32, scale=0.05), SlideRow("a", "p", "itc", centre="3"))
    >>> slide.features.shape[1], slide.features.dtype, bool(slide.lesion.any())
    (32, dtype('float16'), True)
    """
    plan, colours, hard = plan or plan_slide(options, row), palette(options), options.difficulty
    random = stream(options.seed, options.cohort, row.name, "slide")
    cells = tissue_cells(random, plan.instances)
    component, weight, taken = _components(random, hard, plan, colours, cells)
    latent = _latent(random, hard, plan, colours, component, weight, taken)
    offset, factors = centre_effect(options, row.centre)
    latent += offset + hard.slide_shift * random.standard_normal(RANK, np.float32)
    # heavy tails: all that is random in a patch is scaled by one factor
    scale = np.sqrt(hard.tail / random.chisquare(hard.tail, (plan.instances, 1))).astype(np.float32)
    latent += scale * random.standard_normal((plan.instances, RANK), np.float32)
    features = random.standard_normal((plan.instances, options.feature_dim), np.float32)
    features *= hard.noise * scale
    features += latent @ colours.directions
    features *= factors
    is_lesion = taken >= 0
    kinds = np.array([colours.components.index(lesion.kind) for lesion in plan.lesions] or [-1])
    shown = np.where(is_lesion, kinds[taken], component).astype(np.uint8)
    return SimulatedSlide(
        row,
        features.astype(np.float16),
        cells * PATCH_LEVEL0,
        is_lesion & (shown == kinds[0]),
        shown,
        (weight > 0) & ~is_lesion,
        colours.components,
    )


def _components(
    random: np.random.Generator, hard: Difficulty, plan: SlidePlan, colours: Palette, cells: Cells
) -> tuple[Cells, Array, Cells]:
    """Of each patch: tissue type, how far it goes towards lesion (0 to 1), and its lesion's number or −1."""
    count = plan.instances
    shares = random.dirichlet(colours.shares)
    tissue = regions(random, cells, shares, _SEEDS)
    stray = random.random(count) < _STRAY
    tissue[stray] = random.choice(len(shares), size=int(stray.sum()), p=shares)
    # a slide has many mimics or few: an exponential share
    mimic = random.random(count) < min(0.5, hard.mimics * random.exponential())
    weight = np.where(mimic, hard.mimic_strength * random.random(count), 0).astype(np.float32)
    tissue[mimic] = RESEMBLED
    taken = np.full(count, -1, np.int64)
    for number, lesion in enumerate(plan.lesions):
        inside = grow(random, cells, taken < 0, lesion.patches, lesion.aspect)
        taken[inside] = number
        weight[inside] = np.sqrt(lesion.coverage)
        if lesion.patches > 1:
            # the last to join are the border, which the lesion covers in part
            border = inside[-max(1, round(np.sqrt(np.pi * lesion.patches))) :]
            weight[border] = random.uniform(*_BORDER, len(border))
    return tissue, weight, taken


def _latent(
    random: np.random.Generator,
    hard: Difficulty,
    plan: SlidePlan,
    colours: Palette,
    tissue: Cells,
    weight: Array,
    taken: Cells,
) -> Array:
    """``[N, 24]`` means of the patches: tissue, moved towards the lesion that lies there or that they mimic."""
    lesions = colours.means[len(colours.shares) :]
    # one deviation for each kind of lesion in a slide: metastases of one tumour resemble each other
    deviation = random.standard_normal(lesions.shape, np.float32)
    targets = lesions + hard.lesion_spread / np.sqrt(RANK, dtype=np.float32) * deviation
    kinds = [colours.components.index(lesion.kind) - len(colours.shares) for lesion in plan.lesions]
    # the last entry, which −1 finds, is what this slide's mimics resemble
    kinds.append(int(random.integers(len(lesions))))
    start = colours.means[tissue]
    target = targets[np.array(kinds)[taken]]
    moved: Array = start + weight[:, None] * (target - start)
    return moved
