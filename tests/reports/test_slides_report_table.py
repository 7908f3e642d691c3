"""The tables of slides in the terminal, as CSV and as Markdown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from slides_folders import NETWORKS, write_comparison_of_slides, write_slides_run

from ncmi.reports.slides import (
    comparison_cells,
    print_slides_table,
    read_slide_comparison,
    read_slide_run,
    slides_markdown,
    slides_table,
    write_slides_csv,
)

QUICK: dict[str, Any] = {"patients": 20, "resamples": 0, "attention": 0, "epochs": 2}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison_of_slides(
        tmp_path_factory.mktemp("c") / "c",
        NETWORKS,
        seeds=(0, 1),
        prefix="patient",
        missing=["aem-ncmi-seed1"],
        **QUICK,
    )


def printed(record: Any) -> str:
    buffer = io.StringIO()
    print_slides_table(record, Console(file=buffer, width=100))
    return buffer.getvalue()


def test_the_terminal_shows_networks_by_methods_in_100_columns(comparison: Path) -> None:
    record = read_slide_comparison(comparison)
    found = printed(record)
    assert max(map(len, found.splitlines())) <= 100
    assert "Macro F1 / AUC on camelyon, mean ± sd over seeds; published: arXiv 2601.02543, Table III" in found
    assert found.count("published 0.") == 8
    assert "**" not in found
    assert "unfinished: aem-ncmi-seed1, not started" in found
    for cell in comparison_cells(record):
        assert f"{cell.scores['auc'].mean:.3f}" in found


def test_markdown_has_a_row_a_network_and_the_best_in_bold(comparison: Path) -> None:
    record = read_slide_comparison(comparison)
    title, _, *lines = slides_markdown(record).splitlines()
    assert title.startswith("Macro F1 / AUC on camelyon")
    assert lines[0] == "| Network | CE | NCMI-LP | NCMI-CC | NCMI |"
    assert lines[1] == "|---|---:|---:|---:|---:|"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["ABMIL", "TransMIL", "AEM", "ASMIL"]
    assert all(line.count("|") == 6 for line in lines)
    bold = {line.split("|")[1].strip(): line.count("**") // 2 for line in lines[2:]}
    # one network lacks a run: its means do not compare
    assert bold["AEM"] == 0
    assert min(bold["ABMIL"], bold["TransMIL"], bold["ASMIL"]) >= 2


def test_csv_holds_all_numbers(comparison: Path, tmp_path: Path) -> None:
    record = read_slide_comparison(comparison)
    found = pd.read_csv(write_slides_csv(record, tmp_path / "t.csv"))
    assert len(found) == 16
    pd.testing.assert_frame_equal(found, slides_table(record), check_dtype=False)
    row = found[(found["network"] == "ABMIL") & (found["method"] == "NCMI-LP")].iloc[0]
    base = found[(found["network"] == "ABMIL") & (found["method"] == "CE")].iloc[0]
    assert row["difference_macro_f1"] == pytest.approx(row["macro_f1_mean"] - base["macro_f1_mean"])
    assert row["difference_accuracy"] == pytest.approx(row["accuracy_mean"] - base["accuracy_mean"])
    assert row["difference_auc_low"] < row["difference_auc"] < row["difference_auc_high"]
    assert row["difference_auc_patients_low"] < row["difference_auc"] < row["difference_auc_patients_high"]
    assert (row["published_macro_f1"], row["published_auc"], row["pairs"], row["repeats"]) == (0.567, 0.892, 2, 2)
    assert np.isnan(base["difference_auc"])
    assert not found["simulation"].any()


def test_tables_of_a_run(tmp_path: Path) -> None:
    record = read_slide_run(write_slides_run(tmp_path / "run", **(QUICK | {"resamples": 30})))
    assert record.results is not None
    frame = slides_table(record)
    assert list(frame["method"]) == ["NCMI", "NCMI-CC", "NCMI-LP"]
    head = record.results.test["head"].scores["macro_f1"]
    assert (frame["macro_f1"][0], frame["macro_f1_low"][0], frame["macro_f1_high"][0]) == (
        head.value,
        head.low,
        head.high,
    )
    assert list(frame["slides"]) == [40] * 3
    found = printed(record)
    assert max(map(len, found.splitlines())) <= 100
    assert f"{head.low:.3f} … {head.high:.3f}" in found
    assert "ABMIL with NCMI on camelyon, seed 0: test slides" in found
    text = slides_markdown(record)
    assert f"| {head.value:.3f}<br>{head.low:.3f} … {head.high:.3f} |" in text


def test_an_unfinished_run_has_an_empty_table(tmp_path: Path) -> None:
    record = read_slide_run(write_slides_run(tmp_path / "run", stopped_after=1, **QUICK))
    assert slides_table(record).empty
    assert "Test data" in printed(record)


def test_pipes_in_names_are_escaped(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(tmp_path / "c", ("abmil",), seeds=(0,), **QUICK)
    path = folder / "comparison.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"CE"', '"C|E"'), encoding="utf-8")
    assert "| Network | C\\|E |" in slides_markdown(read_slide_comparison(folder))
