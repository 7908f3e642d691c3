"""What surrounds a run in its process: devices and threads, random state."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from packaging.version import Version
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ncmi.recipes import Training
from ncmi.training.defaults import torch_defaults
from ncmi.training.launch import Launch, find_launch
from ncmi.training.loggers import check_loggers
from ncmi.training.stopping import end_with_parent

_STORE = "ncmi/store"
_ANSWER = timedelta(seconds=5)
_BUSY = timedelta(minutes=30)


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
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException


class FeaturesInFloat64(DoublePrecision):
    """Fabric's "64-true" with features that stay in float64 on their way to the objective."""

    def convert_output(self, data: Any) -> Any:
        return data


class _Torchrun(TorchElasticEnvironment):
    """Fabric's own, for hosts with different numbers of processes too."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        return


@contextmanager
def session(training: Training, *, alone: bool = False) -> Iterator[Fabric]:
    """Start the devices and processes that train together; afterwards the caller's process is as it was.

    Which processes they are, a launcher says; without one ``training.devices`` are started. Threads, torch's random
    state and cuDNN's flags are put back.

    Args:
        training: the recipe's section.
        alone: this process and one device, whatever launcher and recipe say.

    Raises:
        ValueError: for an accelerator or a number of devices that this machine does not have, or that is not what the
            launcher has started.
        ModuleNotFoundError: for a logger whose package is not installed.
    """
    check_loggers(training.logger)
    launch = None if alone else find_launch()
    devices, processes = _numbers(training, launch, alone)
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    with torch_defaults(draws=True):
        try:
            if training.threads is not None:
                torch.set_num_threads(training.threads)
            fabric = _fabric(training, launch, devices, processes)
            if launch is not None and processes > 1 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
                _meet(launch, fabric.device, training.timeout_seconds)
            with _quiet():
                fabric.launch()
            by_srun = launch is not None and launch.launcher == "srun"
            if processes > 1 and not by_srun and (launch is not None or fabric.global_rank > 0):
                end_with_parent(os.getppid())  # torchrun's agent, or the first process, which has started the others
            if fabric.device.type == "cuda":
                torch.backends.cudnn.benchmark = True  # batches keep their shape
            yield fabric
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = benchmark


def _of_collectives(seconds: float) -> timedelta:
    """How long one waits for another in a collective: whoever gives signs of life may be busy alone, as in writing."""
    return max(timedelta(seconds=seconds), _BUSY)


def _meet(launch: Launch, device: torch.device, timeout: float) -> None:
    """Join the other processes that torchrun has started, through a store of their own.

    torchrun's store outlives them, and with it the addresses of those that have ended: processes that are started again
    would look for them there. Here it only says where the first process has a new one.
    """
    if dist.is_initialized():
        return
    host, wait = os.environ["MASTER_ADDR"], timedelta(seconds=timeout)
    outer = TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False, timeout=wait)
    if launch.rank == 0:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=wait)
        outer.set(_STORE, str(store.port))
    else:
        store = _store_of_first(outer, host, wait)
    where: dict[str, Any] = {"device_id": device} if device.type == "cuda" else {}
    backend = "nccl" if device.type == "cuda" else "gloo"
    patience = _of_collectives(timeout)
    dist.init_process_group(
        backend, store=store, rank=launch.rank, world_size=launch.world_size, timeout=patience, **where
    )


def _store_of_first(outer: TCPStore, host: str, wait: timedelta) -> TCPStore:
    """The store of the first process; what an earlier one has left written does not answer any more."""
    until = time.monotonic() + wait.total_seconds()
    while True:
        port = int(outer.get(_STORE))
        try:
            store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_ANSWER)
        except RuntimeError:
            if time.monotonic() > until:
                raise
            continue
        store.set_timeout(wait)
        return store


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Fabric tells of processes that find each other: warnings and errors alone."""
    logger = logging.getLogger("lightning_fabric")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _numbers(training: Training, launch: Launch | None, alone: bool) -> tuple[int, int]:
    """Devices on this host, and processes on all of them."""
    if launch is None:
        devices = 1 if alone else training.devices
        return devices, devices
    if training.devices not in (1, launch.local_world_size):
        raise ValueError(
            f"--training.devices {training.devices}: {launch.launcher} has started {launch.local_world_size} processes "
            f"on this host, {launch.world_size} in all: leave --training.devices out, all of them train"
        )
    return launch.local_world_size, launch.world_size


def _fabric(training: Training, launch: Launch | None, devices: int, processes: int) -> Fabric:
    environment: ClusterEnvironment = LightningEnvironment()
    if launch is not None:
        environment = _Torchrun() if launch.launcher == "torchrun" else SLURMEnvironment()
    plugins: list[Any] = [environment]
    precision: dict[str, Any] = {"precision": training.precision}
    if training.precision == "64-true":
        plugins, precision = [*plugins, FeaturesInFloat64()], {}
    try:
        return Fabric(
            accelerator=training.accelerator,
            devices=devices,
            num_nodes=1 if launch is None else launch.nodes,
            strategy=DDPStrategy(timeout=_of_collectives(training.timeout_seconds)) if processes > 1 else "auto",
            plugins=plugins,
            **precision,
        )
    except (RuntimeError, MisconfigurationException):
        wanted = f"--training.devices {devices}" if launch is None else f"{devices} processes by {launch.launcher}"
        raise ValueError(
            f"--training.accelerator {training.accelerator} with {wanted}: this machine does not have them: choose cpu "
            "or auto, or fewer devices"
        ) from None
