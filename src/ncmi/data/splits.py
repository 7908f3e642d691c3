"""Training, validation and test parts of a data set; and training data damaged on purpose, to study robustness."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ncmi.data.columns import NONE, PART_NAMES, TEST, TRAIN, VALIDATION
from ncmi.errors import listing

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Parts = npt.NDArray[np.int8]
NoiseKind = Literal["symmetric", "pair"]
_TRIES = 32


class Labeled(Protocol):
    """What of a data set decides its split.

    ``parts``, ``groups`` and ``times`` are ``[N]``: given parts by the numbers above, what a sample belongs to, and
    when it is from; None where nothing says it.
    """

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def class_names(self) -> Sequence[str]: ...
    @property
    def parts(self) -> Parts | None: ...
    @property
    def groups(self) -> Array | None: ...
    @property
    def times(self) -> Array | None: ...


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the three parts: int64, sorted, disjoint; together the whole data set unless training is limited."""

    train: Tensor
    validation: Tensor
    test: Tensor

    @property
    def parts(self) -> dict[str, Tensor]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_dataset(
    dataset: Labeled,
    *,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    folds: int = 0,
    fold: int = 0,
    train_per_class: int | None = None,
    train_on_all: bool = False,
    imbalance: float = 1.0,
    seed: int = 0,
) -> Split:
    """Training, validation and test part, the same for the same seed on every platform and with every NumPy.

    The test part is fold number ``fold``, or what the data set's ``parts`` say (one of these alone); else the latest
    samples, where there are ``times``; a random part. The validation part is what ``parts`` say, else it is drawn from
    what is left: the latest of it, where there are ``times``, else at random. Samples of one group are never on two
    sides, nor are samples of one time.

    Random parts have each class in its fraction to within one sample, as long as that leaves it one sample in every
    part; of whole groups, as nearly as these allow.

    Args:
        dataset: of which only labels, parts, groups and times are looked at.
        validation_fraction: share of samples for selection, in [0, 1); of what lies outside of a given test part.
        test_fraction: share of samples that are read once, at the end, in [0, 1); 0 for none.
        folds, fold: stratified; 0 folds for none.
        train_per_class: keep so many training samples of each class, drawn at random; the parts are then not the
            whole data set.
        train_on_all: the training part takes the validation part's samples in as well, which is then empty.
        imbalance: make the training part, after all this, a long tail of this ratio, drawn at random; see
            :func:`long_tail`. Validation and test stay as they are.
        seed: 0 or larger.

    Raises:
        ValueError: for a class with fewer samples than there are parts to draw, fractions that leave nothing to train
            on, a class that the training part lacks, a class with fewer training samples than ``train_per_class``,
            groups on two sides of given parts, an imbalance below 1, or a negative seed.

    Example:
        >>> from ncmi.data.load import load_dataset
        >>> split = split_dataset(load_dataset("iris"), seed=1)
        >>> len(split.train), len(split.validation), len(split.test)
        (98, 22, 30)
    """
    if seed < 0:
        raise ValueError(f"seed={seed}: choose 0 or larger")
    parts = np.full(len(dataset.labels), TRAIN, np.int8)
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    if folds and dataset.parts is not None:
        raise ValueError(
            f"{dataset.name!r} says itself which samples are for training and which for test: leave --data.folds out"
        )
    if folds:
        parts[_folds(dataset, folds, seed) == fold] = TEST
    elif dataset.parts is not None:
        parts = dataset.parts.copy()
        _check_groups(dataset, parts)
    for part, name in ((VALIDATION, "validation_fraction"), (TEST, "test_fraction")):
        if (parts == part).any():  # given: it stays as it is
            del fractions[name]
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ValueError(f"{name}={fraction}: choose a fraction from 0 to below 1")
    if sum(fractions.values()) >= 1:
        given = " and ".join(f"{name}={fraction}" for name, fraction in fractions.items())
        raise ValueError(f"{given} leave nothing to train on: choose fractions whose sum is below 1")
    pool = np.flatnonzero(parts == TRAIN)
    draw = _latest if dataset.times is not None else _grouped if dataset.groups is not None else _stratified
    draw(dataset, parts, fractions.get("validation_fraction", 0.0), fractions.get("test_fraction", 0.0), seed, folds)
    if train_on_all:
        parts[parts == VALIDATION] = TRAIN
    _check_training(dataset, parts)
    _reduce(dataset, parts, pool, train_per_class, imbalance, seed)

    def indices(part: int) -> Tensor:
        return torch.from_numpy(np.flatnonzero(parts == part).astype(np.int64))

    return Split(train=indices(TRAIN), validation=indices(VALIDATION), test=indices(TEST))


