"""One simulated slide: what its tissue looks like, its features and coordinates, and the truth about every patch."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ncmi.slides.simulation import options as numbers
from ncmi.slides.simulation.lesions import Cells, SlidePlan, grow, plan_slide, regions, tissue_cells
from ncmi.slides.simulation.options import BRACS_LABELS, RANK, Difficulty, SimulationOptions, SlideRow, stream

Array = npt.NDArray[np.float32]

TISSUES = {
    "camelyon17": ("lymphocytes", "sinus histiocytes", "germinal center", "stroma", "fat"),
    "bracs": ("stroma", "normal ducts", "fat", "inflammation", "necrosis"),
}
"""Normal tissue of a cohort. Lesions lie beside the second, which is also what mimics them."""
RESEMBLED = 1
_SHARES = {"camelyon17": (5.0, 1.5, 1.0, 1.5, 2.0), "bracs": (4.0, 2.0, 3.0, 1.0, 0.5)}
# of BRACS' lesions along and across the way from benign to malignant, in parts of the lesion's distance
_GRADES = {"PB": 0.25, "UDH": 0.32, "FEA": 0.44, "ADH": 0.52, "DCIS": 0.67, "IC": 0.77}
_ACROSS = 0.24
PATCH_LEVEL0 = round(numbers.PATCH_PIXELS * numbers.MICRONS_PER_PIXEL / numbers.LEVEL0_MICRONS_PER_PIXEL)
"""Side of a patch in pixels of level 0."""
_SEEDS = 48
_STRAY = 0.1
"""Share of patches whose tissue is not that of their region."""
_BORDER = (0.5, 1.0)


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


@lru_cache(maxsize=4)
def _palette(options: SimulationOptions) -> Palette:
    cohort, seed, dim = options.cohort, options.seed, options.feature_dim
    random = stream(seed, cohort, "palette")
    tissues = TISSUES[cohort]
    means = random.normal(size=(len(tissues), RANK))
    # the QR of a tall matrix: orthonormal columns
    frame = np.linalg.qr(random.normal(size=(RANK, RANK)))[0]
    lesions: tuple[str, ...] = ("tumor",)
    offsets = [frame[0]]
    if cohort == "bracs":
        lesions = BRACS_LABELS[1:]
        offsets = [_GRADES[name] * frame[0] + _ACROSS * frame[1 + at] for at, name in enumerate(lesions)]
    means = np.concatenate([means, means[RESEMBLED] + options.difficulty.lesion_distance * np.array(offsets)])
    directions = np.linalg.qr(random.normal(size=(dim, RANK)))[0].T * np.sqrt(dim / (2 * RANK))
    return Palette(
        (*tissues, *lesions), means.astype(np.float32), directions.astype(np.float32), np.array(_SHARES[cohort])
    )


def center_effect(options: SimulationOptions, center: str) -> tuple[Array, Array]:
    """(offset ``[24]``, factors ``[D]``) of a center; nothing for a cohort without centers."""
    if not center or options.difficulty.center_shift == 0:
        return np.zeros(RANK, np.float32), np.ones(options.feature_dim, np.float32)
    random = stream(options.seed, options.cohort, "centre", center)  # the word names the stream of numbers
    offset = options.difficulty.center_shift * random.normal(size=RANK)
    factors = np.exp(options.difficulty.center_shift / 10 * random.normal(size=options.feature_dim))
    return offset.astype(np.float32), factors.astype(np.float32)


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
        plan: its numbers of patches; by default those of :func:`plan_slide`.

    >>> slide = simulate_slide(SimulationOptions(feature_dim=32, scale=0.05), SlideRow("a", "p", "itc", center="3"))
    >>> slide.features.shape[1], slide.features.dtype, bool(slide.lesion.any())
    (32, dtype('float16'), True)
    """
    plan, colors, hard = plan or plan_slide(options, row), _palette(options), options.difficulty
    random = stream(options.seed, options.cohort, row.name, "slide")
    cells = tissue_cells(random, plan.instances)
    component, weight, taken = _components(random, hard, plan, colors, cells)
    latent = _latent(random, hard, plan, colors, component, weight, taken)
    offset, factors = center_effect(options, row.center)
    latent += offset + hard.slide_shift * random.standard_normal(RANK, np.float32)
    # heavy tails: all that is random in a patch is scaled by one factor
    scale = np.sqrt(hard.tail / random.chisquare(hard.tail, (plan.instances, 1))).astype(np.float32)
    latent += scale * random.standard_normal((plan.instances, RANK), np.float32)
    features = random.standard_normal((plan.instances, options.feature_dim), np.float32)
    features *= hard.noise * scale
    features += latent @ colors.directions
    features *= factors
    is_lesion = taken >= 0
    kinds = np.array([colors.components.index(lesion.kind) for lesion in plan.lesions] or [-1])
    shown = np.where(is_lesion, kinds[taken], component).astype(np.uint8)
    return SimulatedSlide(
        row,
        features.astype(np.float16),
        cells * PATCH_LEVEL0,
        is_lesion & (shown == kinds[0]),
        shown,
        (weight > 0) & ~is_lesion,
        colors.components,
    )


def _components(
    random: np.random.Generator, hard: Difficulty, plan: SlidePlan, colors: Palette, cells: Cells
) -> tuple[Cells, Array, Cells]:
    """Of each patch: tissue type, how far it goes towards lesion (0 to 1), and its lesion's number or −1."""
    count = plan.instances
    shares = random.dirichlet(colors.shares)
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
    colors: Palette,
    tissue: Cells,
    weight: Array,
    taken: Cells,
) -> Array:
    """``[N, 24]`` means of the patches: tissue, moved towards the lesion that lies there or that they mimic."""
    lesions = colors.means[len(colors.shares) :]
    # one deviation for each kind of lesion in a slide: metastases of one tumor resemble each other
    deviation = random.standard_normal(lesions.shape, np.float32)
    targets = lesions + hard.lesion_spread / np.sqrt(RANK, dtype=np.float32) * deviation
    kinds = [colors.components.index(lesion.kind) - len(colors.shares) for lesion in plan.lesions]
    # the last entry, which −1 finds, is what this slide's mimics resemble
    kinds.append(int(random.integers(len(lesions))))
    start = colors.means[tissue]
    target = targets[np.array(kinds)[taken]]
    moved: Array = start + weight[:, None] * (target - start)
    return moved
