"""The first Ctrl-C or SIGTERM asks for a stop, the second acts as usual."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from training_helpers import make_recipe, signal_at

from ncmi.training import Interrupted, train
from ncmi.training.signals import StopRequest


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
