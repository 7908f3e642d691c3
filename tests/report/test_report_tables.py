"""The tables of runs and comparisons in the terminal, as CSV and as Markdown."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from folders import NETWORKS, edit, write_bag_comparison, write_bag_run, write_run
from rich.console import Console

from ncmi.readouts.metrics import SCORES
from ncmi.recipes.names import READOUTS
from ncmi.report.records import Comparison, ReportError, read_comparison, read_run
from ncmi.report.statistics import Row, best_of_table, comparison_rows, shown_rows
from ncmi.report.tables import comparison_table, csv_text, print_table, run_table, to_csv, to_markdown
from ncmi.report.write import write_csv

NewComparison = Callable[..., Path]
QUICK: dict[str, Any] = {"patients": 20, "resamples": 0, "attention": 0, "epochs": 2}


def printed(record: Any, width: int = 100, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(record, console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rename(folder: Path, old: str, new: str) -> None:
    path = folder / "comparison.json"
    path.write_text(path.read_text(encoding="utf-8").replace(f'"label": "{old}"', f'"label": "{new}"'), "utf-8")


# --- tables and images


def test_frame_holds_the_rows(full_record: Comparison, full_rows: tuple[Row, ...]) -> None:
    frame, rows = comparison_table(full_record, full_rows), full_rows
    assert frame["method"].tolist() == [row.method for row in rows]
    assert frame["accuracy_mean"].tolist() == [row.scores["accuracy"].mean for row in rows]
    first, difference = frame.iloc[0], rows[0].scores["accuracy"].difference
    assert difference is not None
    assert (first["difference_accuracy_low"], first["difference_accuracy_high"]) == difference.interval
    assert first["pairs"] == 5
    assert first["difference_accuracy_p"] == difference.wilcoxon_p
    baseline = frame[frame["method"] == "CE"].iloc[0]
    assert math.isnan(baseline["difference_accuracy"])
    assert baseline["pairs"] == 0
    # four pairs: too few for a signed-rank test
    assert math.isnan(frame[frame["method"] == "OPL"].iloc[0]["difference_accuracy_p"])
    assert set(frame["readout"]) == set(READOUTS.values())


def test_csv_gives_the_frame_back(
    full_comparison: Path, full_record: Comparison, full_rows: tuple[Row, ...], tmp_path: Path
) -> None:
    path = write_csv(full_comparison, tmp_path / "table.csv")
    frame = comparison_table(full_record, full_rows)
    pd.testing.assert_frame_equal(pd.read_csv(path), frame, check_dtype=False)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_csv_into_a_missing_folder_is_an_error(full_record: Comparison, tmp_path: Path) -> None:
    with pytest.raises(
        ReportError, match=r"table.csv: cannot be written \(No such file or directory\): give a path in an existing"
    ):
        write_csv(full_record, tmp_path / "missing" / "table.csv")


def test_markdown(full_record: Comparison, full_rows: tuple[Row, ...]) -> None:
    lines = to_markdown(full_record).splitlines()
    scores = "Balanced % | Macro F1 | Macro AUC | NLL | ECE %"
    assert lines[0] == f"| Method | n | Accuracy % | Δ CE | 95 % interval | {scores} | s/epoch | MB | CMI | Γ | NCMI |"
    rows = shown_rows(full_rows)
    # SupCon has no trained head
    assert len(lines) == 2 + 12 + 13 + 13 == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    bold = {name: {row.name for row in best_of_table(rows, name)} for name in SCORES}
    assert {line.split("|")[1].strip() for line in lines if "**" in line} == set.union(*bold.values())
    assert sum(line.split("|")[3].count("**") for line in lines) == 2 * len(bold["accuracy"])
    score = rows[0].scores["accuracy"]
    assert lines[2].replace("**", "").startswith(f"| NCMI | 5 | {100 * score.mean:.2f} ± {100 * score.sd:.2f} |")
    for name in ("CE", "CE-CC", "CE-LP"):
        assert "| – | – |" in next(line for line in lines if line.startswith(f"| {name} "))


@pytest.mark.parametrize("readouts", [("lp",), ("head", "knn")])
def test_every_readout_can_be_shown(full_record: Comparison, readouts: tuple[str, ...]) -> None:
    lines = to_markdown(full_record, readouts=readouts).splitlines()[2:]
    text = printed(full_record, readouts=readouts)
    for readout in READOUTS:
        name = "NCMI" if readout == "head" else f"NCMI-{READOUTS[readout]}"
        shown = readout in readouts
        assert any(line.startswith(f"| {name} ") for line in lines) == shown
        assert any(line.startswith(f" {name} ") for line in text.splitlines()) == shown


def test_markdown_escapes_pipes(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    rename(folder, "NCMI", "N|CMI")
    assert to_markdown(folder).splitlines()[2].startswith(r"| N\|CMI |")


def test_terminal_table_fits_100_columns(full_record: Comparison, full_rows: tuple[Row, ...]) -> None:
    text = printed(full_record)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text.replace(" … ", "")  # nothing is cut short
    for row in shown_rows(full_rows):
        score = row.scores["accuracy"]
        assert row.method in text
        assert f"{100 * score.mean:.2f} ± {100 * score.sd:.2f}" in text
    assert "Test accuracy on digits, mean ± sd over 5 seeds" in text
    assert "Δ: difference from CE by the same read-out" in text
    assert "unfinished: runs/opl-seed4, stopped after epoch 7 of 20" in text
    assert "unfinished: runs/cmic-seed4, not started" in text


def test_narrow_terminal_leaves_out_cmi_and_separation(full_record: Comparison) -> None:
    text = printed(full_record, width=80)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text.replace(" … ", "")
    headers = [line for line in text.splitlines() if "Method" in line]
    assert not any("Γ" in header for header in headers)
    assert any("NCMI" in header for header in headers)


def test_names_are_not_markup(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    rename(folder, "NCMI", "[red]<b>x")
    assert "[red]<b>x-CC" in printed(folder)
    assert "<b>" not in to_markdown(folder)


def test_one_seed_shows_dashes(new_comparison: NewComparison) -> None:
    text = printed(new_comparison(seeds=[0]))
    line = next(line for line in text.splitlines() if "NCMI-LP" in line)
    assert "±" not in line
    assert " – " in line
    assert "mean ± sd over 1 seed" in text


def test_one_label_everywhere(full_record: Comparison, full_rows: tuple[Row, ...]) -> None:
    """A loss is called by its entry's label, and by nothing else, in the terminal, in Markdown and in CSV."""
    record, rows = full_record, shown_rows(full_rows)
    names = [line.split("|")[1].strip() for line in to_markdown(record).splitlines()[2:]]
    assert names == [row.name for row in rows]
    lines = [line.strip() for line in printed(record).splitlines()]
    assert [next(line for line in lines if line.startswith(f"{name} ")) for name in names]
    frame = pd.read_csv(io.StringIO(to_csv(record)))
    assert set(names) <= set(frame["method"])
    assert {method.rpartition("-")[0] or method for method in frame["method"] if "CMIC" not in method} <= {
        entry.label for entry in record.entries
    }


