"""Features made drawable: unit length, a bounded number of points, projected onto two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncmi.reports.records import Outputs

# more points than this are no clearer, only slower
MOST_POINTS = 500
# colours of more classes than this cannot be told apart: a few of them are drawn
MOST_CLASSES, FEW_CLASSES = 30, 10
_ITERATIONS = 500


@dataclass(frozen=True)
class Cloud:
    """Unit-length features ``[N, D]`` of one run with labels and errors; of many, a seeded sample."""

    title: str
    directions: NDArray[np.float64]
    labels: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    total: int


def drawn_classes(class_names: Sequence[str]) -> list[int]:
    """The classes that pictures show: all, or of very many the first ten by name.

    >>> drawn_classes(["b", "a"]), drawn_classes([str(9999 - i) for i in range(100)])[:3]
    ([0, 1], [99, 98, 97])
    """
    everything = list(range(len(class_names)))
    if len(everything) <= MOST_CLASSES:
        return everything
    return sorted(everything, key=lambda index: class_names[index])[:FEW_CLASSES]


def of_classes(outputs: Outputs, classes: Sequence[int]) -> Outputs:
    """The samples of some classes, which are numbered anew in the given order; predictions of others become −1."""
    place = np.full(max(max(classes), *(int(p.max(initial=0)) for p in _decided(outputs))) + 1, -1, dtype=np.int64)
    place[list(classes)] = np.arange(len(classes))
    kept = place[outputs.labels] >= 0
    return Outputs(
        labels=place[outputs.labels[kept]],
        predictions={name: place[predicted[kept]] for name, predicted in outputs.predictions.items()},
        features=outputs.features[kept],
    )


def few_classes(
    outputs: Sequence[Outputs], class_names: Sequence[str]
) -> tuple[list[Outputs], tuple[str, ...], tuple[str, ...]]:
    """Outputs of the drawn classes alone, these classes' names, and the same names again if some were left out."""
    classes = drawn_classes(class_names)
    if len(classes) == len(class_names):
        return list(outputs), tuple(class_names), ()
    names = tuple(class_names[index] for index in classes)
    return [of_classes(one, classes) for one in outputs], names, names


def _decided(outputs: Outputs) -> tuple[NDArray[np.int64], ...]:
    return outputs.labels, *outputs.predictions.values()


def cloud(title: str, outputs: Outputs, readout: str) -> Cloud:
    """Features divided by their length; those of length 0 or not finite are left out."""
    features = np.asarray(outputs.features, dtype=np.float64)
    length = np.linalg.norm(features, axis=1)
    kept = np.flatnonzero(np.isfinite(length) & (length > 0))
    if len(kept) > MOST_POINTS:
        kept = np.sort(np.random.default_rng(0).choice(kept, MOST_POINTS, replace=False))
    predicted = outputs.predictions.get(readout, outputs.labels)
    return Cloud(
        title=title,
        directions=features[kept] / length[kept, None],
        labels=outputs.labels[kept],
        wrong=(predicted != outputs.labels)[kept],
        total=len(features),
    )


def one_thread() -> AbstractContextManager[Any]:
    """Keep the libraries loaded so far to one thread: beside other work, waiting threads cost up to 30 times more."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits


def principal_components(directions: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The two principal components ``[N, 2]`` and the share of the variance (0..1) that they carry."""
    centred = directions - directions.mean(axis=0)
    with one_thread():
        left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(directions), 2))
    width = min(2, len(singular))
    points[:, :width] = left[:, :width] * singular[:width]
    variance = singular**2
    total = float(variance.sum())
    return points, float(variance[:2].sum()) / total if total > 0 else 1.0


def neighbourhoods(directions: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """t-SNE of the directions ``[N, 2]``; None where there are too few points, or no spread, for one."""
    if len(directions) < 30 or np.ptp(directions, axis=0).max() < 1e-9:
        return None
    from sklearn.manifold import TSNE

    tsne = TSNE(
        perplexity=min(30.0, len(directions) / 6),
        init=_start(directions),
        learning_rate="auto",
        max_iter=_ITERATIONS,
        random_state=0,
        n_jobs=1,
    )
    with one_thread():
        return np.asarray(tsne.fit_transform(directions.astype(np.float32)), dtype=float)


def _start(directions: NDArray[np.float64]) -> NDArray[np.float32]:
    """The principal components, small: a start that does not depend on chance."""
    points, _ = principal_components(directions)
    return np.asarray(1e-4 * points / max(float(points[:, 0].std()), 1e-12), dtype=np.float32)
