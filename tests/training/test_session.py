"""What surrounds a run in its process: signals, threads, random state, flags; what it says of machine and memory."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import make_recipe, signal_at

from ncmi.errors import Interrupted
from ncmi.recipes import Training
from ncmi.training import environment
from ncmi.training import session as session_module
from ncmi.training.defaults import one_thread
from ncmi.training.environment import describe_environment, mark_peak, peak_megabytes
from ncmi.training.run import train
from ncmi.training.session import session
from ncmi.training.stopping import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_asks_second_acts(number: signal.Signals) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda received, frame: heard.append(received))
    try:
        with StopRequest() as stop:
            assert not stop.requested
            signal.raise_signal(number)
            assert (stop.requested, stop.signal_number, heard) == (True, number, [])
            signal.raise_signal(number)
            assert heard == [number]
        signal.raise_signal(number)
        assert heard == [number] * 2
    finally:
        signal.signal(number, before)


def test_ctrl_c_twice_is_a_keyboard_interrupt() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_disabled_and_in_another_thread() -> None:
    handlers = []
    with StopRequest(enabled=False):
        handlers.append(signal.getsignal(signal.SIGINT))

    def elsewhere() -> None:
        with StopRequest() as stop:
            handlers.append(signal.getsignal(signal.SIGINT))
            assert not stop.requested

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)] * 2


def test_a_run_that_does_not_catch_signals(tmp_path: Path) -> None:
    with signal_at(6), pytest.raises(KeyboardInterrupt):
        train(make_recipe(), tmp_path / "run", catch_signals=False)


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(make_recipe(epochs=1), tmp_path / "a")
    with signal_at(2, signal.SIGTERM), pytest.raises(Interrupted, match="stopped in epoch 1 after step 2"):
        train(make_recipe(), tmp_path / "b")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.fixture
def unusual_process() -> Iterator[None]:
    """A process whose threads and flags are other than torch's and a run's own."""
    flags, threads = torch.backends.cudnn, torch.get_num_threads()
    before = flags.benchmark, flags.deterministic, flags.allow_tf32
    torch.set_num_threads(2)
    flags.benchmark, flags.deterministic, flags.allow_tf32 = True, True, False
    yield
    torch.set_num_threads(threads)
    flags.benchmark, flags.deterministic, flags.allow_tf32 = before


def state_of_the_process() -> tuple[Any, ...]:
    flags = torch.backends.cudnn
    return (
        torch.get_num_threads(),
        (flags.benchmark, flags.deterministic, flags.allow_tf32),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002 (the global generator is looked at)
    )


@pytest.mark.parametrize("end", ["finished", "stopped", "failed"])
def test_a_run_leaves_the_process_as_it_was(end: str, unusual_process: None, tmp_path: Path) -> None:
    torch.rand(3)  # in the middle of the caller's own sequence
    before = state_of_the_process()
    inside: list[int] = []

    def on_epoch(row: dict[str, Any]) -> None:
        inside.append(torch.get_num_threads())
        if end == "failed":
            raise RuntimeError("the caller's own")

    recipe = make_recipe(threads=1)
    if end == "finished":
        train(recipe, tmp_path / "run", on_epoch=on_epoch)
    elif end == "failed":
        with pytest.raises(RuntimeError, match="the caller's own"):
            train(recipe, tmp_path / "run", on_epoch=on_epoch)
    else:
        with signal_at(6), pytest.raises(Interrupted):
            train(recipe, tmp_path / "run", on_epoch=on_epoch)
    assert set(inside) == {1}
    assert state_of_the_process() == before


@pytest.mark.parametrize(
    ("options", "threads"),
    [({"threads": None}, 1), ({"threads": 2}, 2), ({"threads": None, "batch_size": 512}, 2)],
    ids=["small", "asked", "large"],
)
def test_small_steps_take_one_thread(
    options: dict[str, Any], threads: int, unusual_process: None, tmp_path: Path
) -> None:
    inside: list[int] = []
    train(
        make_recipe(epochs=1, **options),
        tmp_path / "run",
        on_epoch=lambda row: inside.append(torch.get_num_threads()),
        on_stage=lambda line: inside.append(torch.get_num_threads() if "fitting" in line else threads),
    )
    assert set(inside) == {threads}
    assert torch.get_num_threads() == 2


def test_another_python_thread_does_not_touch_the_number_of_threads(unusual_process: None) -> None:
    inside: list[int] = []

    def work() -> None:
        with one_thread(True):
            inside.append(torch.get_num_threads())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    with one_thread(True):
        inside.append(torch.get_num_threads())
    assert (inside[1], torch.get_num_threads()) == (1, 2)
    assert inside[0] != 1


def test_flags_of_a_gpu_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(global_rank=0, device=torch.device("cuda"), launch=lambda: None)
    monkeypatch.setattr(session_module, "Fabric", lambda **options: gpu)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    with session(Training()) as fabric:
        assert fabric is gpu
        assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.benchmark
    with pytest.raises(RuntimeError, match="in training"), session(Training()):
        raise RuntimeError("in training")
    assert not torch.backends.cudnn.benchmark


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = describe_environment(torch.device("cpu"))
    assert found["threads"] == torch.get_num_threads()
    assert "×" in found["cpu"] or not Path("/proc/cpuinfo").exists()
    assert all(value is None or isinstance(value, str | int) for value in found.values())
    assert describe_environment(torch.device("cpu"))["commit"] == found["commit"]
    monkeypatch.setattr(environment, "_PACKAGES", ("no-such-package",))

    def no_git(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(subprocess, "run", no_git)
    found = describe_environment(torch.device("cpu"))
    assert found["no-such-package"] is None
    assert found["commit"] is None
    # neither a checkout nor Linux
    monkeypatch.setattr(environment, "Path", lambda _: Path("/nowhere/a/b/c/d/e"))
    found = describe_environment(torch.device("cpu"))
    assert found["commit"] is None
    assert isinstance(found["cpu"], str)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_is_of_the_time_since_the_mark() -> None:
    # in a process of its own: what others have freed would be taken again
    code = """
import torch
from ncmi.training.environment import mark_peak, peak_megabytes
cpu = torch.device("cpu")
mark_peak(cpu)
before = peak_megabytes(cpu)
block = torch.ones(50_000_000)
during = peak_megabytes(cpu)
del block
mark_peak(cpu)
print(during - before, during - peak_megabytes(cpu))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rise, fall = map(float, done.stdout.split())
    assert rise == pytest.approx(200, abs=20)
    assert fall > 150


def test_peak_memory_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_STATUS", Path("/nowhere"))
    monkeypatch.setattr(environment, "_CLEAR", Path("/nowhere"))
    mark_peak(torch.device("cpu"))
    assert peak_megabytes(torch.device("cpu")) > 50


def test_a_container_may_forbid_to_reset_the_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_CLEAR", tmp_path)  # a folder: writing to it fails
    mark_peak(torch.device("cpu"))
    assert peak_megabytes(torch.device("cpu")) > 50