def parts_to_draw(parts: Parts | None, *, validation_fraction: float, test_fraction: float, folds: int) -> int:
    """How many parts are drawn beside the training part, and so take a sample of each class.

    Example:
        >>> parts_to_draw(None, validation_fraction=0.15, test_fraction=0.2, folds=0)
        2
    """
    given = set() if folds or parts is None else set(parts.tolist())
    test = folds > 0 or (test_fraction > 0 and TEST not in given)
    return int(test) + int(validation_fraction > 0 and VALIDATION not in given)


def _stratified(dataset: Labeled, parts: Parts, validation: float, test: float, seed: int, folds: int) -> None:
    """Draw parts from the training part, each class in its fraction."""
    pool = np.flatnonzero(parts == TRAIN)
    labels = dataset.labels.numpy()[pool]
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    drawn = (validation > 0) + (test > 0)
    if not folds and len(few := np.flatnonzero(counts <= drawn)):
        samples = "1 sample" if counts[few[0]] == 1 else f"{counts[few[0]]} samples"
        given = " and ".join(PART_NAMES[part] for part in (VALIDATION, TEST) if (parts == part).any())
        where = f" outside its own {given} part" if given else ""
        others = f" ({len(few)} classes have too few)" if len(few) > 1 else ""
        needs = f"one in each of {drawn + 1} parts" if drawn else "at least one to train on"
        raise ValueError(
            f"class {dataset.class_names[few[0]]!r} of {dataset.name!r} has {samples}{where}, but needs {needs}"
            f"{others}: add samples, merge the class with another, or leave such classes out (--data.bad skip)"
        )
    tests = _allocate(counts, test, counts - 1 - (validation > 0))
    validations = _allocate(counts, validation, np.maximum(counts - tests - 1, 0))
    order = _random_order(labels, seed)
    rank = _rank(counts)
    in_test = rank < np.repeat(tests, counts)
    in_validation = ~in_test & (rank < np.repeat(tests + validations, counts))
    parts[pool[order[in_test]]] = TEST
    parts[pool[order[in_validation]]] = VALIDATION


def _grouped(dataset: Labeled, parts: Parts, validation: float, test: float, seed: int, folds: int) -> None:
    """Draw parts of whole groups from the training part."""
    assert dataset.groups is not None
    labels = dataset.labels.numpy()
    for number, (part, share) in enumerate(((TEST, test), (VALIDATION, validation)), 1):
        pool = np.flatnonzero(parts == TRAIN)
        # of what is left, so that it is the share of the whole
        left = share / (1 - test) if part == VALIDATION else share
        chosen = draw_groups(dataset.groups[pool], labels[pool], left, (seed, number, folds))
        parts[pool[chosen]] = part
        if share and not chosen.any():
            raise ValueError(
                f"no group of {len(np.unique(dataset.groups[pool]))} can be spared for the {PART_NAMES[part]} part "
                "without the last one of a class: give more groups, or parts of your own (--data.split-column)"
            )


