"""Bags one after another, read ahead in the background with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ncmi.data.bags.bag import Bag, BagError, BagSource

_VALUE_BYTES = 4


class BagCache:
    """Keeps the bags of a cohort in memory if they all fit, else none of them.

    It fills as bags are read; once they exceed the limit it lets go of all, and stays empty from then on. Bags in it
    are shared: they must not be changed in place.

    Args:
        gigabytes: limit, in 10⁹ bytes; 0 to keep nothing.
    """

    def __init__(self, gigabytes: float) -> None:
        self.limit = round(gigabytes * 1e9)
        self.bytes = 0
        self.open = self.limit > 0
        self._bags: dict[str, Bag] = {}

    def get(self, name: str) -> Bag | None:
        """A bag that was kept, or None."""
        return self._bags.get(name)

    def put(self, bag: Bag) -> None:
        """Keep a bag, if all that were put so far fit."""
        if not self.open or bag.name in self._bags:
            return
        self.bytes += bag.nbytes
        if self.bytes > self.limit:
            self.open, self.bytes = False, 0
            self._bags.clear()
        else:
            self._bags[bag.name] = bag


class BagStream:
    """Bags in a given order; the next ones are read in background threads while one is used.

    Each iteration begins anew. An error of reading is raised where its bag would have come, or given to ``on_bad``.
    What is read ahead of the bag in use takes no more than ``prefetch_bytes``, or is one bag where that alone is
    larger. The threads end with the iteration: when it is through, is closed (``contextlib.closing(iter(stream))``),
    or Python lets go of it.

    Args:
        names: of the bags, in order; a name may occur several times.
        prefetch_bytes: bound on what ``threads`` read ahead, counted as float32.
        cache: bags that are in it are not read again, and those that are read are put into it.
        on_bad: called with the name of a bag that cannot be read, which is then left out, and the error.

    Example:
        ``for bag in BagStream(cohort.source, cohort.names): network(bag.features)``
    """

    def __init__(
        self,
        source: BagSource,
        names: Sequence[str],
        *,
        prefetch_bytes: int = 256 * 2**20,
        threads: int = 2,
        cache: BagCache | None = None,
        on_bad: Callable[[str, BagError], None] | None = None,
    ) -> None:
        if prefetch_bytes < 0 or threads < 1:
            raise ValueError(f"prefetch_bytes={prefetch_bytes}, threads={threads}: give at least 0 and 1")
        self.source, self.names = source, tuple(names)
        self.prefetch_bytes, self.threads = prefetch_bytes, threads
        self.cache, self.on_bad = cache, on_bad

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Generator[Bag, None, None]:
        executor = ThreadPoolExecutor(self.threads, thread_name_prefix="ncmi-bags")
        ahead: deque[tuple[str, Future[Bag] | Bag, int]] = deque()
        waiting = deque(self.names)
        ahead_bytes = 0

        def read_ahead() -> None:
            nonlocal ahead_bytes
            while waiting:
                name = waiting[0]
                cached = self.cache.get(name) if self.cache is not None else None
                size = self._size(name) if cached is None else 0
                if ahead and ahead_bytes + size > self.prefetch_bytes:
                    return
                waiting.popleft()
                ahead.append((name, cached or executor.submit(self.source.load, name), size))
                ahead_bytes += size

        try:
            read_ahead()
            while ahead:
                name, first, size = ahead.popleft()
                ahead_bytes -= size
                try:
                    bag = first if isinstance(first, Bag) else first.result()
                except BagError as error:
                    if self.on_bad is None:
                        raise
                    self.on_bad(name, error)
                    read_ahead()
                    continue
                if self.cache is not None:
                    self.cache.put(bag)
                read_ahead()
                yield bag
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _size(self, name: str) -> int:
        try:
            instances, width = self.source.shape(name)
        except BagError:
            return 0  # reading it will say so, when its turn has come
        return instances * (width * _VALUE_BYTES + 16)


def usable_bags(
    source: BagSource,
    width: int,
    *,
    encoder: str = "",
    names: Sequence[str] | None = None,
    on_bad: Callable[[str, str], None] | None = None,
) -> Generator[Bag, None, None]:
    """The bags of a source that a model for features of ``width`` can judge, by name; each is read once.

    Args:
        source: of the bags.
        width: D_feat of the bags that the model was trained on.
        encoder: of the bags that the model was trained on; empty where it is not known.
        names: of the bags; by default all.
        on_bad: called with name and reason of each bag that cannot be used. By default such a bag is an error; that
            its shape is wrong is said before any bag is read.

    Raises:
        BagError: for a bag that cannot be used (without ``on_bad``), and where there is none that can.
    """
    bad: list[tuple[str, str]] = []
    cure = ""

    def leave_out(name: str, error: BagError) -> None:
        if on_bad is None:
            raise error
        bad.append((name, error.reason))
        on_bad(*bad[-1])

    names, usable = source.names if names is None else names, []
    for name in names:
        try:
            shape = source.shape(name)
        except BagError as error:
            leave_out(name, error)
            continue
        maker = source.encoder(name) if encoder else None
        if shape[1] == width and maker in (None, encoder):
            usable.append(name)
            continue
        what = f"features of width {shape[1]}, where the model was trained on {width}"
        if shape[1] == width:
            what = f"features by the encoder {maker}, where the model was trained on {encoder}"
        cure = ": embed the slides by the encoder that the training slides were embedded by"
        leave_out(name, BagError(what if on_bad else f"{name}: {what}{cure}"))
    yield from BagStream(source, usable, on_bad=leave_out)
    if len(bad) == len(names):
        reasons = "; ".join(": ".join(pair) for pair in bad[:3])
        raise BagError(f"{source.path}: no slide can be used ({reasons}){cure}")


def subsample(bag: Bag, instances: int, seed: tuple[int, ...]) -> Bag:
    """So many instances of a bag, drawn without repetition, in their order; the bag itself where it has no more.

    Which slides they are of is not kept.

    The same for the same seed on every platform.

    Args:
        instances: 0 for all.
        seed: whole numbers, 0 or larger, such as (training seed, epoch, index of the slide).
    """
    count = len(bag.features)
    if instances < 0:
        raise ValueError(f"instances={instances}: give 0 for all, or more")
    if instances == 0 or count <= instances:
        return bag
    # raw bits, because of NumPy's generators only their stream is promised never to change
    keys = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
    chosen = torch.from_numpy(np.sort(np.argsort(keys, kind="stable")[:instances]).astype(np.int64))
    coords = None if bag.coords is None else bag.coords[chosen]
    return replace(bag, features=bag.features[chosen], coords=coords, slides=())


def pad_bags(features: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Several bags as one batch ``[B, N, D]``, padded with zeros, and the mask ``[B, N]``, True at instances.

    The mask is None where all bags have the same number of instances.

    Raises:
        ValueError: without bags, or for bags of different width.

    Example:
        >>> batch, mask = pad_bags([torch.ones(1, 2), torch.ones(3, 2)])
        >>> batch.shape, mask.sum(dim=1)
        (torch.Size([2, 3, 2]), tensor([1, 3]))
    """
    if not features or len({bag.shape[1:] for bag in features}) > 1:
        raise ValueError(f"bags of shapes {[list(bag.shape) for bag in features]}: give at least one, all [N, D]")
    batch = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True)
    counts = torch.tensor([len(bag) for bag in features])
    if bool((counts == batch.shape[1]).all()):
        return batch, None
    return batch, torch.arange(batch.shape[1]) < counts[:, None]
