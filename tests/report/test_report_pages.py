"""Pages: well-formed, self-contained, escaped, honest about simulations, and written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from folders import (
    CE,
    CLASSES,
    NCMI,
    PATCH,
    POWER,
    FakeEntry,
    Page,
    edit,
    set_results,
    tissue,
    write_bag_comparison,
    write_bag_run,
    write_comparison,
    write_ood,
    write_reproduction,
    write_run,
    write_slide_file,
    write_tiles,
)
from markupsafe import Markup
from PIL import Image

from ncmi.recipes.names import NOT_THE_TEST_PART
from ncmi.report import ReportError, Row, clouds, comparison_rows, read_comparison, read_run, write_report
from ncmi.report import charts as drawings
from ncmi.report import page as pages
from ncmi.report.parts import calibration_table
from ncmi.report.statistics import by_readout
from ncmi.report.tables import Cell, columns
from ncmi.report.verdict import run_verdict, verdict
from ncmi.report.write import GENERATOR

NewRun = Callable[..., Path]
NewComparison = Callable[..., Path]
HOSTILE = ['"><script>alert(1)</script><b>&', "</script><img src=x onerror=alert(1)>", "$x$ a'b ‮evil 🧪", "=1+1"]
QUICK: dict[str, Any] = {"patients": 25, "resamples": 50, "epochs": 4, "attention": 0}
SKIPPED = [("slide_lost", "features/slide_lost.h5: no such file")]


@pytest.fixture(autouse=True, scope="module")
def without_what_takes_seconds() -> Any:
    """The bundle of Vega, of which there are tests with a browser; t-SNE and documents, of which there are of charts."""

    def spread(directions: Any) -> Any:
        return clouds.principal_components(directions)[0] if len(directions) >= 30 else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "_bundle", lambda: Markup("/* Vega */"))
        patch.setattr(clouds, "neighborhoods", spread)
        patch.setattr(drawings, "to_document", lambda charts: (b"<svg/>", b"PNG"))
        yield


def charts(page: Page) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', page.source, flags=re.DOTALL)
    return [json.loads(content) for content in found]


@pytest.fixture(scope="module")
def report(full_comparison: Path) -> Page:
    return Page(write_report(full_comparison))


@pytest.fixture(scope="module")
def bag_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with four heat maps: of the first there is a slide file, of the second a thumbnail of tiling."""
    folder = tmp_path_factory.mktemp("run") / "run"
    write_bag_run(folder, skipped=SKIPPED, **(QUICK | {"attention": 4, "epochs": 20, "patients": 100}))
    names = sorted(path.stem for path in (folder / "attention").glob("*.npz"))
    paths = [folder / "attention" / f"{name}.npz" for name in names[:2]]
    shown = [dict(np.load(path)) for path in paths]
    seeds = [
        next(seed for seed in range(1000) if np.array_equal(tissue(seed)[0], arrays["coords"])) for arrays in shown
    ]
    # the slide has 32 pixels a patch
    places = {"coords": shown[0]["coords"] // PATCH * 32, "patch_size": np.array(32)}
    np.savez_compressed(paths[0], **(shown[0] | places))
    write_slide_file(folder.parent / "slides" / f"{names[0]}.tif", seeds[0])
    write_tiles(folder.parent / "tiles", names[1], seeds[1])
    return folder


@pytest.fixture(scope="module")
def bag_page(bag_run: Path) -> Page:
    return Page(write_report(bag_run, slides=bag_run.parent / "slides", tiles=bag_run.parent / "tiles"))


@pytest.fixture(scope="module")
def bag_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag_comparison(
        tmp_path_factory.mktemp("c") / "camelyon",
        ("abmil", "aem"),
        prefix="patient",
        missing=["aem-ncmi-seed2"],
        **(QUICK | {"resamples": 0}),
    )


@pytest.fixture(scope="module")
def bag_comparison_page(bag_comparison: Path) -> Page:
    return Page(write_report(bag_comparison))


# --- every page


@pytest.mark.parametrize("which", ["report", "bag_page", "bag_comparison_page"])
def test_pages_need_no_network_and_references_resolve(which: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(which)
    assert "@import" not in page.source
    assert page.tags["link"] == page.tags["iframe"] == page.tags["img"] == 0
    assert page.values("src") == []
    (policy,) = (value for tag, name, value in page.attributes if (tag, name) == ("meta", "content") and "src" in value)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    for target in page.values("href"):
        assert re.match(r"#|data:image/(png|jpeg);base64,|runs/|\.$", target), target[:80]
        assert not target.startswith("#") or target[1:] in identifiers
    for reference in re.findall(r"url\(#([^)]*)\)", page.source):
        assert reference in identifiers
    assert page.tags["figure"] == page.tags["figcaption"]
    names = [chart["name"] for chart in charts(page)]
    assert names
    assert len(names) == len(set(names))
    assert page.tags["script"] == len(names) + 3
    # every section has its place in the contents
    assert page.tags["h2"] == len([target for target in page.values("href") if target.startswith("#")]) + 1


def test_a_report_is_known_by_its_beginning(report: Page) -> None:
    assert GENERATOR in report.source.encode()[:4096]


def test_the_page_of_a_comparison_is_complete(report: Page, full_comparison: Path, full_rows: tuple[Row, ...]) -> None:
    record, rows = read_comparison(full_comparison), full_rows
    for sentence in verdict(record, rows):
        assert sentence in report.text
    for row in rows:
        for column in columns(record, rows):
            assert column.cell(row) in report.text
    for symbol in ("CMI is the concentration", "Γ is the separation", "NCMI = CMI / Γ", "t-SNE", "principal"):
        assert symbol in report.text
    assert "opl-seed4 stopped after epoch 7 of 20 cmic-seed4 not started" in report.text
    assert "ncmi compare digits" in report.text
    assert "batch_size 64" in report.text
    assert "learning_rate 0.1 seed 0–4" in report.text


def test_each_read_out_has_dots_and_differences_of_its_own(report: Page, full_rows: tuple[Row, ...]) -> None:
    rows = by_readout(full_rows)
    found = {chart["name"]: chart["spec"] for chart in charts(report)}
    for readout, same in rows.items():
        scores, differences = (found[f"{what}-{readout}-accuracy"] for what in ("scores", "differences"))
        means = {row["row"]: row["mean"] for row in scores["data"]["values"] if row["part"] == "mean"}
        assert means == {row.method: pytest.approx(100 * row.scores["accuracy"].mean) for row in same}
        shown = {row["row"]: row["mean"] for row in differences["data"]["values"] if row["part"] == "mean"}
        paired = {row.method: row.scores["accuracy"].difference for row in same}
        assert shown == {name: pytest.approx(100 * d.mean, abs=1e-4) for name, d in paired.items() if d}


def test_the_legend_isolates_each_curve(report: Page) -> None:
    series = [value for tag, name, value in report.attributes if name == "data-series"]
    assert len(series) == 13
    for chart in charts(report):
        if chart["name"].startswith("validation"):
            assert {row["series"] for row in chart["spec"]["data"]["values"]} == set(series)
            assert "isolated" in [param["name"] for param in chart["spec"]["params"]]


def test_links_lead_to_the_run_folders(report: Page, full_comparison: Path) -> None:
    links = [value for tag, name, value in report.attributes if (tag, name) == ("a", "href") and value[0] != "#"]
    assert len(links) == 63
    assert all((full_comparison / unquote(link) / "results.json").is_file() for link in links)


def test_a_page_is_small_and_the_same_every_time(new_comparison: NewComparison, report: Page) -> None:
    assert len(report.source) < 1_500_000
    folder = new_comparison(seeds=[0])
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_every_name_is_escaped(new_comparison: NewComparison) -> None:
    name = " ".join(HOSTILE)
    folder = new_comparison(seeds=[0], class_names=HOSTILE, num_test=90)

    def rename(content: dict[str, Any]) -> None:
        content["data"], content["machine"] = name, {"cpu": name}
        for entry in content["entries"]:
            entry["label"] += name

    def annotate(recipe: dict[str, Any]) -> None:
        recipe["objective"]["note"] = recipe["network"][name] = name

    edit(folder / "comparison.json", rename)
    edit(next(folder.glob("runs/ncmi-seed0/recipe.json")), annotate)
    page = Page(write_report(folder))
    drawn = charts(page)
    assert page.tags["script"] == len(drawn) + 3
    assert page.tags["img"] == page.tags["b"] - len(re.findall("<b>Figure|<td[^>]*><b>", page.source)) == 0
    assert f"the better classifier on {name}?" in page.text
    assert f"NCMI{name}" in page.text
    assert f"note = {name}" in page.text
    assert f"network.{name}" in page.text
    # charts hold them as they are, and the page cannot take them for markup
    assert set(HOSTILE) <= {row.get("class") for chart in drawn for row in chart["spec"]["data"]["values"]}
    assert "</script><img" not in page.source


def test_every_name_of_slides_is_escaped(tmp_path: Path) -> None:
    name = " ".join(HOSTILE)
    odd = re.sub(r"[/]", "_", name)
    folder = write_bag_run(
        tmp_path / "run", class_names=HOSTILE, slides=(odd,), skipped=[(name, name)], **(QUICK | {"attention": 1})
    )

    def annotate(recipe: dict[str, Any]) -> None:
        recipe["objective"]["note"] = recipe["network"][name] = recipe["data"]["name"] = name

    edit(folder / "recipe.json", annotate)
    page = Page(write_report(folder))
    assert page.tags["script"] == len(charts(page)) + 3
    assert page.tags["img"] == 0
    for one in HOSTILE:
        assert one in page.text
    assert sum(f"{one} (true)" in page.text for one in HOSTILE) == 1
    assert f"network.{name}" in page.text
    assert odd in page.text
    assert f"Attention over {odd}: " in " ".join(page.values("aria-label"))
    assert "<b><" not in page.source


@pytest.mark.parametrize("kind", ["run", "comparison", "folds"])
def test_a_simulation_is_called_one_in_title_tables_and_every_caption(tmp_path: Path, kind: str) -> None:
    options = QUICK | {"resamples": 20, "simulation": True}
    if kind == "run":
        folder = write_bag_run(tmp_path / "x", **(options | {"attention": 2}))
    else:
        folds = 2 if kind == "folds" else 0
        folder = write_bag_comparison(
            tmp_path / "x", ("abmil",), seeds=(0, 1), folds=folds, prefix="patient", **options
        )
    page = Page(write_report(folder))
    assert len(page.parts["h1"]) == len(page.parts["title"]) == 1
    assert all(title.startswith("Simulation: ") for title in (*page.parts["h1"], *page.parts["title"]))
    assert "Simulation: no slide of this cohort is real." in page.text
    assert page.parts["figcaption"]
    for caption in page.parts["figcaption"]:
        assert re.match(r"Figure \d+\. Simulation, no real slides\. ", caption), caption
    tables = [note for note in page.parts["note"] if re.search(r"Macro F1|Support|Every fold|NLL", note)]
    assert tables
    assert all(note.startswith("Simulation, no real slides. ") for note in tables)
    assert "ublished" not in page.text
    if kind == "folds":
        assert "Repeats of a 2-fold cross-validation by patient" in page.text
        assert "2 training objectives × 2 repeats of 2 folds" in page.text
        assert "Fold by fold" in page.text
        assert "Mean and standard deviation are over repeats, never over folds." in page.text
    if kind != "run":
        assert "True" in (folder / "table.csv").read_text(encoding="utf-8").splitlines()[1]


def test_a_title_that_says_simulation_says_it_once(tmp_path: Path) -> None:
    title = "Table III, BRACS (simulation)"
    options = QUICK | {"resamples": 0}
    folder = write_bag_comparison(tmp_path / "x", ("abmil",), seeds=(0,), simulation=True, title=title, **options)
    assert Page(write_report(folder)).parts["h1"] == [title]


def test_real_slides_are_not_called_a_simulation(bag_page: Page, bag_comparison_page: Page) -> None:
    assert "imulat" not in bag_page.text
    assert "imulat" not in bag_comparison_page.text


# --- runs


def test_report_of_a_finished_run(new_run: NewRun) -> None:
    page = Page(write_report(new_run("label_smoothing", 3)))
    assert "on digits, seed 3" in page.text
    assert "Confusion matrices on test data." in page.text
    assert "training, validation, test 1149, 288, 360" in page.text
    for title in ("Class by class", "Epoch by epoch", "Feature clusters", "Calibration"):
        assert title in page.text
    for title in ("ROC curves", "Where the network looked", "The cohort", "Out of distribution"):
        assert title not in page.text


@pytest.mark.parametrize("epochs", [0, 1, 6])
def test_report_of_an_unfinished_run(new_run: NewRun, epochs: int) -> None:
    folder = new_run("ncmi", 0, stopped_after=epochs)
    write_ood(folder)
    page = Page(write_report(folder))
    assert f"This run is not finished: it stopped after epoch {epochs} of 20." in page.text
    assert page.tags["figure"] == (1 if epochs else 0)
    for title in ("Confusion", "Calibration", "Out of distribution"):
        assert title not in page.text


def test_without_a_validation_part_the_page_says_what_is_missing(new_run: NewRun) -> None:
    page = Page(write_report(new_run("ncmi", 0, validation=False)))
    assert "No τ: this run has no validation part" in page.text
    assert "there is no validation part to measure them on" in page.text
    assert "divided by τ" not in page.text.replace("were divided by τ", "")


def test_links_are_relative_to_where_the_report_stands(new_run: NewRun, tmp_path: Path) -> None:
    (tmp_path / "else where").mkdir()
    folder = new_run("ncmi", 0)
    path = write_report(folder, tmp_path / "else where")
    assert path == tmp_path / "else where" / "report.html"
    (link,) = (value for tag, name, value in Page(path).attributes if (tag, name) == ("a", "href") and value[0] != "#")
    assert (path.parent / unquote(link)).resolve() == folder.resolve()


def test_the_page_of_a_run_on_slides_says_what_there_is(bag_page: Page, bag_run: Path) -> None:
    record = read_run(bag_run)
    assert bag_page.parts["h1"] == ["ABMIL with NCMI on camelyon, seed 0"]
    for sentence in run_verdict(record):
        assert sentence in bag_page.text
    for readout in record.finished.readouts.values():
        for score in ("macro_f1", "macro_auc", "accuracy", "balanced_accuracy"):
            estimate = getattr(readout.test, score)
            assert f"{estimate.value:.3f}" in bag_page.text
            assert f"{estimate.low:.3f} … {estimate.high:.3f}" in bag_page.text
    assert "1 slide left out" in bag_page.text
    assert SKIPPED[0][1] in bag_page.text
    for words in (
        "Recall on test data",
        "ROC curves on test data",
        "Confusion matrices on test data",
        "Epoch by epoch",
    ):
        assert words in bag_page.text
    assert (
        f"Dashed: epoch {record.finished.best_epoch}, which was kept, chosen on validation data alone." in bag_page.text
    )
    assert "batch_size 1" in bag_page.text
    assert "Example CPU" in bag_page.text


def test_heat_maps_show_the_slide_the_thumbnail_or_the_grid_alone(bag_page: Page, bag_run: Path) -> None:
    names = sorted(path.stem for path in (bag_run / "attention").glob("*.npz"))
    captions = " ".join(bag_page.parts["figcaption"])
    assert f"{names[0]}: attention over the slide (picture from {names[0]}.tif)" in captions
    assert f"{names[0]}: the same patches, as the slide shows them" in captions
    assert f"{names[1]}: attention over the slide (thumbnail from tiling, with outline and patches)" in captions
    for name in names[2:]:
        assert f"{name}: attention over the grid of patches alone" in captions
    reason = "No picture of this slide: no slide of that name in the folder “slides”; no thumbnails/"
    assert bag_page.text.count(reason) == 2
    # a picture and its gray twin for two slides, and eight patches for one
    assert len(re.findall("data:image/jpeg;base64,", bag_page.source)) == 2 * 2 + 8
    assert len(re.findall("data:image/png;base64,", bag_page.source)) == 4
    assert bag_page.text.count("attention relative to an even share (1× = 1/N), logarithmic") == 4


def test_decisions_on_the_slides_shown_are_those_of_the_table(bag_page: Page, bag_run: Path) -> None:
    with (bag_run / "slides.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    for path in (bag_run / "attention").glob("*.npz"):
        row = rows[path.stem]
        p = [float(row[f"head:{name}"]) for name in CLASSES]
        decided = CLASSES[int(np.argmax(p))]
        words = "decides for it" if decided == row["label"] else f"decides for {decided}"
        assert f"True class {row['label']} ({row['patient']}); NCMI {words}, p = {max(p):.3f}" in bag_page.text


def test_a_page_with_six_slides_is_small(tmp_path: Path) -> None:
    folder = write_bag_run(tmp_path / "run", **(QUICK | {"attention": 6}))
    rng = np.random.default_rng(0)
    # noise is the hardest picture to make small
    for path in (folder / "attention").glob("*.npz"):
        arrays = dict(np.load(path))
        arrays["coords"], arrays["patch_size"] = arrays["coords"] // 16, np.array(32)
        np.savez(path, **arrays)
        (tmp_path / "slides").mkdir(exist_ok=True)
        noise = rng.integers(0, 256, size=(1472, 2240, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "slides" / f"{path.stem}.tif")
    out = write_report(folder, slides=tmp_path / "slides")
    assert Page(out).source.count("data:image/jpeg") == 6 * 10
    assert out.stat().st_size < 3_200_000


def test_of_many_slides_some_are_shown(tmp_path: Path) -> None:
    page = Page(write_report(write_bag_run(tmp_path / "run", **(QUICK | {"attention": 11}))))
    assert "8 of the 11 slides in the run folder are shown." in page.text
    assert page.source.count("data:image/png") == 8


def test_without_coordinates_the_page_says_so(tmp_path: Path) -> None:
    page = Page(write_report(write_bag_run(tmp_path / "run", coords=False, **(QUICK | {"attention": 2}))))
    assert page.text.count("The features' file holds no coordinates, so there is no heat map") == 2
    assert "data:image/png" not in page.source
    assert "patch number" in page.text


def test_attention_of_unknown_slides_is_left_alone(tmp_path: Path) -> None:
    folder = write_bag_run(tmp_path / "run", **QUICK)
    (folder / "attention").mkdir()
    (folder / "attention" / "stranger.npz").write_bytes(b"")
    assert "Where the network looked" not in Page(write_report(folder)).text


def test_a_fold_a_run_without_validation_and_two_classes(tmp_path: Path) -> None:
    options = {"fold": 1, "folds": 4, "validation": False, "class_names": ("no", "yes"), **QUICK}
    page = Page(write_report(write_bag_run(tmp_path / "run", objective="cross_entropy", **options)))
    assert page.parts["h1"][0].startswith("ABMIL with ")
    assert page.parts["h1"][0].endswith(" on camelyon, seed 0, fold 2 of 4")
    assert "This is fold 2 of 4: the result is that of all folds together." in page.text
    assert "Validation macro F1" not in page.text
    assert "of two classes, of yes" in page.text
    assert "Dashed" not in page.text


def test_patients_on_two_sides_are_warned_of(bag_page: Page, tmp_path: Path) -> None:
    folder = write_bag_run(tmp_path / "run", **QUICK)
    words = "Some patients stand in two parts: scores on test data are too good for them."
    assert words not in bag_page.text
    assert "No patient stands in two parts." in bag_page.text
    path = folder / "slides.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    test = next(line for line in lines if ",test," in line).split(",")[1]
    at = next(number for number, line in enumerate(lines) if ",train," in line)
    parts = lines[at].split(",")
    lines[at] = ",".join([parts[0], test, *parts[2:]])
    path.write_text("".join(lines), encoding="utf-8")
    assert words in Page(write_report(folder)).text
    path.write_text("slide,patient\na,b\n", encoding="utf-8")
    with pytest.raises(ReportError, match=r"slides\.csv: .*run it again"):
        write_report(folder)


# --- calibration and out-of-distribution data


def test_a_comparison_gives_means_of_calibration_over_seeds(new_comparison: NewComparison) -> None:
    folder = new_comparison(["ncmi", "cross_entropy", "focal"], seeds=[0, 1, 2])
    record = read_comparison(folder)
    runs = {entry.label: list(entry.runs) for entry in record.entries}
    runs["Focal"] = runs["Focal"][:1]
    methods = {(label, "cc"): own for label, own in runs.items()}
    table = calibration_table(methods, {key: f"{key[0]}-CC" for key in methods})
    assert list(table.headings) == ["Method", "n", "NLL", "NLL, /τ", "ECE %", "ECE %, /τ", "Brier", "τ"]
    rows: dict[str, list[Cell]] = {row.cells[0].text: list(row.cells[1:]) for row in table.rows}
    tests = {label: [run.finished.readouts["cc"] for run in own] for label, own in runs.items()}
    nll = {label: [one.test.nll for one in own] for label, own in tests.items()}
    cell = rows["NCMI-CC"][1]
    assert cell.text == f"{np.mean(nll['NCMI']):.4f} ± {np.std(nll['NCMI'], ddof=1):.4f}"
    assert [rows[name][0].text for name in rows] == ["3", "3", "1"]
    # the lowest of those with all seeds in bold, in each column but that of τ; one seed does not compare
    assert not any(cell.bold for cell in rows["Focal-CC"])
    means = {label: round(float(np.mean(nll[label])), 4) for label in ("NCMI", "CE")}
    for label in means:
        assert rows[f"{label}-CC"][1].bold == (means[label] == min(means.values()))
        assert not rows[f"{label}-CC"][-1].bold


def test_an_infinite_likelihood_is_a_dash(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0)
    edit(folder / "results.json", lambda results: results["readouts"]["head"]["test"].update(nll=None))
    run = read_run(folder)
    table = calibration_table({("NCMI", "head"): [run]}, {("NCMI", "head"): "NCMI"})
    assert table.rows[0].cells[1].text == "–"


def test_out_of_distribution_data_on_the_page(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0)
    write_ood(folder)
    write_ood(folder, "<b>&\"'/$x$", num_outside=81)
    (folder / "ood.txt").write_text("not ours")
    page = Page(write_report(folder))
    assert page.source.count("<h2>Out of distribution</h2>") == 1
    assert "distance to the nearest centroid 1 91.00 12.50" in page.text
    assert "1 − highest probability (CC) 1 91.00 12.50" in page.text
    assert "other: 80 samples against 360 of the test part" in page.text
    assert [chart["name"] for chart in charts(page) if chart["name"].startswith("distances")] == [
        "distances0",
        "distances1",
    ]
    assert '<b>&"' not in page.source


def test_a_damaged_file_of_other_data_names_itself_and_leaves_no_page(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0)
    path = write_ood(folder, scores={})
    with pytest.raises(ReportError, match=r"lacks 'distance'.*`ncmi evaluate"):
        write_report(folder)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ReportError, match="damaged"):
        write_report(folder)
    assert not (folder / "report.html").exists()


# --- comparisons on slides


def test_the_page_of_a_comparison_on_slides_holds_the_table(bag_comparison: Path, bag_comparison_page: Page) -> None:
    record = read_comparison(bag_comparison)
    rows = comparison_rows(record)
    page = bag_comparison_page
    assert page.parts["h1"] == ["Which loss trains the better slide classifier on camelyon?"]
    words = "2 networks × 2 training objectives × 3 seeds, paired by seed and split: 11 of 12 runs finished."
    assert words in page.text
    for sentence in verdict(record, rows):
        assert sentence in page.text
    for row in rows:
        score = row.scores["macro_f1"]
        assert f"{score.mean:.3f} ± {score.sd:.3f}" in page.text
        assert row.name in page.text
    assert "aem-ncmi-seed2 not started" in page.text
    assert "ncmi reproduce table3" in page.text


def test_networks_are_rows_and_objectives_series(bag_comparison_page: Page) -> None:
    found = {chart["name"]: chart["spec"]["data"]["values"] for chart in charts(bag_comparison_page)}
    for readout in ("head", "cc", "lp"):
        for score in ("macro_f1", "macro_auc"):
            means = [row for row in found[f"scores-{readout}-{score}"] if row["part"] == "mean"]
            assert {row["row"] for row in means} == {"ABMIL", "AEM"}
            assert len({row["series"] for row in means}) == 2


# --- reproductions


def networks(*names: str) -> dict[str, list[FakeEntry]]:
    return {
        name: [
            FakeEntry(f"{name}-{entry.name}", entry.label, entry.objective, entry.options, name)
            for entry in (CE, NCMI, POWER)
        ]
        for name in names
    }


def test_a_table_of_networks_links_every_cell(tmp_path: Path) -> None:
    missing = [("resnet34-ncmi-power", 2)]
    folder = write_reproduction(tmp_path, "table1", networks("resnet18", "resnet34"), missing=missing)
    page = Page(write_report(folder))
    assert "17 of 18 runs finished" in page.text
    assert "1 unfinished run, left out of everything on this page" in page.text
    assert "published 75.44" in page.text
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    files = ["figure.png", "figure.svg", "report.html", "reproduction.json", "results.json", "table.csv", "table.md"]
    assert names == files
    links = {unquote(value) for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert sum((folder / link / "results.json").is_file() for link in links) == 17


def correlation_folder(root: Path, seeds: tuple[int, ...]) -> Path:
    entries = [
        FakeEntry(f"net{k}", f"width {8 * (k // 2 + 1)}, {k} epochs", network="resnet_small", width=8 * (k // 2 + 1))
        for k in range(6)
    ]
    folder = write_reproduction(root, "figure2", {"networks": entries}, seeds=seeds, scale="small")
    for k in range(6):
        for seed in seeds:
            set_results(
                root / "runs" / f"net{k}-seed{seed}",
                accuracy=0.2 + 0.03 * k + 0.002 * seed,
                ncmi=2.0 ** (-k),
                cross_entropy_separation=4.0,
                cross_entropy_ncmi=None if k < 3 else 0.2 - 0.01 * k,
            )
    return folder


def test_networks_without_the_second_measure_are_left_out_with_the_reason(tmp_path: Path) -> None:
    page = Page(write_report(correlation_folder(tmp_path, (0, 1))))
    assert "Γ by cross-entropy was not measured in 3 of the networks (width 8, 0 epochs" in page.text
    assert "Γ by cross-entropy: no panel, because fewer than 4 networks have it" in page.text
    assert [chart["name"] for chart in charts(page)] == ["correlation0"]
    assert "with the logarithm of NCMI as plotted" in page.text
    # networks are not compared with each other
    assert "95 % interval" not in [value.strip() for value in re.findall(r"<th[^>]*>(.*?)</th>", page.source)]


def test_batch_sizes(tmp_path: Path) -> None:
    groups = {
        f"resnet18-batch{size}": [
            FakeEntry(f"b{size}-{entry.name}", entry.label, entry.objective, entry.options, batch_size=size)
            for entry in (CE, NCMI)
        ]
        for size in (64, 32, 128)
    }
    folder = write_reproduction(tmp_path, "figure3", groups, seeds=[0, 1])
    for place, size in enumerate((32, 64, 128)):
        for seed in (0, 1):
            set_results(tmp_path / "runs" / f"b{size}-ce-seed{seed}", accuracy=0.70 + place / 100)
    page = Page(write_report(folder))
    (chart,) = charts(page)
    means = [(row["size"], row["mean"]) for row in chart["spec"]["data"]["values"] if row["series"] == "Cross-entropy"]
    assert means == [(32, pytest.approx(70)), (64, pytest.approx(71)), (128, pytest.approx(72))]
    for title in ("batch 32", "batch 64", "batch 128"):
        assert title in page.text


def test_trajectories_say_that_the_simplices_differ(tmp_path: Path) -> None:
    folder = write_reproduction(tmp_path, "figure4", {"resnet18": [CE, NCMI, POWER]}, seeds=[0, 1])
    page = Page(write_report(folder))
    assert "two different simplices, so that levels do not compare" in page.text
    assert "from the first epoch to the last" in page.text
    assert (folder / "figure.svg").is_file()
    lines = [
        json.loads((tmp_path / f"runs/ncmi-power-seed{seed}/metrics.jsonl").read_text("utf-8").splitlines()[place])
        for place in (0, -1)
        for seed in (0, 1)
    ]
    first, last = (np.mean([line["validation_ncmi"] for line in pair]) for pair in (lines[:2], lines[2:]))
    assert f"{first:.3g}"[:4] in page.text
    assert f"{last:.3g}"[:5] in page.text
    for path in (tmp_path / "runs").glob("*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [{key: None if key.startswith("validation_") else row[key] for key in row} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    assert "there is no validation part to measure them on" in Page(write_report(folder)).text
    # a figure of other runs would be a lie
    assert not (folder / "figure.svg").exists()
    assert not (folder / "figure.png").exists()


def test_clusters_of_many_classes_show_the_first_ten_by_name(tmp_path: Path) -> None:
    names = [f"class {99 - k:02d}" for k in range(100)]
    folder = write_reproduction(
        tmp_path, "figure5", {"resnet18": [CE, NCMI]}, seeds=[0], class_names=names, num_test=600, dim=128
    )
    page = Page(write_report(folder))
    first_ten = ", ".join(f"class {k:02d}" for k in range(10))
    assert f"All the test samples of 10 classes, the first by name, are drawn: {first_ten}." in page.text
    large = [chart for chart in charts(page) if chart["name"].startswith("tsne")]
    assert len(large) == 2
    assert [sum(row["part"] == "point" for row in chart["spec"]["data"]["values"]) for chart in large] == [60, 60]


# --- writing


def test_tables_are_written_beside_the_page_unless_it_goes_elsewhere(
    new_comparison: NewComparison, tmp_path: Path
) -> None:
    folder = new_comparison(seeds=[0])
    write_report(folder)
    assert {path.name for path in folder.iterdir()} >= {"report.html", "table.md", "table.csv"}
    (tmp_path / "elsewhere").mkdir()
    assert write_report(folder, out=tmp_path / "elsewhere") == tmp_path / "elsewhere" / "report.html"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["report.html"]


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"recipe\.json"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_never_written_over(tmp_path: Path) -> None:
    folder, mine = write_run(tmp_path / "run"), tmp_path / "thesis.html"
    mine.write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(ReportError, match=r"thesis.html: exists and is no report of ncmi: give another file"):
        write_report(folder, mine)
    assert mine.read_text(encoding="utf-8") == "<p>mine</p>"


def test_an_earlier_report_is_replaced(new_run: NewRun) -> None:
    folder = new_run("ncmi", 0, stopped_after=2)
    before = write_report(folder).read_text(encoding="utf-8")
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text(
        "\n".join([*lines, lines[-1].replace('"epoch": 2', '"epoch": 3').replace('"epoch":2', '"epoch":3')])
    )
    assert write_report(folder).read_text(encoding="utf-8") != before


def test_a_missing_target_folder_is_an_error(new_run: NewRun, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"cannot be written .*: give a path in an existing, writable folder"):
        write_report(new_run(stopped_after=1), tmp_path / "missing" / "report.html")


def test_nothing_half_written_remains(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_run("ncmi", 0, stopped_after=2)
    before = write_report(folder).read_bytes()
    files = sorted(folder.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match=r"No space left on device"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert sorted(folder.iterdir()) == files


@pytest.mark.parametrize("part", ["validation", "train"])
def test_the_page_of_a_run_says_where_no_test_part_was_judged(new_run: NewRun, part: str) -> None:
    folder = new_run()
    assert NOT_THE_TEST_PART[part] not in Page(write_report(folder)).text
    edit(folder / "results.json", lambda results: results.update(judged=part))
    assert NOT_THE_TEST_PART[part] in Page(write_report(folder)).text


def test_damage_leaves_the_earlier_report_alone(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path / "c", ["ncmi", "cross_entropy"], seeds=[0])
    before = write_report(folder).read_bytes()
    (folder / "runs/ncmi-seed0/test_outputs.npz").write_bytes(b"damaged")
    with pytest.raises(ReportError, match=r"test_outputs\.npz: .*run it again"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before


def test_whoever_wants_a_table_waits_for_no_chart_and_no_torch(bag_run: Path, tmp_path: Path) -> None:
    # but for the bundle of Vega and t-SNE, which take seconds and import no torch
    code = (
        "import sys; from ncmi.report import write_report\n"
        "heavy = {'torch', 'altair', 'vl_convert', 'h5py', 'openslide', 'skimage', 'matplotlib', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from ncmi.report import clouds, page; page._bundle, clouds.neighborhoods = str, lambda points: None\n"
        f"write_report({str(bag_run)!r}, out={str(tmp_path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
