"""Fixtures of all report tests; the folders are made in ``folders.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from folders import write_comparison, write_run

from ncmi.report import Comparison, Row, comparison_rows, read_comparison


@pytest.fixture(scope="session")
def full_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All objectives × 5 seeds; two runs did not finish. Read only: copy before changing."""
    return write_comparison(
        tmp_path_factory.mktemp("reports") / "digits",
        unfinished=[("opl", 4)],
        missing=[("cmic", 4)],
    )


@pytest.fixture(scope="session")
def full_record(full_comparison: Path) -> Comparison:
    """What it records, whose rows are made once."""
    return read_comparison(full_comparison)


@pytest.fixture(scope="session")
def full_rows(full_record: Comparison) -> tuple[Row, ...]:
    """The rows of all objectives."""
    return comparison_rows(full_record)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder into this test's own directory: ``new_run("focal", 3, ...)``."""
    return lambda objective="ncmi", seed=0, **options: write_run(
        tmp_path / f"{objective}-seed{seed}", objective, seed, **options
    )


@pytest.fixture
def new_comparison(tmp_path: Path) -> Callable[..., Path]:
    """Write a small comparison folder into this test's own directory."""

    def write(objectives: Sequence[str] = ("ncmi", "cross_entropy"), **options: Any) -> Path:
        return write_comparison(tmp_path / "comparison", objectives, **options)

    return write
