"""What all tests share: one thread a process, runs of comparisons in this process, and the folder of real data."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from ncmi import networks
from ncmi.data.cifar_sets import CIFAR_SETS
from ncmi.objectives import options
from ncmi.training import comparison
from ncmi.training import workers as workers_module

# no tests in them, and for doctest they would all be modules of one name
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

settings.register_profile("ncmi", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("ncmi")


def pytest_configure() -> None:
    # two test processes side by side on two cores: more threads would only wait for each other
    torch.set_num_threads(1)
    # a shell starts what it puts in the background with Ctrl-C ignored, and processes inherit it
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def in_turn(
    work: Callable[..., Any],
    tasks: Mapping[str, Any],
    workers: int,
    on_run: Callable[[str, Any], None],
    before: Callable[[Callable[..., Any]], None] = lambda ask: None,
    more: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, str]:
    """One task after the other, in this process, with the same outcomes as in processes of their own."""
    before(workers_module.ask_here)
    failures, waiting = {}, dict(tasks)
    while waiting or (waiting := dict(more())):
        path = next(iter(waiting))
        how, what = workers_module._outcome(work, (path, waiting.pop(path)))
        if how == "done":
            on_run(Path(path).name, what)
        else:
            failures[path] = what
    return failures


@pytest.fixture(scope="session", autouse=True)
def _runs_in_this_process() -> Iterator[None]:
    """Comparisons make their runs here: a fresh process takes ten seconds to import what it needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "run_side_by_side", in_turn)
        yield


@pytest.fixture(autouse=True)
def _names_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is unknown to the next one, whose comparisons take every objective."""
    for module, registry in ((options, "_REGISTRY"), (networks, "_NETWORKS")):
        monkeypatch.setattr(module, registry, dict(vars(module)[registry]))


@pytest.fixture
def fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons make their runs in processes of their own, as for users."""
    monkeypatch.setattr(comparison, "run_side_by_side", workers_module.run_side_by_side)


@pytest.fixture
def data_dir() -> Path:
    """Folder of real data sets (``tabular/letter.npz``, …), from the environment variable NCMI_DATA."""
    found = os.environ.get("NCMI_DATA")
    if found is None or not Path(found).is_dir():
        pytest.skip("needs real data sets: set NCMI_DATA to their folder")
    return Path(found)


@pytest.fixture(scope="session")
def cifar100_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with cifar-100-python and cifar-100-binary: below NCMI_DATA, or unpacked from the packed form there."""
    found = os.environ.get("NCMI_DATA")
    if found is None:
        pytest.skip("needs CIFAR-100: set NCMI_DATA to a folder with cifar-100-python and cifar-100-binary")
    for python in sorted(Path(found).rglob("cifar-100-python")):
        if (python.parent / "cifar-100-binary").is_dir():
            return python.parent
    packed, tool = Path(found) / "cifar100", Path(found).parent / "tools" / "unpack_cifar100.py"
    if not (packed / "manifest.json").is_file() or not tool.is_file():
        pytest.skip(f"needs CIFAR-100: {found} holds no cifar-100-python and cifar-100-binary")
    # unpacked once: the processes that test side by side have their folders below one
    below_one = tmp_path_factory.getbasetemp()
    folder = (below_one.parent if "PYTEST_XDIST_WORKER" in os.environ else below_one) / "cifar100"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            subprocess.run([sys.executable, str(tool), str(packed), str(partial)], check=True, capture_output=True)
            partial.rename(folder)
    return folder


@pytest.fixture
def tiny_cifar100(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with a CIFAR-100 of 10 training images and a test image a class, each class a color of its own in noise.

    It is CIFAR-100 to this process alone, which knows the true one by its checksums.
    """
    cifar = replace(CIFAR_SETS["cifar100"], counts=(1000, 100), content=None, md5={})
    monkeypatch.setitem(CIFAR_SETS, "cifar100", cifar)
    root = tmp_path_factory.mktemp("tiny-cifar100")
    folder = root / cifar.python.folder
    folder.mkdir()
    random = np.random.default_rng(0)
    colors = random.integers(40, 216, (100, 3))
    for name, count in zip(cifar.python.files, cifar.counts, strict=True):
        labels = np.arange(count) % 100
        images = colors[labels].repeat(1024, axis=1) + random.integers(-40, 41, (count, 3072))
        values = {
            "data": images.astype(np.uint8),
            cifar.label_key: labels.tolist(),
            "coarse_labels": (labels % 20).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(values))
    (folder / cifar.python.names).write_bytes(pickle.dumps({cifar.names_key: list(cifar.class_names)}))
    return root


@pytest.fixture(autouse=True)
def _same_random_state() -> None:
    torch.manual_seed(0)
