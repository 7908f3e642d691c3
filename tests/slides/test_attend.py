"""Attention over any slide as files: GeoJSON by its schema and in its place, tables, pictures, pages, the verb."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import h5py
import jsonschema
import numpy as np
import pytest
from PIL import Image
from slide_helpers import WIDTH, slide_recipe, write_cohort

from ncmi.cli import app
from ncmi.report import write_report
from ncmi.report.attention import Attention, Picture, Sources, attention_of
from ncmi.report.heat_maps import colors_of
from ncmi.report.slide_files import percentiles, write_slide
from ncmi.training.bags import attend_bags
from ncmi.training.model import load_model
from ncmi.training.run import train

from tiling_helpers import disc, picture, write_slide as write_slide_image  # isort: skip

POSITION = {"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "number"}}
GEOJSON: dict[str, Any] = {
    # RFC 7946, for collections of polygons
    "type": "object",
    "required": ["type", "features"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "geometry", "properties"],
                "properties": {
                    "type": {"const": "Feature"},
                    "id": {"type": ["string", "number"]},
                    "geometry": {
                        "type": "object",
                        "required": ["type", "coordinates"],
                        "properties": {
                            "type": {"const": "Polygon"},
                            "coordinates": {
                                "type": "array",
                                "items": {"type": "array", "minItems": 4, "items": POSITION},
                            },
                        },
                    },
                    # what QuPath takes from it
                    "properties": {
                        "type": "object",
                        "required": ["objectType", "classification", "measurements"],
                        "properties": {
                            "objectType": {"enum": ["detection", "annotation", "tile", "cell"]},
                            "classification": {
                                "type": "object",
                                "required": ["name", "color"],
                                "properties": {
                                    # QuPath's PathClass: letters, digits, ASCII punctuation and inner spaces; a colon
                                    # would derive one class from another
                                    "name": {"type": "string", "pattern": "^[!-9;-~]([ -9;-~]*[!-9;-~])?$"},
                                    "color": {
                                        "type": "array",
                                        "minItems": 3,
                                        "maxItems": 3,
                                        "items": {"type": "integer", "minimum": 0, "maximum": 255},
                                    },
                                },
                            },
                            "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
                        },
                    },
                },
            },
        },
    },
}


def weights_of(count: int = 12, seed: int = 0, **options: Any) -> Attention:
    random = np.random.default_rng(seed)
    values = random.gamma(0.5, size=count)
    corners = 224 * np.stack([np.arange(count) % 4, np.arange(count) // 4], 1) + np.array([1000, 77])
    return Attention("a", values / values.sum(), corners, 224, **options)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("coloring", ["even", "percentile"])
def test_geojson_is_valid_and_lies_where_the_patches_lie(tmp_path: Path, coloring: Any) -> None:
    weights = weights_of(25_000 if coloring == "even" else 12)
    assert write_slide(tmp_path / "a", weights, Picture(), coloring=coloring) == []
    content = json.loads((tmp_path / "a" / "attention.geojson").read_text())
    few = {**content, "features": content["features"][:50] + content["features"][-50:]}
    jsonschema.validate(few, GEOJSON)
    assert weights.coords is not None
    rings = np.array([feature["geometry"]["coordinates"][0] for feature in content["features"]])
    square = np.array([[0, 0], [224, 0], [224, 224], [0, 224], [0, 0]])
    np.testing.assert_array_equal(rings, weights.coords[:, None] + square)
    measured = [feature["properties"]["measurements"] for feature in content["features"]]
    np.testing.assert_allclose([each["Attention"] for each in measured], weights.values, rtol=1e-5)
    np.testing.assert_allclose([each["Attention / even share"] for each in measured], weights.relative, rtol=1e-5)
    first = max(content["features"], key=lambda each: each["properties"]["measurements"]["Attention"])
    assert first["properties"]["measurements"]["Attention rank"] == 1
    names = {feature["properties"]["classification"]["name"] for feature in content["features"]}
    assert len(names) > 2


def test_percentiles_count_ties_half() -> None:
    assert percentiles(np.array([1.0, 1.0, 2.0, 0.0])).tolist() == [50.0, 50.0, 87.5, 12.5]


def test_the_table_by_patch_and_what_is_not_known(tmp_path: Path) -> None:
    weights = weights_of()
    write_slide(tmp_path / "a", weights, Picture())
    rows = rows_of(tmp_path / "a" / "attention.csv")
    assert [(int(row["x_px"]), int(row["y_px"])) for row in rows] == [tuple(place) for place in weights.coords.tolist()]
    assert sum(float(row["attention"]) for row in rows) == pytest.approx(1, abs=1e-4)
    # microns without a resolution are no pixels
    notes = write_slide(tmp_path / "b", weights_of(microns=True), Picture())
    assert not (tmp_path / "b" / "attention.geojson").exists()
    assert "--slide-mpp" in notes[0]
    assert "x_um" in rows_of(tmp_path / "b" / "attention.csv")[0]
    # no places at all
    notes = write_slide(tmp_path / "c", Attention("c", weights.values, None, 1), Picture())
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["attention.csv"]
    assert "no coordinates" in notes[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_side_of_patches_by_their_places(seed: int) -> None:
    """CLAM's features do not say it: each region has a grid of its own, and columns of different ones lie anywhere."""
    random = np.random.default_rng(seed)

    def grid(rows: int) -> Any:
        return 512 * np.stack([np.arange(rows**2) % rows, np.arange(rows**2) // rows], 1)

    regions = np.concatenate([grid(5) + corner for corner in random.integers(0, 6000, (9, 2))])
    drawn = grid(100)[random.permutation(10_000)[:1000]]
    for corners in (regions, drawn, grid(2), np.array([[0, 0], [0, 512]])):
        weights = attention_of("a", {"attention": np.ones(len(corners)), "coords": corners})
        assert (weights.patch_size, weights.estimated) == (512, True)
    stated = attention_of("a", {"attention": np.ones(25), "coords": grid(5), "patch_size": 300})
    assert (stated.patch_size, stated.estimated) == (300, False)


def test_a_side_that_is_taken_from_the_places_is_said(tmp_path: Path) -> None:
    notes = write_slide(tmp_path / "a", weights_of(estimated=True), Picture())
    assert "taken to be 224 pixels wide" in notes[0]
    assert "by the distance of neighbors" in (tmp_path / "a" / "page.html").read_text()
    assert write_slide(tmp_path / "b", weights_of(), Picture()) == []
    assert "by the distance of neighbors" not in (tmp_path / "b" / "page.html").read_text()


@pytest.mark.parametrize(("shift", "count"), [(223, 0), (224, 3)])
def test_patches_off_the_slide_are_said(tmp_path: Path, shift: int, count: int) -> None:
    weights = weights_of()
    assert weights.coords is not None
    moved = Attention("a", weights.values, weights.coords - np.array([1000 + shift, 0]), 224)
    notes = write_slide(tmp_path / "a", moved, Picture())
    assert [note.split()[:3] for note in notes] == ([[str(count), "of", "12"]] if count else [])


def test_microns_without_the_slide() -> None:
    """--slide-mpp alone is enough: 224 µm at 0.25 µm a pixel are 896 pixels."""
    weights, picture = Sources(slide_mpp=0.25).look(weights_of(microns=True))
    assert not weights.microns
    assert weights.patch_size == 896
    np.testing.assert_array_equal(weights.coords, 4 * weights_of().coords)
    assert picture.thumbnail is None


def test_colors_of_the_overlay_lie_on_the_patches(tmp_path: Path) -> None:
    """Each patch has the color of its percentile, and beside patches it is white."""
    values = np.array([0.001, 0.9, 0.099])
    weights = Attention("a", values, np.array([[0, 0], [448, 448], [0, 448]]), 224)
    write_slide(tmp_path / "a", weights, Picture(), coloring="percentile")
    image = np.asarray(Image.open(tmp_path / "a" / "overlay.png"))
    side = image.shape[0] // 3
    low, high = image[side // 2, side // 2], image[int(2.5 * side), int(2.5 * side)]
    for color, percent in ((low, 100 / 6), (high, 500 / 6)):
        assert np.abs(color.astype(int) - colors_of(np.array([percent / 100]))[0]).max() <= 2
    assert (image[side // 2, int(2.5 * side)] == 255).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attend")
    table = write_cohort(folder / "cohort")
    for path in (folder / "cohort" / "features").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            file.attrs["encoder"] = "uni"
    train(slide_recipe(table), folder / "run")
    return folder


def test_attend_over_slides_that_the_run_does_not_know(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From features and slides to files: the top patch's picture is cut from where the GeoJSON says."""
    image = picture(disc((1024, 1024), (512, 512), 500))
    (tmp_path / "slides").mkdir()
    write_slide_image(tmp_path / "slides" / "new.tif", image)
    (tmp_path / "features").mkdir()
    features = np.random.default_rng(0).normal(size=(16, WIDTH)).astype(np.float16)
    corners = 256 * np.stack([np.arange(16) % 4, np.arange(16) // 4], 1)
    for name, encoder in (("new", "uni"), ("other", "conch")):
        with h5py.File(tmp_path / "features" / f"{name}.h5", "w") as file:
            file["feats"], file["coords"] = features, corners * 0.5
            file.attrs.update({"extractor": encoder, "unit": "um", "tile_size_um": 128.0, "tile_size_px": 224})
    words = ["slides", "attend", str(trained / "run"), str(tmp_path / "features"), "--out", str(tmp_path / "out")]
    app.run([*words, "--slides", str(tmp_path / "slides"), "--top", "3"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "other: features by the encoder conch, where the model was trained on uni" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["new", "slides.csv"]
    (row,) = rows_of(tmp_path / "out" / "slides.csv")
    assert (row["slide"], row["patches"], row["notes"]) == ("new", "16", "")
    content = json.loads((tmp_path / "out" / "new" / "attention.geojson").read_text())
    jsonschema.validate(content, GEOJSON)
    places = [feature["geometry"]["coordinates"][0][0] for feature in content["features"]]
    assert places == corners.tolist()  # microns by the slide's 0.5 a pixel
    patches = sorted((tmp_path / "out" / "new" / "patches").iterdir())
    assert len(patches) == 3
    x, y = map(int, re.fullmatch(r"01_x(\d+)_y(\d+)\.png", patches[0].name).groups())  # type: ignore[union-attr]
    best = max(content["features"], key=lambda each: each["properties"]["measurements"]["Attention"])
    assert [x, y] == best["geometry"]["coordinates"][0][0]
    cut = Image.fromarray(image[y : y + 256, x : x + 256]).resize((224, 224), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(Image.open(patches[0])).astype(int) - np.asarray(cut)).mean() < 3
    page = (tmp_path / "out" / "new" / "page.html").read_text()
    assert 'class="zoom"' in page
    assert page.count("data:image/") == 5  # slide, heat map, three patches
    # nothing is replaced without being asked to
    with pytest.raises(FileExistsError, match="--overwrite"):
        app.run(words)
    app.run([*words, "--overwrite", "--only", "new", "--color", "percentile"])
    with pytest.raises(ValueError, match=r"no slide 'none' \(--only\)"):
        app.run([*words, "--only", "none"])


def test_attention_of_chosen_slides_in_the_report(trained: Path, tmp_path: Path) -> None:
    cohort, run = trained / "cohort", trained / "run"
    chosen = "slide00"
    (run / "attention" / f"{chosen}.npz").unlink(missing_ok=True)
    words = ["slides", "attend", str(run), str(cohort / "features"), "--only", chosen, "--out", str(tmp_path / "out")]
    app.run([*words, "--in-report"])
    assert (run / "attention" / f"{chosen}.npz").is_file()
    assert f">{chosen}</h3>" in write_report(run, tmp_path / "report.html").read_text()


def test_attention_is_that_of_the_run_s_own_files(trained: Path) -> None:
    from ncmi.data.bags.readers import open_bags

    run = trained / "run"
    kept = {path.stem: path for path in (run / "attention").glob("*.npz")}
    source = open_bags(trained / "cohort" / "features")
    for bag in attend_bags(load_model(run), source, sorted(kept)):
        np.testing.assert_allclose(bag.arrays["attention"], np.load(kept[bag.name])["attention"], rtol=1e-5)
        weights, shown = Sources().look(attention_of(bag.name, bag.arrays))
        assert (weights.slide, shown.thumbnail) == (bag.name, None)