def _latest(dataset: Labeled, parts: Parts, validation: float, test: float, seed: int, folds: int) -> None:
    """The latest samples become the test part, the latest before them the validation part."""
    assert dataset.times is not None
    times = np.unique(dataset.times, return_inverse=True)[1].reshape(-1)
    count = int((parts == TRAIN).sum())
    for part, share in ((TEST, test), (VALIDATION, validation)):
        pool = np.flatnonzero(parts == TRAIN)
        wanted = round(count * share)
        if wanted == 0:
            continue
        ordered = np.sort(times[pool])
        latest = pool[times[pool] > ordered[len(pool) - wanted - 1]]
        if len(latest) == 0:
            raise ValueError(
                f"the latest {share:.0%} of the samples are of one time and cannot be parted: give a finer time "
                "column, or other fractions"
            )
        parts[latest] = part
    if dataset.groups is not None:
        _check_groups(dataset, parts)


def _folds(dataset: Labeled, folds: int, seed: int) -> Counts:
    """Number of each sample's fold, ``[N]``, stratified; of whole groups where there are any."""
    labels = dataset.labels.numpy()
    if dataset.groups is not None:
        return fold_of_groups(dataset.groups, labels, folds, seed)
    if len(labels) < folds:
        raise ValueError(f"folds={folds}: there are {len(labels)} samples: choose no more folds than samples")
    # dealt out in turn, class after class: the folds have each class, and all samples, to within one
    number = np.empty(len(labels), np.int64)
    number[_random_order(labels, seed)] = np.arange(len(labels)) % folds
    return number


def fold_of_groups(groups: Array, labels: Array, folds: int, seed: int) -> Counts:
    """Number of each sample's fold, ``[n]``: whole groups, stratified; the same for the same seed anywhere."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups, samples = _samples_of(groups, labels)
    if len(samples) < folds:
        raise ValueError(f"folds={folds}: there are {len(samples)} groups: choose no more folds than groups")
    # ties go by the groups' order: shuffled here, as the library's own shuffling has changed between its versions
    random = np.random.PCG64(np.random.SeedSequence((seed, 0))).random_raw(len(samples))
    shuffled = np.argsort(np.argsort(random, kind="stable"), kind="stable")[groups]
    result = np.zeros(len(labels), np.int64)
    with warnings.catch_warnings():
        # of a class with fewer samples than folds; that it is in the training part is checked later
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        try:
            for number, (_, test) in enumerate(StratifiedGroupKFold(folds).split(labels, labels, shuffled)):
                result[test] = number
        except ValueError as error:
            largest = int(samples.sum(axis=0).max())
            raise ValueError(
                f"folds={folds}: no class has so many samples, the largest {largest}: choose fewer folds"
            ) from error
    return result


def draw_groups(groups: Array, labels: Array, fraction: float, seed: tuple[int, ...]) -> Array:
    """Which samples are drawn, ``[n]`` bool: whole groups, about ``fraction`` of each class, at least one sample.

    Groups are looked at in random order, and taken if that brings the number of samples, and that of each class,
    nearer to their shares (sum of squared relative deviations); of 32 such draws the nearest is kept. The last group
    of a class is never taken. The same for the same seed on every platform.
    """
    if fraction == 0 or len(labels) == 0:
        return np.zeros(len(labels), bool)
    groups, samples = _samples_of(groups, labels)
    count = len(samples)
    # one column more, of all classes together: the part's size counts as well
    rows = np.concatenate([samples, samples.sum(axis=1, keepdims=True)], axis=1).astype(np.float64)
    totals = rows.sum(axis=0)
    wanted = np.maximum(totals * fraction, 1)
    weights = np.where(totals > 0, 1 / wanted**2, 0)
    has = samples > 0
    # raw bits, because of NumPy's generators only their stream is promised never to change
    random = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(_TRIES * count)
    orders = np.argsort(random.reshape(_TRIES, count), axis=1, kind="stable")
    missing = np.tile(wanted, (_TRIES, 1))
    left = np.tile(has.sum(axis=0), (_TRIES, 1))
    taken = np.zeros((_TRIES, count), bool)
    for group in orders.T:
        row = rows[group]
        nearer = _sum(weights * row * (row - 2 * missing)) < 0
        chosen = nearer & ((left > 1) | ~has[group]).all(axis=1)
        taken[np.arange(_TRIES), group] = chosen
        missing -= row * chosen[:, None]
        left -= has[group] & chosen[:, None]
    return np.asarray(taken[int(_sum(weights * missing**2).argmin())][groups])


def _samples_of(groups: Array, labels: Array) -> tuple[Array, Array]:
    """Each sample's group counted from 0 on without gaps, and how many samples each has of each class."""
    numbers = np.unique(groups, return_inverse=True)[1].reshape(-1)
    samples = np.zeros((int(numbers.max()) + 1, int(labels.max()) + 1), np.int64)
    np.add.at(samples, (numbers, labels), 1)
    return numbers, samples


