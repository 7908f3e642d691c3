"""The table in its four forms."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from ncmi.reports import (
    ReportError,
    comparison_rows,
    comparison_table,
    print_table,
    read_comparison,
    to_markdown,
    write_csv,
)

NewComparison = Callable[..., Path]


def printed(folder: Path, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(read_comparison(folder), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_frame_holds_the_rows(full_comparison: Path) -> None:
    record = read_comparison(full_comparison)
    frame, rows = comparison_table(record), comparison_rows(record)
    assert frame["method"].tolist() == [row.method for row in rows]
    assert frame["accuracy_mean"].tolist() == [row.mean for row in rows]
    first = frame.iloc[0]
    assert rows[0].difference is not None
    assert (first["difference_low"], first["difference_high"]) == rows[0].difference.interval
    assert first["pairs"] == 5
    assert first["wilcoxon_p"] == rows[0].difference.wilcoxon_p
    baseline = frame[frame["method"] == "CE"].iloc[0]
    assert math.isnan(baseline["difference"])
    assert baseline["pairs"] == 0
    # four pairs: too few for a signed-rank test
    assert math.isnan(frame[frame["method"] == "OPL"].iloc[0]["wilcoxon_p"])


def test_csv_gives_the_frame_back(full_comparison: Path, tmp_path: Path) -> None:
    record = read_comparison(full_comparison)
    path = write_csv(record, tmp_path / "table.csv")
    pd.testing.assert_frame_equal(pd.read_csv(path), comparison_table(record))
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_csv_into_a_missing_folder_is_an_error(full_comparison: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"table.csv: cannot be written \(no such folder\)"):
        write_csv(read_comparison(full_comparison), tmp_path / "missing" / "table.csv")


def test_markdown(full_comparison: Path) -> None:
    lines = to_markdown(read_comparison(full_comparison)).splitlines()
    assert lines[0] == "| Method | n | Accuracy % | Δ CE | 95 % interval | s/epoch | MB | CMI | Γ | NCMI |"
    assert len(lines) == 2 + 14
    assert len({line.count("|") for line in lines}) == 1
    assert sum("**" in line for line in lines) == 1
    rows = comparison_rows(read_comparison(full_comparison))
    assert rows[0].difference is not None
    assert lines[2].startswith(f"| NCMI-CC | 5 | {rows[0].mean:.2f} ± {rows[0].sd:.2f} |")
    baseline = next(line for line in lines if line.startswith("| CE "))
    assert "| – | – |" in baseline


def test_markdown_escapes_pipes(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    path = folder / "comparison.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"NCMI"', '"N|CMI"'), encoding="utf-8")
    lines = to_markdown(read_comparison(folder)).splitlines()
    assert lines[2].startswith(r"| N\|CMI-CC |")


def test_terminal_table_fits_100_columns(full_comparison: Path) -> None:
    text = printed(full_comparison)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text.replace(" … ", "")  # nothing is cut short
    for row in comparison_rows(read_comparison(full_comparison)):
        assert row.method in text
        assert f"{row.mean:.2f} ± {row.sd:.2f}" in text
    assert "unfinished: runs/opl-seed4, stopped after epoch 7 of 20" in text
    assert "unfinished: runs/cmic-seed4, not started" in text


def test_narrow_terminal_leaves_out_cmi_and_separation(full_comparison: Path) -> None:
    text = printed(full_comparison, width=80)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    header = next(line for line in text.splitlines() if "Method" in line)
    assert "Γ" not in header
    assert "NCMI" in header


def test_names_are_not_markup(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    path = folder / "comparison.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"NCMI"', '"[red]x"'), encoding="utf-8")
    assert "[red]x-CC" in printed(folder)


def test_one_seed_shows_dashes(new_comparison: NewComparison) -> None:
    line = next(line for line in printed(new_comparison(seeds=[0])).splitlines() if "NCMI-LP" in line)
    assert "±" not in line
    assert " – " in line
