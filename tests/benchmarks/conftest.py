"""The benchmarks lie beside the package, in a checkout only, and import each other by name as scripts do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import a benchmark's module by name, as its script does; forgotten afterwards."""
    if not BENCHMARKS.is_dir():
        pytest.skip("benchmarks lie beside the package in a checkout only")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delenv("NCMI_DATA", raising=False)
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
