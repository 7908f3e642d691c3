"""Pages about slides: well-formed, self-contained, escaped, small, honest about simulations, written whole or not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from slides_folders import (
    CLASSES,
    Page,
    write_comparison_of_slides,
    write_slide_file,
    write_slides_run,
    write_tiles,
)

from ncmi.reports import ReportError
from ncmi.reports.slides import comparison_cells, read_slide_comparison, read_slide_run, write_slides_report
from ncmi.reports.slides.comparison_words import comparison_verdict
from ncmi.reports.slides.words import run_verdict

QUICK: dict[str, Any] = {"patients": 25, "resamples": 50, "epochs": 4, "attention": 0}
SKIPPED = [("slide_lost", "features/slide_lost.h5: no such file")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with four heat maps: of the first there is a slide file, of the second a thumbnail of tiling."""
    folder = tmp_path_factory.mktemp("run") / "run"
    write_slides_run(folder, skipped=SKIPPED, **(QUICK | {"attention": 4}))
    names = sorted(path.stem for path in (folder / "attention").glob("*.npz"))
    write_slide_file(folder.parent / "slides" / f"{names[0]}.tif", 1)
    write_tiles(folder.parent / "tiles", names[1], 2)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(write_slides_report(run, slides=run.parent / "slides", tiles=run.parent / "tiles"))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison_of_slides(
        tmp_path_factory.mktemp("c") / "camelyon",
        ("abmil", "aem"),
        prefix="patient",
        missing=["aem-ncmi-seed2"],
        **(QUICK | {"resamples": 0}),
    )


@pytest.fixture(scope="module")
def comparison_page(comparison: Path) -> Page:
    return Page(write_slides_report(comparison))


# --- every page


@pytest.mark.parametrize("which", ["page", "comparison_page"])
def test_pages_need_no_network_and_ids_are_unique(which: str, request: pytest.FixtureRequest) -> None:
    found: Page = request.getfixturevalue(which)
    assert "http://" not in found.source
    assert "https://" not in found.source
    assert "@import" not in found.source
    assert not re.search(r"url\((?!#)", found.source)
    assert found.tags["script"] == found.tags["link"] == found.tags["iframe"] == 0
    assert found.values("src") == []
    identifiers = found.values("id")
    assert len(identifiers) == len(set(identifiers))
    for target in found.values("href"):
        assert re.match(r"#|data:image/(png|jpeg);base64,|runs/|\.$|[a-z]+$", target), target[:80]
        if target.startswith("#"):
            assert target[1:] in identifiers
    for reference in re.findall(r"url\(#([^)]*)\)", found.source):
        assert reference in identifiers
    assert found.tags["figure"] == found.tags["figcaption"]


@pytest.mark.parametrize("name", ['"><script>alert(1)</script><b>&', "$x$ a'b"])
def test_every_name_is_escaped(tmp_path: Path, name: str) -> None:
    odd = re.sub(r"[<>/\"'$&]", "_", name)
    folder = write_slides_run(
        tmp_path / "run",
        class_names=(name, "other", "third"),
        slides=(odd,),
        skipped=[(name, name)],
        **(QUICK | {"attention": 1}),
    )
    path = folder / "recipe.json"
    recipe = json.loads(path.read_text(encoding="utf-8"))
    recipe["objective"]["note"] = recipe["network"][name] = recipe["data"]["features"] = name
    path.write_text(json.dumps(recipe), encoding="utf-8")
    found = Page(write_slides_report(folder))
    assert found.tags["script"] == 0
    assert f"{name} (true)" in found.text or name in found.text
    assert f"network.{name}" in found.text
    assert "<b><" not in found.source
    whole = write_comparison_of_slides(
        tmp_path / "c",
        ("abmil",),
        seeds=(0,),
        class_names=(name, "other", "third"),
        title=f"On {name}",
        **(QUICK | {"resamples": 0}),
    )
    content = json.loads((whole / "comparison.json").read_text(encoding="utf-8"))
    content["machine"] = {"cpu": name}
    content["entries"][0]["label"] += name
    (whole / "comparison.json").write_text(json.dumps(content), encoding="utf-8")
    found = Page(write_slides_report(whole))
    assert found.tags["script"] == 0
    assert found.parts["h1"] == [f"On {name}"]
    assert f"CE{name}" in found.text


