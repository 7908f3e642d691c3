"""Where a run ran: versions, machine, commit; and how much memory it took there."""

import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import ncmi

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_PACKAGES = ("lightning-fabric", "numpy", "pandas", "safetensors", "scikit-learn", "scipy")


def describe_environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Versions, processor, device, processes that train together, threads, commit and date, as plain values."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "ncmi": ncmi.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(terse=True),
        "cpu": _processor(),
        **describe_arithmetic(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }


def describe_arithmetic() -> dict[str, Any]:
    """What decides the last digits of a training on CPUs: the instructions that are used, and the libraries."""
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
        "mkldnn": torch.backends.mkldnn.is_available(),
    }


def precision_note(precision: str, device: torch.device) -> str | None:
    """What to say of a precision that costs time on a device instead of saving it; None where there is nothing."""
    emulated = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    if precision != "bf16-mixed" or device.type != "cpu" or not emulated:
        return None
    return (
        "this CPU has no instructions for bfloat16, in which convolutions take up to ten times as long: give "
        "--training.precision 32-true"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor()


def _commit() -> str | None:
    """Commit of the checkout this package lies in; None where it was installed from a package."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None


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