def _sum(columns: Array) -> Array:
    """Sum of each row in the columns' order: NumPy's own order may differ between machines."""
    total: Array = sum(columns.T[1:], columns[:, 0])
    return total


def _check_groups(dataset: Labeled, parts: Parts) -> None:
    """Raise ValueError where a group stands on two sides."""
    if dataset.groups is None:
        return
    used = parts != NONE
    names, numbers = np.unique(dataset.groups[used], return_inverse=True)
    sides = np.zeros((len(names), len(PART_NAMES)), bool)
    sides[numbers.reshape(-1), parts[used]] = True
    doubled = np.flatnonzero(sides.sum(1) > 1)
    if len(doubled):
        first = " and ".join(PART_NAMES[part] for part in np.flatnonzero(sides[doubled[0]]))
        raise ValueError(
            f"{len(doubled)} groups stand on two sides, such as {str(names[doubled[0]])!r} in {first}: correct the "
            "parts, or leave out --data.group-column"
        )


def _check_training(dataset: Labeled, parts: Parts) -> None:
    labels = dataset.labels.numpy()
    counts = np.bincount(labels[parts == TRAIN], minlength=len(dataset.class_names))
    if len(missing := np.flatnonzero(counts == 0)):
        elsewhere = int((labels == missing[0]).sum())
        names = [dataset.class_names[int(index)] for index in missing]
        raise ValueError(
            f"no sample of class {listing(names)} of {dataset.name!r} in "
            f"the training part ({elsewhere} of {names[0]!r} in the others): give samples of it, "
            "split otherwise, or leave the class out"
        )


def _reduce(
    dataset: Labeled, parts: Parts, pool: Counts, train_per_class: int | None, imbalance: float, seed: int
) -> None:
    """Leave samples out of the training part, as a recipe asks for it; ``pool``: what the parts were drawn from."""
    labels = dataset.labels.numpy()
    counts = np.bincount(labels[parts == TRAIN], minlength=len(dataset.class_names))
    kept = counts
    if train_per_class is not None:
        least = int(counts.argmin())
        if not 1 <= train_per_class <= counts[least]:
            raise ValueError(
                f"train_per_class={train_per_class}: {dataset.name!r} leaves {counts[least]} training samples of class "
                f"{dataset.class_names[least]!r}: choose 1…{counts[least]}, or leave it out"
            )
        kept = np.full_like(counts, train_per_class)
    kept = long_tail(kept, imbalance)
    if (kept == counts).all():
        return
    order = pool[_random_order(labels[pool], seed)]
    order = order[parts[order] == TRAIN]
    parts[order[_rank(counts) >= np.repeat(kept, counts)]] = NONE


def _random_order(labels: Array, seed: int) -> Counts:
    """Samples by class, and at random within it; raw bits, because only their stream is promised never to change."""
    return np.lexsort((np.random.PCG64(seed).random_raw(len(labels)), labels))