@pytest.mark.parametrize("kind", ["run", "comparison", "folds"])
def test_a_simulation_is_called_one_in_title_tables_and_every_caption(tmp_path: Path, kind: str) -> None:
    options = QUICK | {"resamples": 20, "simulation": True}
    if kind == "run":
        folder = write_slides_run(tmp_path / "x", **(options | {"attention": 2}))
    else:
        folds = 2 if kind == "folds" else 0
        folder = write_comparison_of_slides(
            tmp_path / "x", ("abmil",), seeds=(0, 1), folds=folds, prefix="patient", **options
        )
    found = Page(write_slides_report(folder))
    assert all(title.startswith("Simulation: ") for title in (*found.parts["h1"], *found.parts["title"]))
    assert len(found.parts["h1"]) == len(found.parts["title"]) == 1
    assert "Simulation: no slide of this cohort is real." in found.text
    assert found.parts["figcaption"]
    for caption in found.parts["figcaption"]:
        assert re.match(r"Figure \d+\. Simulation, no real slides\. ", caption), caption
    tables = [
        note for note in found.parts["note"] if re.search(r"Macro F1:|Test data|Differences|Every fold|Median", note)
    ]
    assert tables
    assert all(note.startswith("Simulation, no real slides. ") for note in tables)
    assert "ublished" not in found.text
    if kind != "run":
        assert (
            (folder / "table.md").read_text(encoding="utf-8").startswith("Simulation: no slide of this cohort is real.")
        )
        assert "True" in (folder / "table.csv").read_text(encoding="utf-8").splitlines()[1]


