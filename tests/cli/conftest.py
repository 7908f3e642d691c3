"""A finished run that several files of tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from abuse_helpers import QUICK
from cli_helpers import ncmi


@pytest.fixture(scope="session")
def run_on_iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one epoch. Read only: copy before changing."""
    folder = tmp_path_factory.mktemp("iris")
    ncmi("train", "iris", "--out", "run", *QUICK, cwd=folder)
    return folder / "run"
