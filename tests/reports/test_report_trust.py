"""Calibration and foreign data on the pages: numbers against independent ones, old runs, damaged files."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncmi.reports import ReportError, read_comparison, read_run, write_report
from ncmi.reports.calibration_sections import comparison_calibration, run_calibration
from ncmi.reports.figures.distances import distances_drawing
from ncmi.reports.figures.reliability import reliability_panel, wilson
from ncmi.reports.figures.svg import Panel
from ncmi.reports.foreign import read_foreign
from ncmi.reports.foreign_section import foreign_section
from ncmi.reports.reliability import Bins
from ncmi.reports.statistics import comparison_rows, results_of

NewRun = Callable[..., Path]
NewComparison = Callable[..., Path]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def bins_of(seed: int) -> dict[str, list[Any]]:
    counts = np.random.default_rng(seed).integers(0, 40, 15) * (np.arange(15) > 2)
    counts[9] = 0
    centres = (np.arange(15) + 0.5) / 15
    return {
        "counts": counts.tolist(),
        "confidence": [float(c) if n else None for c, n in zip(centres, counts, strict=True)],
        "accuracy": [round(0.9 * c * n) / n if n else None for c, n in zip(centres, counts, strict=True)],
    }


def measure(folder: Path, seed: int, *, temperature: bool = True) -> None:
    """Add to a fake run what a real one says of its probabilities: numbers that tell read-out and seed."""

    def change(results: dict[str, Any]) -> None:
        results["reliability"] = {}
        for place, (name, found) in enumerate(results["readouts"].items()):
            base = 0.1 * place + 0.01 * seed
            found |= {"test_nll": 0.2 + base, "test_brier": 0.3 + base, "test_calibration_error": 0.04 + base / 10}
            results["reliability"][name] = {"test": bins_of(seed)}
            if temperature:
                found |= {"temperature_scale": 1.5 + base, "test_calibrated_nll": 0.1 + base}
                found["test_calibrated_error"] = 0.02 + base / 10
                results["reliability"][name]["calibrated"] = bins_of(seed + 100)
        if not temperature:
            results["num_validation"] = 0

    edit(folder / "results.json", change)


def show_foreign(folder: Path, name: str = "other", **changes: Any) -> Path:
    edges = np.geomspace(1e-4, 1e-2, 41).tolist()
    scores = {score: {"auroc": 0.91, "fpr95": 0.125, "threshold": 1e-3} for score in ("distance", "max_probability")}
    found = {"format": 1, "data": name, "in_distribution": "digits", "num_in": 360, "num_out": 80, "readout": "cc"}
    distances = {"edges": edges, "in": [9] * 40, "out": [2] * 40}
    path = folder / f"ood-{re.sub(r'[^a-z]', '', name)}.json"
    path.write_text(json.dumps({**found, "scores": scores, "distances": distances, **changes}), encoding="utf-8")
    return path


class Tables(HTMLParser):
    """Cells of all tables of a piece of HTML."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def texts(panel: Panel) -> list[str]:
    return ["".join(node.itertext()).strip() for node in ET.fromstring(panel.svg).iter("text")]


# --- calibration