def test_a_title_that_says_simulation_says_it_once(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(
        tmp_path / "x",
        ("abmil",),
        seeds=(0,),
        simulation=True,
        title="Table III, BRACS (simulation)",
        **(QUICK | {"resamples": 0}),
    )
    assert Page(write_slides_report(folder)).parts["h1"] == ["Table III, BRACS (simulation)"]


def test_real_slides_are_not_called_a_simulation(page: Page, comparison_page: Page) -> None:
    assert "imulat" not in page.text
    assert "imulat" not in comparison_page.text


# --- runs


def test_the_page_of_a_run_says_what_there_is(page: Page, run: Path) -> None:
    record = read_slide_run(run)
    assert page.parts["h1"] == ["ABMIL with NCMI on camelyon, seed 0"]
    for sentence in run_verdict(record):
        assert sentence in page.text
    assert record.results is not None
    for found in record.results.test.values():
        for measure in found.scores.values():
            assert f"{measure.value:.3f}" in page.text
            assert f"{measure.low:.3f} … {measure.high:.3f}" in page.text
    assert "1 slide left out" in page.text
    assert SKIPPED[0][1] in page.text
    for words in ("Recall on test data", "ROC curves on test data", "Confusion on test data", "Epoch by epoch"):
        assert words in page.text
    assert "Dashed: epoch 14, which was kept, chosen on validation data alone." in page.text
    assert "training.batch_size" not in page.text
    assert "batch_size 1" in page.text
    assert "Example CPU" in page.text


def test_heat_maps_show_the_slide_the_thumbnail_or_the_grid_alone(page: Page, run: Path) -> None:
    names = sorted(path.stem for path in (run / "attention").glob("*.npz"))
    captions = " ".join(page.parts["figcaption"])
    assert f"{names[0]}: attention over the slide (picture from {names[0]}.tif)" in captions
    assert f"{names[0]}: the same patches, as the slide shows them" in captions
    assert f"{names[1]}: attention over the slide (thumbnail from tiling, with outline and patches)" in captions
    for name in names[2:]:
        assert f"{name}: attention over the grid of patches alone" in captions
    assert (
        page.text.count("No picture of this slide: no slide of that name in the folder “slides”; no thumbnails/") == 2
    )
    # a picture and its grey twin for two slides, and eight patches for one
    assert len(re.findall("data:image/jpeg;base64,", page.source)) == 2 * 2 + 8
    assert len(re.findall("data:image/png;base64,", page.source)) == 4
    assert page.text.count("attention relative to an even share (1× = 1/N), logarithmic") == 4


def test_decisions_on_the_slides_shown_are_those_of_the_table(page: Page, run: Path) -> None:
    import csv

    with (run / "slides.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    for path in (run / "attention").glob("*.npz"):
        row = rows[path.stem]
        p = [float(row[f"head:{name}"]) for name in CLASSES]
        taken = CLASSES[int(np.argmax(p))]
        told = "decides for it" if taken == row["label"] else f"decides for {taken}"
        assert f"True class {row['label']} ({row['patient']}); NCMI {told}, p = {max(p):.3f}" in page.text


def test_a_page_with_six_slides_is_small(tmp_path: Path) -> None:
    folder = write_slides_run(tmp_path / "run", **(QUICK | {"attention": 6}))
    rng = np.random.default_rng(0)
    # noise is the hardest picture to make small
    for path in (folder / "attention").glob("*.npz"):
        arrays = dict(np.load(path))
        arrays["coords"], arrays["patch_size"] = arrays["coords"] // 16, np.array(32)
        np.savez(path, **arrays)
        (tmp_path / "slides").mkdir(exist_ok=True)
        noise = rng.integers(0, 256, size=(1472, 2240, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "slides" / f"{path.stem}.tif")
    out = write_slides_report(folder, slides=tmp_path / "slides")
    assert Page(out).source.count("data:image/jpeg") == 6 * 10
    assert out.stat().st_size < 3_000_000


def test_of_many_slides_some_are_shown(tmp_path: Path) -> None:
    folder = write_slides_run(tmp_path / "run", **(QUICK | {"attention": 11}))
    found = Page(write_slides_report(folder))
    assert "8 of the 11 slides in the run folder are shown." in found.text
    assert found.source.count("data:image/png") == 8


def test_without_coordinates_the_page_says_so(tmp_path: Path) -> None:
    found = Page(write_slides_report(write_slides_run(tmp_path / "run", coords=False, **(QUICK | {"attention": 2}))))
    assert found.text.count("The features' file holds no coordinates, so there is no heat map") == 2
    assert "data:image/png" not in found.source
    assert "patch number" in found.text


def test_attention_of_unknown_slides_is_left_alone(tmp_path: Path) -> None:
    folder = write_slides_run(tmp_path / "run", **QUICK)
    (folder / "attention").mkdir()
    (folder / "attention" / "stranger.npz").write_bytes(b"")
    assert "Where the network looked" not in Page(write_slides_report(folder)).text


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_an_unfinished_run(tmp_path: Path, epochs: int) -> None:
    found = Page(write_slides_report(write_slides_run(tmp_path / "run", stopped_after=epochs, **QUICK)))
    assert f"This run is not finished: it stopped after epoch {epochs} of 4." in found.text
    assert found.tags["figure"] == (1 if epochs else 0)
    assert "Recall" not in found.text


def test_a_fold_a_run_without_validation_and_two_classes(tmp_path: Path) -> None:
    folder = write_slides_run(
        tmp_path / "run",
        objective="cross_entropy",
        fold=1,
        folds=4,
        validation=False,
        class_names=("no", "yes"),
        **QUICK,
    )
    found = Page(write_slides_report(folder))
    assert found.parts["h1"] == ["ABMIL with cross-entropy on camelyon, seed 0, fold 2 of 4"]
    assert "This is fold 2 of 4: the result is that of all folds together." in found.text
    assert "validation F1" not in found.text
    assert "of two classes, of yes" in found.text
    assert "Dashed" not in found.text


def test_patients_on_two_sides_are_warned_of(tmp_path: Path) -> None:
    folder = write_slides_run(tmp_path / "run", **QUICK)
    words = "Some patients stand in two parts: scores on test data are too good for them."
    assert words not in Page(write_slides_report(folder)).text
    path = folder / "slides.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    test = next(line for line in lines if ",test," in line).split(",")[1]
    at = next(number for number, line in enumerate(lines) if ",train," in line)
    parts = lines[at].split(",")
    lines[at] = ",".join([parts[0], test, *parts[2:]])
    path.write_text("".join(lines), encoding="utf-8")
    assert words in Page(write_slides_report(folder)).text


def test_chance_is_named_where_the_auc_is_not_clear_of_it(tmp_path: Path) -> None:
    folder = write_slides_run(tmp_path / "run", **QUICK)
    path = folder / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["readouts"]["head"]["test"]["auc"] = {"value": 0.55, "low": 0.46, "high": 0.64}
    content["readouts"]["head"]["test"]["notes"] = ["No slide of itc: left out."]
    path.write_text(json.dumps(content), encoding="utf-8")
    sentences = run_verdict(read_slide_run(folder))
    assert "The interval of the AUC holds 0.5: that the model knows anything is not shown." in sentences
    assert "NCMI: No slide of itc: left out." in sentences
    counts = np.array(content["readouts"]["head"]["test"]["confusion"]).sum(1)
    share = counts.max() / counts.sum()
    assert f"has accuracy {share:.3f} and macro F1 {2 * share / (1 + share) / 4:.3f}." in sentences[1]


# --- comparisons


def test_the_page_of_a_comparison_holds_the_table(comparison: Path, comparison_page: Page) -> None:
    record = read_slide_comparison(comparison)
    cells = comparison_cells(record)
    assert comparison_page.parts["h1"] == ["Which loss trains the better slide classifier on camelyon?"]
    assert (
        "2 networks × 2 objectives × 3 seeds, paired by seed and split: 11 of 12 runs finished." in comparison_page.text
    )
    for sentence in comparison_verdict(record, cells):
        assert sentence in comparison_page.text
    heads = ["Macro F1, AUC", "CE", "NCMI-LP", "NCMI-CC", "NCMI"]
    assert " ".join(heads) in comparison_page.text
    for cell in cells:
        assert f"{cell.scores['macro_f1'].mean:.3f} ± {cell.scores['macro_f1'].sd:.3f}" in comparison_page.text
        if cell.differences:
            assert f"{cell.network}, {cell.method}" in comparison_page.text
    assert comparison_page.text.count("published 0.522, AUC 0.853") == 1
    assert comparison_page.text.count("published 0.663, AUC 0.907") == 1
    assert "aem-ncmi-seed2 not started" in comparison_page.text
    assert comparison_page.text.count("2 of 3 only") == 3
    assert "ncmi slides table3" in comparison_page.text


def test_links_lead_to_the_run_folders(comparison: Path, comparison_page: Page) -> None:
    links = [value for tag, name, value in comparison_page.attributes if tag == "a" and name == "href"]
    assert len(links) == 11
    assert all((comparison / unquote(link) / "results.json").is_file() for link in links)


def test_the_legend_brings_out_each_method(comparison_page: Page) -> None:
    for index in range(4):
        assert f'class="k{index}"' in comparison_page.source
        assert f".s{index} {{ stroke-width" in comparison_page.source
        assert comparison_page.source.count(f'class="series s{index}"') >= 12


def test_folds_are_pooled_and_the_page_says_so(tmp_path: Path) -> None:
    folder = write_comparison_of_slides(tmp_path / "c", ("abmil",), seeds=(0, 1), folds=2, **(QUICK | {"resamples": 0}))
    found = Page(write_slides_report(folder))
    assert "Repeats of a 2-fold cross-validation by patient" in found.text
    assert "1 network × 2 objectives × 2 repeats of 2 folds" in found.text
    assert "Fold by fold" in found.text
    assert "Mean and standard deviation are over repeats, never over folds." in found.text


def test_tables_are_written_beside_the_page_unless_it_goes_elsewhere(
    comparison: Path, comparison_page: Page, tmp_path: Path
) -> None:
    assert (comparison / "table.md").is_file()
    assert (comparison / "table.csv").is_file()
    out = write_slides_report(comparison, out=tmp_path)
    assert out == tmp_path / "report.html"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# --- writing


def test_a_page_is_the_same_every_time_and_replaces_itself(tmp_path: Path) -> None:
    folder = write_slides_run(tmp_path / "run", **(QUICK | {"attention": 1}))
    first = write_slides_report(folder).read_bytes()
    assert write_slides_report(folder).read_bytes() == first


def test_other_files_are_never_written_over(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "thesis.html"
    mine.write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(ReportError, match=r"thesis.html: exists and is no report of ncmi: give another file"):
        write_slides_report(run, out=mine)
    assert mine.read_text(encoding="utf-8") == "<p>mine</p>"


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"neither a comparison folder \(comparison.json\) nor a run folder"):
        write_slides_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_report_imports_neither_torch_nor_what_slides_need(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from ncmi.reports.slides import write_slides_report\n"
        "assert not {'torch', 'h5py', 'openslide', 'skimage', 'matplotlib'} & set(sys.modules)\n"
        f"write_slides_report({str(run)!r}, out={str(tmp_path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
