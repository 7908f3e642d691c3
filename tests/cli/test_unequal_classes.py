"""A table of 2,000 rows of one class and 6 of another shows as what it is, from training to the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import ncmi, read

QUICK = ("--training.epochs", "2", "--training.accelerator", "cpu", "--training.threads", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run whose columns say nothing of the class, and what was printed."""
    folder = tmp_path_factory.mktemp("unequal")
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.4f},{b:.4f},{'ill' if place < 6 else 'well'}" for place, (a, b) in enumerate(rng.normal(size=(2006, 2)))
    ]
    (folder / "table.csv").write_text("\n".join(["a,b,label", *rows]) + "\n", encoding="utf-8")
    done = ncmi("train", "table.csv", "--out", "run", "--objective", "cross_entropy", *QUICK, cwd=folder)
    return folder / "run", done.stdout


def test_training_leads_with_macro_f1(run: tuple[Path, str]) -> None:
    folder, text = run
    test = read(folder / "results.json")["readouts"]["head"]["test"]
    assert test["accuracy"]["value"] == pytest.approx(400 / 401)
    assert test["macro_f1"]["value"] == pytest.approx(0.5, abs=0.001)
    assert test["balanced_accuracy"]["value"] == 0.5
    header = next(line for line in text.splitlines() if line.split()[:1] == ["read-out"])
    assert header.index("Macro F1") < header.index("Balanced") < header.index("Accuracy %")
    assert "Classes are unequal" in text
    assert "99.75" in text
    line = next(line for line in text.splitlines() if line.split()[:1] == ["ill"])
    # precision, recall, F1; then train, validation and test
    assert line.split()[-3:] == ["4", "1", "1"]
    assert "ill taken for well" in text


def test_the_page_says_so_and_shows_who_is_misclassified(run: tuple[Path, str]) -> None:
    folder, _ = run
    ncmi("report", folder, cwd=folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    verdict = page[page.index("Test macro F1") :][:1200]
    assert "Test accuracy" in verdict
    assert "Classes are unequal" in verdict
    assert "99.75" in page
    assert "What is misclassified" in page
    assert (folder / "misclassified.csv").read_text(encoding="utf-8").count("\n") == 2


def test_groups_of_a_table_are_no_patients(tmp_path: Path) -> None:
    rows = "".join(f"{i * 7 % 11},{i % 3},h{i // 4},{'ab'[i % 2]}\n" for i in range(160))
    (tmp_path / "t.csv").write_text("x,z,house,label\n" + rows)
    words = ("train", "t.csv", "--data.group-column", "house", "--out", "run", *QUICK)
    done = ncmi(*words, cwd=tmp_path)
    assert " groups, " in done.stdout
    ncmi("report", "run", cwd=tmp_path)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "resamples of groups" in page
    assert "patient" not in done.stdout + re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