@pytest.mark.parametrize("name", ["=1+1", "+x", "-cmd|'/c'!A1", "@sum", "\tx", "\rx"])
def test_no_name_in_a_csv_is_a_formula(name: str) -> None:
    frame = pd.DataFrame({"method": [name, "NCMI"], "count": [-1, 2], "value": [-0.5, 1e-7], "text": ["-0.5", "+1e-3"]})
    lines = csv_text(frame)
    back = pd.read_csv(io.StringIO(lines, newline=""), dtype={"text": str})
    # tabs and ends of lines are shown by their codes
    assert back["method"].tolist() == [f"'{name}".replace("\r", r"\r").replace("\t", r"\t"), "NCMI"]
    # numbers stay numbers, in words too
    assert back["count"].tolist() == [-1, 2]
    assert back["value"].tolist() == [-0.5, 1e-7]
    assert back["text"].tolist() == ["-0.5", "+1e-3"]


def test_a_hostile_label_is_no_formula_in_the_table_of_a_comparison(new_comparison: NewComparison) -> None:
    folder = new_comparison(seeds=[0])
    rename(folder, "NCMI", "=HYPERLINK(x)")
    frame = pd.read_csv(io.StringIO(to_csv(folder)))
    assert "'=HYPERLINK(x)" in frame["method"].tolist()
    assert not frame["method"].str.startswith("=").any()