def test_a_run_tells_what_it_measured(new_run: NewRun) -> None:
    folder = new_run("ncmi", 3)
    measure(folder, 3)
    results = results_of(read_run(folder))
    assert results.reliability["lp"]["calibrated"].counts == tuple(bins_of(103)["counts"])
    source = run_calibration("NCMI", results, iter(range(7, 99)))
    head, *rows = Tables(source).rows[: 1 + len(results.readouts)]
    assert head == ["Read-out", "NLL", "NLL, /τ", "ECE %", "ECE %, /τ", "Brier", "τ"]
    assert rows[0] == ["head", "0.2300", "0.1300", "4.30", "2.30", "0.3300", "1.53"]
    assert rows[1] == ["cc (primary)", "0.3300", "0.2300", "5.30", "3.30", "0.4300", "1.63"]
    assert "Figure 7." in source
    for title in ("NCMI-CC, as trained", "NCMI-CC, divided by τ = 1.63", "NCMI-LP, divided by τ = 1.73"):
        assert title in source
    assert "kNN, as" not in source
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.count("<h2>Calibration</h2>") == 1
    identifiers = re.findall(r'\bid="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_runs_of_earlier_versions_have_no_such_section(new_run: NewRun, new_comparison: NewComparison) -> None:
    run, comparison = new_run("focal", 1), new_comparison(seeds=[0])
    edit(run / "results.json", lambda results: results["readouts"]["head"].update(test_calibration_error=0.1))
    for folder in (run, comparison):
        page = write_report(folder).read_text(encoding="utf-8")
        assert "Calibration" not in page
        assert "Out of distribution" not in page


def test_without_a_validation_part_only_as_trained(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0)
    measure(folder, 0, temperature=False)
    source = run_calibration("NCMI", results_of(read_run(folder)), iter([1]))
    assert Tables(source).rows[1] == ["head", "0.2000", "–", "4.00", "–", "0.3000", "–"]
    assert "No τ: this run has no validation part" in source
    assert "as trained" in source
    assert "divided by τ" not in source.replace("were divided by τ", "")


def test_an_infinite_likelihood_is_a_dash(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0)
    measure(folder, 0)
    edit(folder / "results.json", lambda results: results["readouts"]["head"].update(test_nll=None))
    assert Tables(run_calibration("NCMI", results_of(read_run(folder)), iter([1]))).rows[1][1] == "–"


def test_a_comparison_gives_means_over_seeds(new_comparison: NewComparison) -> None:
    folder = new_comparison(["ncmi", "cross_entropy", "focal", "poly"], seeds=[0, 1, 2])
    for objective, shift in (("ncmi", 0), ("cross_entropy", 10)):
        for seed in range(3):
            measure(folder / f"runs/{objective}-seed{seed}", seed + shift)
    measure(folder / "runs/focal-seed0", 0)  # the others are of an earlier version, and so is PolyLoss altogether
    record = read_comparison(folder)
    source = comparison_calibration(record.entries, comparison_rows(record))
    head, *rows = Tables(source).rows
    assert head == ["Method", "n", "NLL", "NLL, /τ", "ECE %", "ECE %, /τ", "Brier", "τ"]
    by_name = {row[0]: row[1:] for row in rows}
    assert list(by_name) == ["NCMI-CC", "NCMI-LP", "CE", "Focal"]
    values = 0.3 + 0.01 * np.arange(3)
    assert by_name["NCMI-CC"][:2] == ["3", f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"]
    assert by_name["CE"][1] == "0.3100 ± 0.0100"
    assert by_name["Focal"] == ["1", "0.2000", "0.1000", "4.00", "2.00", "0.3000", "1.50"]
    # the lowest of those with all seeds, in each column but that of τ; one seed does not compare, and two are level
    bold = re.findall(r"<b>([^<]*)</b>", source)
    assert bold == ["0.3100 ± 0.0100", "0.2100 ± 0.0100", "5.10 ± 0.10", "3.10 ± 0.10", "0.4100 ± 0.0100"] * 2
    assert source in write_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda bins: bins["counts"].append(1),
        lambda bins: bins.update(counts=[], confidence=[], accuracy=[]),
        lambda bins: bins["counts"].__setitem__(0, -1),
        lambda bins: bins["counts"].__setitem__(0, 2.5),
        lambda bins: bins["confidence"].__setitem__(0, 0.5),
        lambda bins: bins.update(accuracy=[1.5] * 15),
        lambda bins: bins.update(confidence=["high"] * 15),
        lambda bins: bins.update(confidence=[None] * 15),
    ],
)
def test_damaged_bins_name_file_and_place(new_run: NewRun, change: Callable[[dict[str, Any]], None]) -> None:
    folder = new_run()
    measure(folder, 0)
    edit(folder / "results.json", lambda results: change(results["reliability"]["cc"]["test"]))
    with pytest.raises(ReportError, match=r"results.json: 'reliability.cc.test' holds no bins: restore the file"):
        read_run(folder)


def test_damaged_reliability_names_the_file(new_run: NewRun) -> None:
    folder = new_run()
    edit(folder / "results.json", lambda results: results.update(reliability=[1]))
    with pytest.raises(ReportError, match=r"results.json: 'reliability' is \[1\], not an object"):
        read_run(folder)
    edit(folder / "results.json", lambda results: results.update(reliability={"cc": {"test": {"counts": [1]}}}))
    with pytest.raises(ReportError, match=r"results.json: the key 'reliability.cc.test.confidence' is missing"):
        read_run(folder)


@pytest.mark.parametrize(("right", "of"), [(0, 1), (1, 1), (7, 20), (500, 500)])
def test_wilson(right: int, of: int) -> None:
    z, p = 1.959963984540054, right / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    assert wilson(right, of) == pytest.approx((middle - half, middle + half), abs=1e-12)


