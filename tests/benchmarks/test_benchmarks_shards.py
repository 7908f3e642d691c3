"""Each sample of shards is read once an epoch, whoever reads and wherever a run was stopped: the benchmark, in short."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("simplejpeg", reason='needs pip install "ncmi[images]"')
pytest.importorskip("cv2", reason='needs pip install "ncmi[images]"')


def test_each_sample_once_on_two_processes_and_then_on_three(bench: Any, tmp_path: Path) -> None:
    shards = bench("shards")
    path = shards.write_numbers(tmp_path / "numbers", 307, 60)
    train = shards.numbers_of_train(path)
    first = [list(shards.read_as_rank(path, rank, 2, (0, 0), 3, 16, 2 * rank)) for rank in range(2)]
    rest = [list(shards.read_as_rank(path, rank, 3, (1, 4), 3, 16, 0)) for rank in range(3)]
    before = [part for part in zip(*first, strict=True) if part[0][:2] < (1, 4)]
    steps = [*before, *zip(*rest, strict=True)]
    epochs = [
        list(chain.from_iterable(part[2] for step in steps if step[0][0] == e for part in step)) for e in range(3)
    ]
    assert len(train) == pytest.approx(307 * 0.8, abs=10)
    assert shards.faults_of(epochs, train) == 0
    whole = [
        list(chain.from_iterable(part[2] for step in zip(*first, strict=True) if step[0][0] == e for part in step))
        for e in range(3)
    ]
    assert epochs == whole
    assert shards.faults_of([epochs[0], epochs[0][1:]], train) == 1


def test_one_shard_on_four_processes(bench: Any, tmp_path: Path) -> None:
    shards = bench("shards")
    path = shards.write_numbers(tmp_path / "numbers", 103, 103)
    parts = [list(shards.read_as_rank(path, rank, 4, (0, 0), 1, 10, 0)) for rank in range(4)]
    order = list(chain.from_iterable(part[2] for step in zip(*parts, strict=True) for part in step))
    assert shards.faults_of([order], shards.numbers_of_train(path)) == 0
