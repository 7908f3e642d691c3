"""Where tissue and lesions lie on a slide: cells of a grid, one a patch."""

from __future__ import annotations

import heapq
import math

import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.int64]

_PIECES = (1, 3)
_ROUGHNESS = 0.25
_TISSUE_SHARE = 0.4
"""Of the grid that is tissue."""
_STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))


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

    Cells join in order of their distance from a centre, each beside one that has joined. Where the tissue around is
    used up, the lesion goes on in the nearest free cell.

    Args:
        random: what draws centre, direction and border.
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