# --- bags


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Read once: the rows of a record are kept."""
    folder = write_bag_comparison(
        tmp_path_factory.mktemp("c") / "c",
        NETWORKS,
        seeds=(0, 1),
        prefix="patient",
        missing=["aem-ncmi-seed1"],
        **QUICK,
    )
    return read_comparison(folder)


def test_the_terminal_shows_bags_in_100_columns(comparison: Comparison) -> None:
    text = printed(comparison)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text.replace(" … ", "")
    assert "Macro F1 and Macro AUC on camelyon, mean ± sd over 2 seeds" in text
    assert "published: arXiv" in text
    assert text.count(" / 0.") == 8
    assert "**" not in text
    assert "unfinished: runs/aem-ncmi-seed1, not started" in text
    for row in comparison_rows(comparison):
        assert f"{row.scores['macro_auc'].mean:.3f}" in text


def test_markdown_of_bags_has_the_best_of_each_network_and_readout_in_bold(comparison: Comparison) -> None:
    head, rule, *lines = to_markdown(comparison).splitlines()
    assert head.startswith("| Method | n | Macro F1 | Δ CE | 95 % interval | over patients | Macro AUC |")
    assert rule.count("---:") == head.count("|") - 2
    names = [line.split("|")[1].strip() for line in lines]
    assert names[:4] == ["ABMIL, NCMI", "ABMIL, CE", "TransMIL, NCMI", "TransMIL, CE"]
    assert len(names) == 24
    assert len({line.count("|") for line in lines}) == 1
    bold = {name: line.count("**") // 2 for name, line in zip(names, lines, strict=True)}
    # one network lacks a run: its means do not compare
    assert sum(bold[name] for name in names if name.startswith("AEM")) == 0
    for network in ("ABMIL", "TransMIL", "ASMIL"):
        for suffix in ("", "-CC", "-LP"):
            assert bold[f"{network}, NCMI{suffix}"] + bold[f"{network}, CE{suffix}"] >= 2


def test_csv_of_bags_holds_all_numbers(comparison: Comparison, tmp_path: Path) -> None:
    frame = pd.read_csv(write_csv(comparison, tmp_path / "t.csv"))
    assert len(frame) == 24
    pd.testing.assert_frame_equal(frame, comparison_table(comparison), check_dtype=False)

    def line(method: str) -> Any:
        return frame[(frame["network"] == "ABMIL") & (frame["method"] == method)].iloc[0]

    row, base = line("NCMI-LP"), line("CE-LP")
    assert row["difference_macro_f1"] == pytest.approx(row["macro_f1_mean"] - base["macro_f1_mean"])
    assert row["difference_accuracy"] == pytest.approx(row["accuracy_mean"] - base["accuracy_mean"])
    assert row["difference_macro_auc_low"] < row["difference_macro_auc"] < row["difference_macro_auc_high"]
    low, high = row["difference_macro_auc_patients_low"], row["difference_macro_auc_patients_high"]
    assert low < row["difference_macro_auc"] < high
    assert (row["published_macro_f1"], row["published_macro_auc"]) == (0.567, 0.892)
    assert (row["pairs"], row["seeds"]) == (2, 2)
    assert np.isnan(base["difference_macro_auc"])
    assert not frame["simulation"].any()


def test_pipes_in_names_of_bags_are_escaped(tmp_path: Path) -> None:
    folder = write_bag_comparison(tmp_path / "c", ("abmil",), seeds=(0,), **QUICK)
    rename(folder, "CE", "C|E")
    assert r"Δ C\|E" in to_markdown(folder)
    assert r"| C\|E-LP |" in to_markdown(folder)


def test_a_simulation_is_called_one(tmp_path: Path) -> None:
    folder = write_bag_comparison(tmp_path / "c", ("abmil",), seeds=(0,), simulation=True, **QUICK)
    assert printed(folder).startswith("Simulation: no slide of this cohort is real.")
    edit(folder / "comparison.json", lambda content: content.update(simulation=False))
    assert "Simulation" in to_markdown(folder / "runs" / "abmil-ncmi-seed0")


# --- runs


def test_tables_of_a_run(tmp_path: Path) -> None:
    run = read_run(write_bag_run(tmp_path / "run", **(QUICK | {"resamples": 30, "patients": 100})))
    frame = run_table(run)
    assert list(frame["method"]) == ["NCMI", "NCMI-CC", "NCMI-LP"]
    head = run.finished.readouts["head"].test.macro_f1
    assert (frame["macro_f1"][0], frame["macro_f1_low"][0], frame["macro_f1_high"][0]) == (
        head.value,
        head.low,
        head.high,
    )
    assert list(frame["samples"]) == [200] * 3
    text = printed(run)
    assert max(map(len, text.splitlines())) <= 100
    assert f"{head.low:.3f} … {head.high:.3f}" in text
    assert "ABMIL with NCMI on camelyon, seed 0: test data" in text
    assert f"| {head.value:.3f}<br>{head.low:.3f} … {head.high:.3f} |" in to_markdown(run)


def test_a_run_on_a_table_has_the_same_table(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", "focal"))
    assert list(run_table(run)["method"]) == ["Focal", "Focal-CC", "Focal-LP", "Focal-kNN"]
    assert "ConvNet with Focal on digits, seed 0: test data" in printed(run)


def test_an_unfinished_run_has_an_empty_table(tmp_path: Path) -> None:
    run = read_run(write_bag_run(tmp_path / "run", stopped_after=1, **QUICK))
    assert run_table(run).empty
    assert "Test data" in printed(run)
