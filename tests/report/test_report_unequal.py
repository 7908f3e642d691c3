"""Classes of unequal size: macro F1 leads in every table, difference and sentence; and what a run misclassifies."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from folders import set_results, write_comparison, write_run
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from ncmi.readouts.calibration import reliability
from ncmi.readouts.scores import pooled_reliability
from ncmi.report import pages
from ncmi.report.records import Comparison, ReportError, read_comparison, read_run
from ncmi.report.statistics import Row, best_rows, comparison_rows
from ncmi.report.tables import comparison_table, print_table, to_markdown
from ncmi.report.verdict import run_verdict, verdict

NAMES = (
    "well",
    "a class whose name is far too long for a table on a terminal",
    "מחלקה",
    "很长的类别名称很长的类别名称",
)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("unequal") / "comparison"
    write_comparison(folder, ("ncmi", "cross_entropy"), range(3), class_names=NAMES, sizes=(300, 40, 20, 12))
    for seed in range(3):
        # against what accuracy says, macro F1 is clearly lower
        for name, f1 in (("ncmi", 0.61), ("cross_entropy", 0.72)):
            set_results(folder / "runs" / f"{name}-seed{seed}", macro_f1=f1 + 0.001 * seed * (name == "ncmi"))
    return read_comparison(folder)


def test_verdict_table_and_csv_lead_with_macro_f1(comparison: Comparison) -> None:
    rows = comparison_rows(comparison)
    sentences = verdict(comparison, rows)
    assert re.search(r"below CE by 0\.109\d in macro F1 .*distinguishable from zero; .*accuracy", sentences[0])
    assert any("unequal" in sentence and "300" in sentence and "12" in sentence for sentence in sentences)
    assert any(sentence.startswith("Highest mean macro F1: by the trained head CE") for sentence in sentences)
    frame = comparison_table(comparison, rows).set_index("method")
    assert frame.loc["NCMI", "difference_macro_f1"] == pytest.approx(-0.109)
    assert frame.loc["NCMI", "difference_macro_f1_high"] < 0
    heads = to_markdown(comparison).splitlines()[0]
    assert heads.index("Macro F1") < heads.index("Accuracy %") < heads.index("Balanced %")
    for score in ("balanced_accuracy", "macro_auc", "nll", "calibration_error"):
        assert frame[f"{score}_mean"].notna().all()


def test_equal_classes_are_led_by_accuracy(full_record: Comparison, full_rows: tuple[Row, ...]) -> None:
    assert full_record.judged == ("accuracy",)
    assert not any("unequal" in sentence for sentence in verdict(full_record, full_rows))


def test_the_lowest_log_loss_is_the_best(full_rows: tuple[Row, ...]) -> None:
    rows = [row for row in full_rows if row.readout == "head"]
    complete = [row for row in rows if len(row.seeds) == 5]
    least = min(round(row.scores["nll"].mean, 4) for row in complete)
    assert {round(row.scores["nll"].mean, 4) for row in best_rows(rows, "nll")} == {least}


@pytest.mark.parametrize("width", [80, 60])
def test_figures_of_narrow_terminals_are_whole(comparison: Comparison, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(comparison, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text.replace(" … ", "")
    for row in comparison_rows(comparison):
        if row.readout != "knn":
            assert f"{row.scores['macro_f1'].mean:.4f} ± " in text
            assert f"{100 * row.scores['accuracy'].mean:.2f} ± " in text


def test_bins_of_folds_are_those_of_all_together() -> None:
    log_p = torch.log_softmax(2 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), 1)
    labels = torch.arange(300) % 3
    whole = reliability(log_p, labels)
    pooled = pooled_reliability([reliability(log_p[part], labels[part]) for part in (slice(0, 20), slice(20, 300))])
    assert pooled.counts == whole.counts
    np.testing.assert_allclose(np.array(pooled.accuracy, float), np.array(whole.accuracy, float), equal_nan=True)
    np.testing.assert_allclose(np.array(pooled.confidence, float), np.array(whole.confidence, float), equal_nan=True)


def write_mistakes_of(run: Path, **changes: Any) -> None:
    columns = {"sample": ["img/7.png", "'=1+1"], "label": ["well"] * 2, "prediction": ["מחלקה"] * 2}
    columns |= {"probability": ["0.99", "0.6"], "probability_of_label": ["0.001", "0.3"]}
    pd.DataFrame(columns | changes).to_csv(run / "misclassified.csv", index=False)


def test_the_page_of_a_run_shows_its_mistakes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "cross_entropy", kind="image", class_names=NAMES, sizes=(300, 40, 20, 12))
    assert "What is misclassified" not in pages.run_page(read_run(folder), folder / "report.html")
    write_mistakes_of(folder)
    (folder / "misclassified").mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "misclassified" / "0.png")
    page = pages.run_page(read_run(folder), folder / "report.html")
    section = page[page.index("<h2>What is misclassified") :]
    section = section[: section.index("</section>")]
    assert "img/7.png" in section
    assert section.count("data:image/png;base64,") == 1
    assert 'href="misclassified.csv"' in section
    assert run_verdict(read_run(folder))[0].startswith("Test macro F1")


@pytest.mark.parametrize("changes", [{"probability": "x"}, {"label": None}])
def test_a_damaged_table_of_mistakes_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write_run(tmp_path / "run", "cross_entropy", class_names=NAMES, sizes=(30, 4, 2, 1))
    write_mistakes_of(folder, **changes)
    if changes == {"label": None}:
        (folder / "misclassified.csv").write_text("sample\nx\n", encoding="utf-8")
    with pytest.raises(ReportError, match=r"misclassified\.csv"):
        pages.run_page(read_run(folder), folder / "report.html")
