"""How many patches a slide and its lesions have, and where on the slide they lie."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ncmi.slides.simulation import options as numbers
from ncmi.slides.simulation.options import SimulationOptions, SlideRow, log_mean_patches, stream

Cells = npt.NDArray[np.int64]
_PIECES = (1, 3)
_ROUGHNESS = 0.25
_TISSUE_SHARE = 0.4
"""Of the grid that is tissue."""
_STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))
_LEAST_PATCHES = 16


@dataclass(frozen=True)
class Lesion:
    """One lesion of a slide.

    Attributes:
        kind: "tumor", or BRACS' label of it.
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
    size = math.exp(random.normal(log_mean_patches(options.cohort), numbers.LOG_SD_PATCHES))
    instances = int(min(max(size, numbers.PATCHES_LIMITS[0]), numbers.PATCHES_LIMITS[1]))
    draw = _metastases if options.cohort == "camelyon17" else _breast_lesions
    lesions = draw(random, slide.label, instances)
    kept = max(_LEAST_PATCHES, round(instances * options.scale))
    return SlidePlan(kept, scaled(lesions, options.scale, int(numbers.LARGEST_SHARE * kept)))


def _metastases(random: np.random.Generator, label: str, instances: int) -> list[Lesion]:
    if label == "negative":
        return []
    further, mean = numbers.SATELLITES[label]
    lesions = []
    for kind in [label, *[further] * int(random.poisson(mean))]:
        diameter, aspect = _log_uniform(random, numbers.DIAMETERS_MM[kind]), random.uniform(*numbers.ASPECT)
        area = math.pi / 4 * diameter**2 * aspect / numbers.PATCH_MM2
        lesions.append(Lesion("tumor", max(1, round(area)), aspect, min(1.0, area)))
    return lesions


def _breast_lesions(random: np.random.Generator, label: str, instances: int) -> list[Lesion]:
    worst = numbers.BRACS_LABELS.index(label)
    milder = [kind for kind in numbers.BRACS_LABELS[1:worst] if random.random() < numbers.BRACS_MILDER]
    lesions = []
    for kind in [*([label] if worst else []), *milder]:
        share = _log_uniform(random, numbers.BRACS_SHARE)
        lesions.append(Lesion(kind, max(1, round(share * instances)), random.uniform(*numbers.ASPECT)))
    return lesions


def _log_uniform(random: np.random.Generator, limits: tuple[float, float]) -> float:
    return math.exp(random.uniform(math.log(limits[0]), math.log(limits[1])))


def scaled(lesions: Sequence[Lesion], scale: float, most: int) -> tuple[Lesion, ...]:
    """Lesions of a slide of which a share is kept. The first one, which its label tells of, never vanishes."""
    kept: list[Lesion] = []
    for lesion in lesions:
        patches = min(max(round(scale * lesion.patches), 0 if kept else 1), most)
        if patches > 0:
            kept.append(replace(lesion, patches=patches))
            most -= patches
    return tuple(kept)


def tissue_cells(random: np.random.Generator, count: int) -> Cells:
    """``[count, 2]`` cells (column, row) of one to three rough ellipses of tissue, row by row."""
    side = math.ceil(math.sqrt(count / _TISSUE_SHARE)) + 1
    row, column = np.mgrid[0:side, 0:side].astype(np.float32) / side
    distance = np.full((side, side), np.inf, np.float32)
    for _ in range(random.integers(_PIECES[0], _PIECES[1], endpoint=True)):
        x, y = random.uniform(0.3, 0.7, 2)
        width, height = random.uniform(0.5, 1.0, 2)
        distance = np.minimum(distance, np.hypot((column - x) / width, (row - y) / height))
    # a few waves make the outline uneven without holes of single cells
    for _ in range(4):
        (x, y), phase = random.normal(0, 12, 2), random.uniform(0, 2 * math.pi)
        distance += _ROUGHNESS / 8 * np.sin(x * column + y * row + phase, dtype=np.float32)
    chosen = np.sort(np.argpartition(distance.ravel(), count - 1)[:count])
    return np.stack([chosen % side, chosen // side], 1).astype(np.int64)


def grow(random: np.random.Generator, cells: Cells, free: npt.NDArray[np.bool_], count: int, aspect: float) -> Cells:
    """Indices of ``count`` free cells that form one connected patch of an ellipse's shape with an uneven border.

    Cells join in order of their distance from a center, each beside one that has joined. Where the tissue around is
    used up, the lesion goes on in the nearest free cell.

    Args:
        cells: ``[N, 2]`` cells of tissue.
        free: ``[N]``, cells that may be taken, at least ``count``.
        count: of cells.
        aspect: width over length of the ellipse.
    """
    start = int(random.choice(np.flatnonzero(free)))
    angle = random.uniform(0, math.pi)
    offset = (cells - cells[start]).astype(np.float64)
    along = math.cos(angle) * offset[:, 0] + math.sin(angle) * offset[:, 1]
    across = math.cos(angle) * offset[:, 1] - math.sin(angle) * offset[:, 0]
    distance = np.hypot(along, across / aspect) * random.uniform(0.8, 1.2, len(cells))
    index = {(int(x), int(y)): at for at, (x, y) in enumerate(cells.tolist())}
    order = iter(np.argsort(np.where(free, distance, np.inf)).tolist())
    queued, queue = {start}, [(0.0, start)]
    taken: list[int] = []
    while len(taken) < count:
        if not queue:
            far = next(at for at in order if at not in queued)
            queued.add(far)
            queue.append((float(distance[far]), far))
        _, at = heapq.heappop(queue)
        taken.append(at)
        x, y = cells[at].tolist()
        for step_x, step_y in _STEPS:
            beside = index.get((x + step_x, y + step_y))
            if beside is not None and free[beside] and beside not in queued:
                queued.add(beside)
                heapq.heappush(queue, (float(distance[beside]), beside))
    return np.array(taken, np.int64)


def regions(random: np.random.Generator, cells: Cells, shares: npt.NDArray[np.float64], seeds: int) -> Cells:
    """``[N]`` type of tissue of each cell: that of the nearest of some random seeds, whose types have these shares."""
    at = cells[random.integers(len(cells), size=seeds)].astype(np.float32)
    types = random.choice(len(shares), size=seeds, p=shares)
    place = cells.astype(np.float32)
    # ‖p − s‖² without the term that all seeds share
    nearest = np.argmin((at**2).sum(1) - 2 * place @ at.T, 1)
    return np.asarray(types[nearest], np.int64)
