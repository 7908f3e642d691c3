"""For ``ncmi --imports _rank_faults``: signals at steps of a run, and a list of what each of its processes was given.

``NCMI_FAULTS="5:1:KILL,9:0:STOP"`` sends SIGKILL to the process of rank 1 before its step 5 of the run (from 0), and so
on, each once over all restarts. That, and the samples of each step, are written below the folder ``NCMI_FAULTS_LOG``.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from torch import Tensor

from ncmi.training.loop import Loop

_LOG = Path(os.environ["NCMI_FAULTS_LOG"])
_step = Loop._step


def _with_faults(self: Loop, batch: Tensor) -> None:
    progress, rank = self.progress, self.fabric.global_rank
    for fault in filter(None, os.environ.get("NCMI_FAULTS", "").split(",")):
        step, who, name = fault.split(":")
        mark = _LOG / fault.replace(":", "-")
        if (progress.total_steps, rank) == (int(step), int(who)) and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
    samples = [index for micro in self.micro_batches(batch) for index in self.share_of(micro).tolist()]
    with (_LOG / f"samples-{rank}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps([progress.epoch, progress.step, self.fabric.world_size, rank, samples]) + "\n")
    _step(self, batch)


Loop._step = _with_faults  # type: ignore[method-assign]