@pytest.mark.parametrize("counts", [(3, 0, 1000), (0, 0, 1), (1_234_567, 1, 1)])
def test_reliability_panel(counts: tuple[int, ...]) -> None:
    nan = math.nan
    bins = Bins(
        counts,
        tuple(c if n else nan for c, n in zip((0.2, 0.5, 0.9), counts, strict=True)),
        tuple(a if n else nan for a, n in zip((0.0, 1.0, 0.5), counts, strict=True)),
    )
    panel = reliability_panel("r", "A <title> & $x$", bins)
    shown = texts(panel)
    assert "A <title> & $x$" in shown
    assert {str(count) for count in counts if count} <= set(shown)
    assert ("0" in shown) is False
    # 1000 samples at confidence 0.9 of which half are right: off; three at 0.2 of which none is right: not
    assert panel.svg.count("var(--vermilion)") > 0 or max(counts) < 1000
    label = ET.fromstring(panel.svg).get("aria-label")
    assert label is not None
    assert f"in 3 bins of {sum(counts)} test samples" in label


def test_reliability_panel_of_one_sample_accuses_nobody() -> None:
    panel = reliability_panel("r", "t", Bins((0, 1), (math.nan, 0.9), (math.nan, 1.0)))
    assert "var(--vermilion)" not in panel.svg
    assert "in 0 of them" in panel.svg


# --- foreign data


def test_foreign_data_on_the_page(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0)
    show_foreign(folder)
    show_foreign(folder, "<b>&\"'/$x$", num_out=81)
    (folder / "ood.txt").write_text("not ours")
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.count("<h2>Out of distribution</h2>") == 1
    section = page[page.index("<h2>Out of distribution") :]
    section = section[: section.index("</section>")]
    head, *rows = Tables(section).rows
    assert head == ["Score", "$x$: AUROC %", "$x$: FPR95 %", "other: AUROC %", "other: FPR95 %"]
    assert [row[1:] for row in rows[:2]] == [["91.00", "12.50"] * 2] * 2
    assert rows[0][0] == "distance to the nearest centroid"
    assert rows[1][0] == "1 − highest probability (cc)"
    assert "other: 80 samples against 360 of the test part" in section
    assert "<b>&" not in section


def test_scores_that_only_one_file_has(new_run: NewRun) -> None:
    folder = new_run()
    show_foreign(folder)
    told = {"auroc": 0.5, "fpr95": 1.0, "threshold": 1.0}
    show_foreign(folder, "second", scores={"distance": told, "of-the-future": told})
    rows = {row[0]: row[1:] for row in Tables(foreign_section(read_foreign(folder), iter([1]))).rows}
    assert rows["of-the-future"] == ["–", "–", "50.00", "100.00"]
    assert rows["1 − highest probability (cc)"] == ["91.00", "12.50", "–", "–"]


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1.0), (1e-3, 2e-3), (0.5, 0.5001)])
def test_histogram_of_distances(new_run: NewRun, low: float, high: float) -> None:
    folder = new_run()
    edges = np.geomspace(low, high, 41).tolist()
    show_foreign(folder, distances={"edges": edges, "in": [9] * 40, "out": [0] * 39 + [80]})
    (found,) = read_foreign(folder)
    panel = distances_drawing("d", found).panel()
    shown = texts(panel)
    assert {"test part of digits", "other", "other against digits", "95 % of the test part"} <= set(shown)
    assert not any("mathdefault" in text for text in shown)
    assert "AUROC 91.00 %" in panel.svg


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, "has format 3, this version reads 1"),
        ({"data": None}, "'data' is None, not a string"),
        ({"scores": {}}, "'scores' lacks 'distance'"),
        ({"scores": {"distance": {"auroc": 0.5}}}, "the key 'scores.distance.fpr95' is missing"),
        ({"distances": {"edges": [2.0, 1.0], "in": [1], "out": [1]}}, "'distances' is no histogram"),
        ({"distances": {"edges": [1.0, 1.0], "in": [1], "out": [1]}}, "'distances' is no histogram"),
        ({"distances": {"edges": [1.0, 2.0], "in": [1, 1], "out": [1]}}, "'distances' is no histogram"),
        ({"distances": {"edges": [1.0, "2"], "in": [1], "out": [1]}}, "'distances' is no histogram"),
        ({"distances": {"edges": [1.0], "in": [], "out": []}}, "'distances' is no histogram"),
        ({"distances": {"edges": [1.0, 2.0], "in": [0.5], "out": [1]}}, "'distances' is no histogram"),
    ],
)
def test_a_damaged_file_names_itself_and_the_cure(new_run: NewRun, changes: dict[str, Any], message: str) -> None:
    folder = new_run("ncmi", 0)
    path = show_foreign(folder, **changes)
    with pytest.raises(ReportError, match=message) as raised:
        write_report(folder)
    assert str(path) in str(raised.value)
    assert "`ncmi evaluate" in str(raised.value)
    assert not (folder / "report.html").exists()
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ReportError, match="damaged, not JSON"):
        write_report(folder)


def test_an_unfinished_run_has_neither(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0, stopped_after=3)
    show_foreign(folder)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Calibration" not in page
    assert "Out of distribution" not in page
