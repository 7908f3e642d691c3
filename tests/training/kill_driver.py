"""Starts runs in processes of their own and kills each in the middle of an epoch: ``python kill_driver.py FOLDER``.

One child for each way to die, forked after the imports; the parent sends the signal when the child says where it is.
``FOLDER/exits.json`` tells how each child ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_helpers import RESUME_CASES

from ncmi.recipes import Recipe

KILLED_AT = 6  # steps done: the second epoch of four steps is half over
INTERRUPTED = 42

# name: (resume case, signal)
DEATHS: dict[str, tuple[str, signal.Signals]] = {
    "killed-in-a-step": ("cross-entropy-everything", signal.SIGKILL),
    "killed-in-writing-a-checkpoint": ("ncmi", signal.SIGKILL),
    "terminated": ("supcon", signal.SIGTERM),
    "interrupted": ("ncmi-class-mean-ema-center", signal.SIGINT),
}


def recipe_of(death: str) -> Recipe:
    return RESUME_CASES[DEATHS[death][0]](checkpoint_steps=5)


def main(root: Path) -> None:
    exits = {}
    for death, (_, number) in DEATHS.items():
        hear, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(hear)
            _run(root / death, death, lambda tell=tell: os.write(tell, b"x"))
        os.close(tell)
        if os.read(hear, 1) == b"x":
            os.kill(child, number)
        os.close(hear)
        exits[death] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (root / "exits.json").write_text(json.dumps(exits))


def _run(folder: Path, death: str, say: Callable[[], Any]) -> None:
    from ncmi.errors import Interrupted
    from ncmi.training.run import train

    if death == "killed-in-writing-a-checkpoint":
        _wait_in_writing(say)
    else:
        _wait_in_a_step(say)
    code = 1
    try:
        train(recipe_of(death), folder)
    except Interrupted:
        code = INTERRUPTED
    finally:
        os._exit(code)


def _wait_in_a_step(say: Callable[[], Any]) -> None:
    from ncmi.training.loop import Loop
    from ncmi.training.stopping import StopRequest

    step, run = Loop._step, Loop.run
    stops: list[StopRequest] = []

    def remembering(self: Loop, stop: StopRequest) -> None:
        stops.append(stop)
        run(self, stop)

    def waiting(self: Loop, batch: Any) -> None:
        step(self, batch)
        if self.progress.total_steps + 1 == KILLED_AT:
            say()
            while not stops[0].requested:
                time.sleep(0.01)

    Loop.run, Loop._step = remembering, waiting  # type: ignore[method-assign]


def _wait_in_writing(say: Callable[[], Any]) -> None:
    from ncmi.training import checkpoint

    save_file = checkpoint.save_file
    calls = []

    def half(tensors: Any, path: str, metadata: Any) -> None:
        save_file(tensors, path, metadata=metadata)
        calls.append(path)
        if len(calls) == 3:  # after epoch 1, after step 5, after epoch 2: this one
            os.truncate(path, Path(path).stat().st_size // 2)
            say()
            time.sleep(600)

    checkpoint.save_file = half


if __name__ == "__main__":
    main(Path(sys.argv[1]))
