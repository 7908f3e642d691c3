"""Every benchmark can be started: what it takes from the library is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = sorted(path.stem for path in (Path(__file__).parents[2] / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_it_imports(bench: Any, name: str) -> None:
    assert bench(name).__doc__
