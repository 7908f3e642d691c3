"""What all tests share: one thread a process, the folder of real data, and no leftovers of the user's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# no tests in them, and for doctest they would all be modules of one name
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

settings.register_profile("ncmi", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("ncmi")


def pytest_configure() -> None:
    # two test processes side by side on two cores: more threads would only wait for each other
    torch.set_num_threads(1)


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
    folder = tmp_path_factory.mktemp("cifar100")
    subprocess.run([sys.executable, str(tool), str(packed), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(autouse=True)
def _same_random_state() -> None:
    torch.manual_seed(0)
