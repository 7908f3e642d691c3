"""Peak memory since a mark: of the GPU where one is used, else of the process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def mark_peak(device: torch.device) -> None:
    """Start to measure anew. On systems other than Linux a process's peak cannot be reset and covers its whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        try:
            _CLEAR.write_text("5")
        except OSError:  # containers may forbid it: the peak then covers the process's whole life
            return


def peak_megabytes(device: torch.device) -> float:
    """Peak memory since :func:`mark_peak` in MB (10⁶ bytes)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
