"""What surrounds a run in its process: devices and threads, random state."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from unittest.mock import patch

import torch
from packaging.version import Version

from ncmi.recipes import Training
from ncmi.training.loggers import check_loggers
from ncmi.training.stopping import end_with_parent


def _fulfills(package: str, compare: Callable[[Version, Version], bool], bound: str, base: bool = False) -> bool:
    """Whether a package is there in such a version, without importing it."""
    try:
        installed = Version(version(package))
    except PackageNotFoundError:
        return False
    return compare(Version(installed.base_version) if base else installed, Version(bound))


# Fabric imports torchmetrics, and with it SciPy and Matplotlib, only to see its version: a third of the start of each
# process of a comparison
with patch("lightning_utilities.core.imports.compare_version", _fulfills):
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import DoublePrecision
    from lightning_fabric.utilities.exceptions import MisconfigurationException


class FeaturesInFloat64(DoublePrecision):
    """Fabric's "64-true" with features that stay in float64 on their way to the objective."""

    def convert_output(self, data: Any) -> Any:
        return data


@contextmanager
def session(training: Training) -> Iterator[Fabric]:
    """Start the devices and processes that train together; afterwards the caller's process is as it was.

    Threads, torch's random state and cuDNN's flags are put back.

    Raises:
        ValueError: for an accelerator or a number of devices that this machine does not have.
        ModuleNotFoundError: for a logger whose package is not installed.
    """
    check_loggers(training.logger)
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    used = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=used):
        try:
            if training.threads is not None:
                torch.set_num_threads(training.threads)
            precision: dict[str, Any] = {"precision": training.precision}
            try:
                fabric = Fabric(
                    accelerator=training.accelerator,
                    devices=training.devices,
                    strategy="ddp" if training.devices > 1 else "auto",
                    **({"plugins": [FeaturesInFloat64()]} if training.precision == "64-true" else precision),
                )
            except (RuntimeError, MisconfigurationException):
                raise ValueError(
                    f"--training.accelerator {training.accelerator} with --training.devices {training.devices}: this "
                    "machine does not have them: choose cpu or auto, or fewer devices"
                ) from None
            fabric.launch()
            if fabric.global_rank > 0:
                end_with_parent(os.getppid())  # of processes that train together the first one has started the others
            if fabric.device.type == "cuda":
                torch.backends.cudnn.benchmark = True  # batches keep their shape
            yield fabric
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = benchmark
