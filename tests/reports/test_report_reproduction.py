"""The report of a reproduced table: its numbers, its links, and what it does with runs and files that are not there."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from reproduction_helpers import CE, NCMI, POWER, FakeEntry, edit, set_results, without_validation
from reproduction_helpers import write_reproduction_folder as write_folder
from rich.console import Console
from scipy import stats

from ncmi.reports import (
    ReportError,
    print_reproduction,
    read_comparison,
    read_run,
    write_report,
    write_reproduction,
)
from ncmi.reports.published import published
from ncmi.reports.statistics import method_name

NewRun = Callable[..., Path]
FILES = ["figure.png", "figure.svg", "report.html", "results.json", "table.csv", "table.md"]


def networks(*names: str) -> dict[str, list[FakeEntry]]:
    return {
        name: [
            FakeEntry(f"{name}-{entry.name}", entry.label, entry.objective, entry.options, name)
            for entry in (CE, NCMI, POWER)
        ]
        for name in names
    }


@pytest.fixture
def table1(new_run: NewRun, tmp_path: Path) -> Path:
    groups = networks("resnet18", "resnet34")
    return write_folder(tmp_path / "out", new_run, "table1", groups, missing=[("resnet34-ncmi-power", 2)])


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "reproduction.json")


def links(page: Path) -> list[str]:
    return [unquote(target) for target in re.findall(r'<a href="([^"]*)"', page.read_text(encoding="utf-8"))]


def test_numbers_against_numpy_and_scipy(table1: Path) -> None:
    write_reproduction(table1)
    frame = pd.read_csv(table1 / "table.csv")
    runs = table1.parent / "runs"

    def accuracy(entry: str, readout: str) -> np.ndarray:
        files = [json.loads((runs / f"{entry}-seed{seed}/results.json").read_text("utf-8")) for seed in range(3)]
        return np.array([100 * file["readouts"][readout]["test_accuracy"] for file in files])

    for network in ("resnet18", "resnet34"):
        own, base = accuracy(f"{network}-ncmi-released", "lp"), accuracy(f"{network}-ce", "head")
        chosen = frame[(frame["group"] == network) & (frame["method"] == "NCMI-LP (released)")]
        assert len(chosen) == 1
        row = chosen.iloc[0]
        expected = stats.ttest_rel(own, base).confidence_interval(0.95)
        assert row["accuracy_mean"] == pytest.approx(own.mean())
        assert row["accuracy_sd"] == pytest.approx(own.std(ddof=1))
        assert row["difference"] == pytest.approx((own - base).mean())
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((expected.low, expected.high))
        assert row["runs"].split() == [f"../runs/{network}-ncmi-released-seed{seed}" for seed in range(3)]
    assert len(frame) == 10
    assert frame["method"].tolist()[:3] == ["Cross-entropy", "NCMI-CC (released)", "NCMI-LP (released)"]


def test_results_hold_every_run(table1: Path) -> None:
    write_reproduction(table1)
    content = json.loads((table1 / "results.json").read_text(encoding="utf-8"))
    assert (content["experiment"], content["scale"], content["seeds"]) == ("table1", "paper", [0, 1, 2])
    assert content["machine"] == {"cpu": "Example CPU, 2 cores"}
    first, second = content["groups"]
    assert [len(first["runs"]), len(second["runs"])] == [9, 8]
    assert second["unfinished"] == [{"folder": "../runs/resnet34-ncmi-power-seed2", "state": "not started"}]
    for group in (first, second):
        for run in group["runs"]:
            results = read_run(table1 / run["folder"]).results
            assert results is not None
            assert run["test_accuracy"] == {n: 100 * r.test_accuracy for n, r in results.readouts.items()}
        for row in group["rows"]:
            assert row["accuracy_mean"] == pytest.approx(np.mean(list(row["accuracies"].values())))
    base = next(row for row in first["rows"] if row["method"] == "Cross-entropy")
    assert base["difference"] is None
    assert base["differences"] == {}


def test_every_cell_links_to_its_run_folders(table1: Path) -> None:
    page = write_reproduction(table1)
    assert page == table1 / "report.html"
    targets = links(page)
    for target in targets:
        # the one folder that is not there is that of the run that was not started
        assert (table1 / target).is_dir() or target == "../runs/resnet34-ncmi-power-seed2"
    rows = 2 * (3 + 3 + 3 + 3 + 3) - 2
    assert len([target for target in targets if target.startswith("../runs/")]) == rows + 1
    markdown = (table1 / "table.md").read_text(encoding="utf-8")
    found = re.findall(r"\[\d\]\(([^)]*)\)", markdown)
    assert len(found) == rows
    assert all((table1 / target / "results.json").is_file() for target in found)


def test_published_figures_stand_beside_where_the_paper_has_them(table1: Path) -> None:
    write_reproduction(table1)
    frame = pd.read_csv(table1 / "table.csv").set_index(["group", "method"])["published"]
    assert frame["resnet18", "NCMI-CC (released)"] == 76.45
    assert frame["resnet34", "NCMI-LP (released)"] == 77.34
    assert frame["resnet34", "Cross-entropy"] == 76.42
    # the paper knows no power of the separation
    assert math.isnan(frame["resnet18", "NCMI-CC (p = −4, fixed)"])
    page = (table1 / "report.html").read_text(encoding="utf-8")
    assert page.count("published 76.45") == 1
    edit(table1 / "reproduction.json", lambda content: content.update(scale="small"))
    write_reproduction(table1)
    assert "published 76.45" not in (table1 / "report.html").read_text(encoding="utf-8")
    assert pd.read_csv(table1 / "table.csv")["published"].isna().all()


def test_published_cells_of_the_ablation() -> None:
    def cell(distribution: str, centre: str, readout: str = "cc", network: str = "resnet18") -> float | None:
        options = {"name": "ncmi", "separation_power": 1.0, "distribution": distribution, "centre": centre}
        return published(network, options, readout)

    assert [cell("nsf", "frozen"), cell("nsf", "none"), cell("softmax", "frozen"), cell("softmax", "none")] == [
        76.45,
        74.9,
        1.72,
        5.64,
    ]
    assert cell("softmax", "none", "lp") is None
    assert cell("nsf", "none", network="resnet50") is None
    assert published("resnet_small", {"name": "cross_entropy"}, "head") is None


def test_verdict_names_the_highest_and_judges_the_difference(new_run: NewRun, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, new_run, "table1", {"resnet18": [CE, NCMI]})
    for seed, (base, own) in enumerate([(70.0, 71.5), (70.5, 71.9), (69.8, 71.4)]):
        set_results(folder, f"ce-seed{seed}", accuracy=base)
        set_results(folder, f"ncmi-released-seed{seed}", "cc", accuracy=own)
        set_results(folder, f"ncmi-released-seed{seed}", "lp", accuracy=own - 3)
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "NCMI-CC (released) has the highest mean, 71.60 %, of 3 rows" in page
    assert re.search(
        r"NCMI-CC \(released\) is above cross-entropy by \+1\.50 points [^:]*: distinguishable from zero", page
    )


def test_where_the_baseline_is_highest_the_best_ncmi_row_is_judged(new_run: NewRun, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, new_run, "table1", {"resnet18": [CE, NCMI]})
    for seed, (base, own) in enumerate([(70.0, 69.0), (70.5, 71.0), (69.8, 69.6)]):
        set_results(folder, f"ce-seed{seed}", accuracy=base)
        for readout in ("cc", "lp"):
            set_results(folder, f"ncmi-released-seed{seed}", readout, accuracy=own - (readout == "cc"))
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "Cross-entropy has the highest mean" in page
    assert re.search(r"NCMI-LP \(released\) is below cross-entropy by 0\.23 points [^:]*: not distinguishable", page)


def test_one_seed_and_an_empty_group(new_run: NewRun, tmp_path: Path) -> None:
    groups = networks("resnet18", "resnet50")
    gone = [(entry.name, 0) for entry in groups["resnet50"]]
    folder = write_folder(tmp_path, new_run, "table1", groups, seeds=[0], missing=gone)
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "one pair has no interval, so nothing can be concluded" in page
    assert "3 of 6 runs have not finished" in page
    assert "No run has finished yet." in (folder / "table.md").read_text(encoding="utf-8")
    assert pd.read_csv(folder / "table.csv")["accuracy_sd"].isna().all()
    assert written(folder) == FILES


def test_a_missing_baseline_is_told(new_run: NewRun, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, new_run, "table1", {"resnet18": [CE, NCMI]}, missing=[("ce", k) for k in range(3)])
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "No run of the baseline (cross-entropy) has finished" in page


def test_nothing_finished_is_an_error(new_run: NewRun, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, new_run, "table1", {"resnet18": [CE]}, unfinished=[("ce", k) for k in range(3)])
    with pytest.raises(ReportError, match=r"none of its 3 runs has finished: continue the reproduction"):
        write_reproduction(folder)
    assert written(folder) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("reproduction.json", "{", r"reproduction.json: damaged, not JSON"),
        ("reproduction.json", '{"format": 1}', r"the key 'experiment' is missing"),
        (
            "reproduction.json",
            '{"format": 1, "experiment": "table9", "scale": "paper"}',
            r"unknown experiment 'table9': use the ncmi that wrote it",
        ),
        (
            "reproduction.json",
            '{"format": 1, "experiment": "table1", "scale": "huge"}',
            r"unknown scale 'huge'",
        ),
        (
            "reproduction.json",
            '{"format": 1, "experiment": "table1", "title": "x", "scale": "paper", "groups": [3]}',
            r"'groups\[0\]' is not an object: reproduce it again",
        ),
        (
            "reproduction.json",
            '{"format": 1, "experiment": "table1", "title": "x", "scale": "paper", '
            '"groups": [{"name": "../x", "title": "x"}]}',
            r"group '../x' is no name of a folder",
        ),
        ("resnet18/comparison.json", "[]", r"comparison.json: holds a list"),
        ("../runs/resnet18-ce-seed0/results.json", "{", r"resnet18-ce-seed0/results.json: damaged"),
    ],
)
def test_damage_names_the_file_and_writes_nothing(table1: Path, name: str, content: str, message: str) -> None:
    (table1 / name).write_text(content, encoding="utf-8")
    with pytest.raises(ReportError, match=message):
        write_reproduction(table1)
    assert written(table1) == []


def test_a_group_without_its_folder_names_the_cure(table1: Path) -> None:
    (table1 / "resnet34/comparison.json").unlink()
    with pytest.raises(ReportError, match=r"resnet34: no comparison.json: reproduce it again"):
        write_reproduction(table1)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"no reproduced table or figure \(no reproduction.json\): give the folder"):
        write_reproduction(tmp_path)


def test_all_files_or_none(table1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reproduction(table1)
    before = {name: (table1 / name).read_bytes() for name in FILES}
    edit(table1 / "reproduction.json", lambda content: content.update(title="Another title"))
    calls = 0
    real = os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match=r"No space left on device"):
        write_reproduction(table1)
    assert {name: (table1 / name).read_bytes() for name in FILES} == before
    assert written(table1) == FILES


def test_the_same_files_every_time_and_no_other_page_is_replaced(table1: Path) -> None:
    write_reproduction(table1)
    before = {name: (table1 / name).read_bytes() for name in FILES}
    write_reproduction(table1)
    assert {name: (table1 / name).read_bytes() for name in FILES} == before
    (table1 / "report.html").write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(ReportError, match=r"exists and is no report of ncmi"):
        write_reproduction(table1)


def test_write_report_knows_the_folder(table1: Path, tmp_path: Path) -> None:
    assert write_report(table1) == table1 / "report.html"
    assert written(table1) == FILES
    (tmp_path / "elsewhere").mkdir()
    page = write_report(table1, tmp_path / "elsewhere")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["report.html"]
    existing = [target for target in links(page) if "ncmi-power-seed2" not in target]
    assert all((page.parent / target).is_dir() for target in existing)


def test_a_group_has_a_report_as_any_comparison(table1: Path) -> None:
    page = write_report(table1 / "resnet18")
    text = page.read_text(encoding="utf-8")
    for label in ("NCMI-CC (released)", "NCMI-CC (p = −4, fixed)", "separation_power = -4.0"):
        assert label in text
    assert all((page.parent / target / "results.json").is_file() for target in links(page))
    runs = read_comparison(table1 / "resnet18").runs
    assert len(runs) == 9
    assert ".." not in str(runs[0].folder.relative_to(table1.parent))


def test_entries_of_one_label_are_refused(table1: Path) -> None:
    path = table1 / "resnet18/comparison.json"
    path.write_text(path.read_text("utf-8").replace("NCMI (p = \\u22124, fixed)", "NCMI (released)"), encoding="utf-8")
    with pytest.raises(ReportError, match=r"two entries are labelled 'NCMI \(released\)': give each a label"):
        write_reproduction(table1)


@pytest.mark.parametrize("name", ["<b>&", '"><script>alert(1)</script>', "a|b $x$"])
def test_names_are_escaped(new_run: NewRun, tmp_path: Path, name: str) -> None:
    entry = FakeEntry("odd", f"odd {name}", "focal")
    folder = write_folder(tmp_path, new_run, "table1", {"resnet18": [CE, entry]}, seeds=[0])
    edit(folder / "reproduction.json", lambda content: content.update(title=name))
    edit(folder / "reproduction.json", lambda content: content["groups"][0].update(title=name))
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>&" not in page
    for line in (folder / "table.md").read_text(encoding="utf-8").splitlines():
        assert "<script" not in line
        if line.startswith("| odd"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 14


def test_printed_tables_fit_100_columns(table1: Path) -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_reproduction(table1, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    for found in ("resnet18: Test accuracy", "resnet34: Test accuracy", "NCMI-LP (p = −4, fixed)", "highest mean"):
        assert found in text
    assert "unfinished: ../../runs/resnet34-ncmi-power-seed2, not started" in text


def test_training_on_all_data_leaves_validation_out(new_run: NewRun, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, new_run, "table1", {"resnet18": [CE, NCMI]}, seeds=[0])
    without_validation(folder)
    run = read_run(tmp_path / "runs/ce-seed0")
    assert run.results is not None
    assert math.isnan(run.results.readouts["head"].validation_accuracy)
    assert run.metrics["validation_accuracy"].isna().all()
    page = write_reproduction(folder).read_text(encoding="utf-8")
    assert "so the last epoch is judged" in page
    single = write_report(tmp_path / "runs/ce-seed0").read_text(encoding="utf-8")
    group = write_report(folder / "resnet18").read_text(encoding="utf-8")
    for text in (single, group):
        assert "there is no validation part to measure them on" in text
    assert "<td>–</td>" in single


def test_readouts_stand_before_what_is_in_brackets() -> None:
    assert method_name("NCMI (released)", "cc") == "NCMI-CC (released)"
    assert method_name("softmax, centred", "lp") == "softmax, centred, LP"
    assert method_name("odd (name", "cc") == "odd (name-CC"