def _rank(counts: Counts) -> Counts:
    """Place of each sample within its class, where samples stand by class."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _allocate(counts: Counts, fraction: float, limit: Counts) -> Counts:
    """How many samples of each class go to a part, 1…limit; rounded cumulatively, so the total is right."""
    if fraction == 0:
        return np.zeros_like(counts)
    ends = np.round(np.cumsum(counts * fraction)).astype(np.int64)
    return np.minimum(np.maximum(np.diff(ends, prepend=0), 1), limit)


def noisy_labels(labels: Tensor, num_classes: int, rate: float, kind: NoiseKind = "symmetric", seed: int = 0) -> Tensor:
    """Labels of which each is wrong with probability ``rate``, independently of the others.

    The same on every platform and with every NumPy. What happens to a label depends on seed, length and its own
    position alone, and labels that are wrong at one rate are wrong, in the same way, at every higher one.

    Args:
        labels: ``[N]`` int64, in ``0…C−1``; left as they are.
        num_classes: C, at least 2.
        rate: η in [0, 1), the expected share of wrong labels.
        kind: ``"symmetric"``: a wrong label is drawn uniformly from the *other* C − 1 classes. (Where the literature
            draws from all C, its rate r means η = r·(C − 1)/C.) ``"pair"``: class c becomes c + 1, and the last class
            becomes 0, the usual class-dependent noise.
        seed: 0 or larger.

    Returns:
        ``[N]`` int64.

    Raises:
        ValueError: for another kind, a rate outside [0, 1), fewer than two classes, or a negative seed.

    Example:
        >>> noisy_labels(torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), 3, 0.5, "pair")
        tensor([0, 1, 0, 2, 2, 2, 0, 2])
    """
    if kind not in ("symmetric", "pair"):
        raise ValueError(f"unknown noise_kind {kind!r}: use 'symmetric' or 'pair'")
    if not 0 <= rate < 1:
        raise ValueError(f"label_noise={rate}: give a share of at least 0 and below 1, such as 0.4")
    if num_classes < 2 or seed < 0:
        raise ValueError(f"num_classes={num_classes}, seed={seed}: give at least 2 classes and a seed of 0 or larger")
    # raw bits, because only their stream is promised never to change; the key sets it apart from the split's own stream
    raw = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0,))).random_raw(2 * len(labels)).reshape(2, -1)
    is_wrong = torch.from_numpy((raw[0] >> np.uint64(11)) * 2.0**-53 < rate).to(labels.device)
    if kind == "pair":
        step = torch.ones_like(labels)
    else:
        step = torch.from_numpy(1 + (raw[1] % np.uint64(num_classes - 1)).astype(np.int64)).to(labels.device)
    return torch.where(is_wrong, (labels + step) % num_classes, labels)


def long_tail(counts: Counts, imbalance: float) -> Counts:
    """How many samples of each class a long tail keeps: ``n_max · imbalance^(−c/(C−1))`` of class c, rounded down.

    Args:
        counts: ``[C]``, how many there are, C at least 2; n_max is the largest of them. A class that has fewer than its
            place in the tail allows keeps all; none loses its last one.
        imbalance: ratio of the first class's number to the last one's, at least 1; 1 keeps everything.

    Raises:
        ValueError: for an imbalance below 1.

    Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples", section 5.1; Cao et al. 2019,
        "Learning imbalanced datasets with label-distribution-aware margin loss", section 4.2.

    Example:
        >>> long_tail(np.array([500, 500, 500]), 100).tolist()
        [500, 50, 5]
    """
    if not 1 <= imbalance < np.inf:
        raise ValueError(
            f"imbalance={imbalance}: the ratio of the largest class to the smallest is at least 1, such as 100"
        )
    place = np.arange(len(counts)) / (len(counts) - 1)
    # a whole number that a platform's power function just misses must not lose a sample
    allowed = np.floor(counts.max() * float(imbalance) ** -place + 1e-6).astype(np.int64)
    return np.asarray(np.minimum(counts, np.maximum(allowed, 1)))
