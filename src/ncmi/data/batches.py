"""The order of samples in an epoch, the batches in it, and each process's share of a batch: without state."""

import numpy as np
import torch
from torch import Tensor


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> Tensor:
    """Random permutation of ``0…num_samples−1``, int64, that depends on seed and epoch alone.

    A run that was stopped in the middle of an epoch finds the same order again, on any platform.

    Raises:
        ValueError: for a negative number.

    Example:
        >>> sorted(epoch_order(5, seed=0, epoch=3).tolist())
        [0, 1, 2, 3, 4]
    """
    if min(num_samples, seed, epoch) < 0:
        raise ValueError(f"num_samples={num_samples}, seed={seed}, epoch={epoch}: each must be 0 or larger")
    # raw bits, because of NumPy's generators only their stream is promised never to change
    keys = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(num_samples)
    return torch.from_numpy(np.argsort(keys, kind="stable").astype(np.int64, copy=False))


def weighted_draws(weights: Tensor, *, seed: int, epoch: int) -> Tensor:
    """As many samples as there are weights, ``[N]`` int64, in rising order; depends on weights, seed and epoch alone.

    Each is drawn floor or ceil of its share N·w/Σw of times, and as often as that on average (systematic sampling);
    with equal weights, each once.

    Example:
        >>> weighted_draws(torch.tensor([2.0, 0.0, 1.0, 1.0]), seed=0, epoch=0)
        tensor([0, 0, 2, 3])
    """
    ends = weights.double().cumsum(0) * (len(weights) / weights.double().sum())
    start = np.random.PCG64(np.random.SeedSequence((seed, epoch, 2))).random_raw() / 2**64
    points = torch.arange(len(weights), dtype=torch.float64, device=weights.device) + start
    last = int(weights.nonzero()[-1])  # where rounding leaves the last end below the last point
    return torch.searchsorted(ends, points, right=True).clamp_max(last)


def batch_slices(num_samples: int, batch_size: int) -> tuple[slice, ...]:
    """Consecutive slices of an epoch's order; the last one is shorter where the batch size does not divide.

    Raises:
        ValueError: for ``batch_size < 1`` or a negative number of samples.

    Example:
        >>> batch_slices(5, 2)
        (slice(0, 2, None), slice(2, 4, None), slice(4, 5, None))
    """
    if batch_size < 1 or num_samples < 0:
        raise ValueError(f"batch_size={batch_size}, num_samples={num_samples}: give at least 1 and 0")
    return tuple(slice(i, min(i + batch_size, num_samples)) for i in range(0, num_samples, batch_size))


def process_shares(batch_count: int, processes: int) -> tuple[int, ...]:
    """How many consecutive samples of a batch each process takes: as even as possible, larger ones first.

    Raises:
        ValueError: for ``processes < 1`` or a negative number of samples.

    Example:
        >>> process_shares(5, 2), process_shares(1, 3)
        ((3, 2), (1, 0, 0))
    """
    if processes < 1 or batch_count < 0:
        raise ValueError(f"processes={processes}, batch_count={batch_count}: give at least 1 and 0")
    share, larger = divmod(batch_count, processes)
    return tuple(share + (rank < larger) for rank in range(processes))
