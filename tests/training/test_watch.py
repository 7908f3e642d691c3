"""What processes that train together say of an error: once, by the right one. Here each is a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ncmi.errors import PeerLost, RankError, ToldElsewhere, exit_code_of
from ncmi.training import watch as watch_module
from ncmi.training.watch import Watch

LOST = "[pair.cc:547] gloo: Connection closed by peer"
Work = Callable[[Watch], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BEAT", 0.1)
    monkeypatch.setattr(watch_module, "_SILENCE", 2.0)


def together(*works: Work) -> list[BaseException | None]:
    """What each process ends of that does one of these things under watch."""
    meeting, said = threading.Barrier(len(works)), [0]
    ends: list[BaseException | None] = [None] * len(works)

    def broadcast(rank: int, value: Any) -> Any:
        if rank == 0:
            said[0] = value
        meeting.wait(60)
        return said[0]

    def process(rank: int) -> None:
        strategy = SimpleNamespace(
            cluster_environment=SimpleNamespace(main_address="127.0.0.1"), launcher=SimpleNamespace(procs=[])
        )
        fabric: Any = SimpleNamespace(
            global_rank=rank,
            world_size=len(works),
            strategy=strategy,
            broadcast=lambda value: broadcast(rank, value),
            barrier=lambda: meeting.wait(60),
        )
        try:
            with Watch(fabric, 60) as watch:
                works[rank](watch)
        except BaseException as error:
            ends[rank] = error

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return ends


def fails(error: Exception) -> Work:
    def work(watch: Watch) -> None:
        raise error

    return work


def goes_on(watch: Watch) -> None:
    watch.at(7, 1, 3)


def test_all_finish() -> None:
    assert together(goes_on, goes_on, goes_on) == [None, None, None]


def test_an_error_of_all_stays_itself_on_the_first() -> None:
    first, *others = together(*[fails(OSError("no such table"))] * 3)
    assert type(first) is OSError
    for other in others:
        assert isinstance(other, ToldElsewhere)
        assert exit_code_of(other) == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_names_its_rank(rank: int) -> None:
    works = [fails(RuntimeError(LOST))] * 2
    works[rank] = fails(ValueError("no such table here"))
    ends = together(*works)
    assert isinstance(ends[rank], RankError)
    assert f"rank {rank}: no such table here" in str(ends[rank])
    other = ends[1 - rank]
    assert isinstance(other, ToldElsewhere)
    assert exit_code_of(other) == 2


def test_where_all_are_there_the_one_behind_is_named() -> None:
    def ahead(watch: Watch) -> None:
        goes_on(watch)
        raise RuntimeError(LOST)

    ends = together(ahead, fails(RuntimeError(LOST)), ahead)
    assert isinstance(ends[0], PeerLost)
    assert "rank 1 " in str(ends[0])
    assert "epoch 2, step 3" in str(ends[0])
    assert exit_code_of(ends[0]) == 75
    assert isinstance(ends[2], ToldElsewhere)
    assert exit_code_of(ends[2]) == 75


def test_one_process_is_not_watched() -> None:
    with pytest.raises(ValueError, match="mine"):
        raise together(fails(ValueError("mine")))[0]  # type: ignore[misc]
