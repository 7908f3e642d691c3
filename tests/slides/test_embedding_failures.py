"""Slides that cannot be embedded are reported with cause and cure, and the others go on."""

from __future__ import annotations

import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from embedding_cohort import contents, copy_cohort, damage, make_cohort, summary
from embedding_helpers import Means
from tiling_helpers import write_slide
from torch import Tensor

from ncmi.slides.embedding import EmbedError, embed_slides
from ncmi.slides.tiling.coords import write_coords
from ncmi.slides.tiling.slide_file import Slide, SlideError
from ncmi.slides.work import SlideResult

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("failures") / "cohort", NAMES)


@pytest.fixture
def cohort(made: Path, tmp_path: Path) -> Path:
    return copy_cohort(made, tmp_path / "cohort")


def embed(cohort: Path, encoder: Means | None = None, **options: object) -> dict[str, SlideResult]:
    """Results by slide; whatever failed has no file and stands in the summary with its reason."""
    out = cohort / "out"
    results = embed_slides(
        out,
        cohort / "slides",
        out,
        encoder or Means(),
        **{"batch_size": 8, "workers": 2, **options},  # type: ignore[arg-type]
    )
    listed = summary(out)
    assert [result.slide for result in results] == sorted(listed)
    for result in results:
        assert (out / "features" / f"{result.slide}.h5").exists() == (result.status == "embedded")
        assert (listed[result.slide]["status"], listed[result.slide]["reason"]) == (result.status, result.reason)
        assert (result.reason == "") == (result.status == "embedded")
        assert "\n" not in result.reason
    assert not list(out.rglob("*.partial"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("patches")]
    return {result.slide: result for result in results}


def others_are_embedded(results: dict[str, SlideResult], *failed: str) -> bool:
    return {name for name, result in results.items() if result.status == "embedded"} == set(results) - set(failed)


def test_slides_and_coordinates_that_are_missing(cohort: Path) -> None:
    (cohort / "slides" / "a.tif").unlink()
    (cohort / "out" / "coords" / "c.h5").unlink()
    results = embed(cohort)
    assert others_are_embedded(results, "a", "c")
    assert (
        "coords/a.h5: there is no slide a in the folder of slides: add it, or remove this file" in results["a"].reason
    )
    assert "slides/c.tif: has no coordinates: tile it first" in results["c"].reason


def test_broken_slides(cohort: Path) -> None:
    (cohort / "slides" / "a.tif").write_bytes(b"no slide")
    content = (cohort / "slides" / "b.tif").read_bytes()
    (cohort / "slides" / "b.tif").write_bytes(content[: len(content) // 3])
    damage(cohort / "slides" / "c.tif", keep=0.2)
    results = embed(cohort)
    assert others_are_embedded(results, "a", "b", "c")
    for name in ("a", "b", "c"):
        assert f"slides/{name}.tif: " in results[name].reason
        assert "copy it again" in results[name].reason
    # mended slides are taken up by the next call
    (cohort / "slides" / "b.tif").write_bytes(content)
    results = embed(cohort)
    assert (results["b"].status, results["b"].made, results["d"].made) == ("embedded", True, False)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.3, 0.6, 0.9])
def test_damaged_coordinates(keep: float, cohort: Path) -> None:
    path = cohort / "out" / "coords" / "b.h5"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    results = embed(cohort)
    assert others_are_embedded(results, "b")
    assert "coords/b.h5: " in results["b"].reason


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.2, 0.4])
def test_coordinates_with_noise_in_them(keep: float, cohort: Path) -> None:
    damage(cohort / "out" / "coords" / "b.h5", keep)
    results = embed(cohort)
    assert others_are_embedded(results, "b")
    assert "b.h5: " in results["b"].reason or "b.tif: " in results["b"].reason


def test_patches_that_are_too_large(cohort: Path) -> None:
    write_coords(cohort / "out" / "coords" / "b.h5", np.zeros((1, 2)), {"patch_size": 10**6, "patch_size_level0": 32})
    results = embed(cohort)
    assert others_are_embedded(results, "b")
    assert (
        "b.tif: has 320 by 256 pixels, less than a patch, whose side is 1000000: tile this slide" in results["b"].reason
    )

    class Hungry(Means):
        def encode(self, patches: Tensor) -> Tensor:
            raise MemoryError

    results = embed(cohort, Hungry(), overwrite=True)
    assert others_are_embedded(results, *NAMES)
    assert "slides/a.tif: out of memory: give a smaller batch_size, or smaller patches" in results["a"].reason


def test_coordinates_of_another_slide(cohort: Path) -> None:
    write_slide(cohort / "slides" / "b.tif", np.full((256, 200, 3), 200, dtype=np.uint8), levels=1)
    write_coords(cohort / "out" / "coords" / "c.h5", np.array([[400, 0]]), {"patch_size": 32, "patch_size_level0": 32})
    write_coords(cohort / "out" / "coords" / "d.h5", np.zeros((0, 2)), {"patch_size": 32, "patch_size_level0": 32})
    results = embed(cohort)
    assert others_are_embedded(results, "b", "c", "d")
    assert "b.tif: has 200 by 256 pixels, its coordinates are of 320 by 256: tile this slide" in results["b"].reason
    assert "c.tif: has 320 by 256 pixels, its coordinates go to (400, 0): tile this slide" in results["c"].reason
    assert results["d"].status == "no patches"
    assert "coords/d.h5: holds no patches" in results["d"].reason


class Spoilt(Means):
    """Has a value of one's choice in the third feature of the tenth patch of each slide but the first."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.number = value, 0

    def encode(self, patches: Tensor) -> Tensor:
        features = super().encode(patches)
        if len(patches) == 8:
            self.number += 1
        if len(patches) == 8 and self.number % 50 == 2:
            features[1, 2] = self.value
        return features


@pytest.mark.parametrize(
    ("value", "precision", "message"),
    [
        (
            7e4,
            "float16",
            "has the value 70000 in feature 2, above 65504, the largest of float16: pass precision='float32'",
        ),
        (-7e4, "float16", "has the value -70000 in feature 2, above 65504"),
        (float("nan"), "float16", "has the value nan in feature 2: check that the encoder has whole weights"),
        (float("inf"), "float32", "has the value inf in feature 2: check that the encoder"),
        (float("-inf"), "float16", "has the value -inf in feature 2"),
    ],
)
def test_features_that_do_not_fit(value: float, precision: str, message: str, cohort: Path) -> None:
    results = embed(cohort, Spoilt(value), precision=precision)
    assert others_are_embedded(results, "a")
    with h5py.File(cohort / "out" / "coords" / "a.h5", "r") as file:
        x, y = file["coords"][9]
    assert results["a"].reason.startswith(f"a: the patch at x={x}, y={y} {message}")


@pytest.mark.parametrize(("value", "precision"), [(65504.0, "float16"), (7e4, "float32")])
def test_the_largest_features_that_fit(value: float, precision: str, cohort: Path) -> None:
    results = embed(cohort, Spoilt(value), precision=precision)
    assert others_are_embedded(results)
    assert contents(cohort / "out" / "features" / "a.h5")["features"][9, 2] == value


def test_no_thread_reads_from_a_closed_slide(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading: list[list[str]] = []
    close = Slide.close

    def noting_close(slide: Slide) -> None:
        reading.append([thread.name for thread in threading.enumerate() if thread.name.startswith("patches")])
        close(slide)

    monkeypatch.setattr(Slide, "close", noting_close)
    embed(cohort, Spoilt(float("nan")))
    assert reading == [[]] * len(NAMES)


def test_an_encoder_that_returns_another_shape(cohort: Path) -> None:
    class Wrong(Means):
        def encode(self, patches: Tensor) -> Tensor:
            return torch.zeros(len(patches), 4)

    results = embed(cohort, Wrong())
    assert others_are_embedded(results, *NAMES)
    assert "means returned [8, 4], not [8, 3]: its encode must give one row" in results["a"].reason


def test_overwriting_leaves_no_features_of_another_encoder(cohort: Path) -> None:
    embed(cohort)
    (cohort / "slides" / "b.tif").write_bytes(b"no slide")
    results = embed(cohort, Means("medians"), overwrite=True)
    assert others_are_embedded(results, "b")


def test_calls_that_cannot_be(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbedError, match=r"holds no coordinates \(coords/SLIDE.h5\): tile the slides into it first"):
        embed_slides(tmp_path / "nothing", cohort / "slides", tmp_path / "out", Means())
    with pytest.raises(SlideError, match="no such folder: check the path"):
        embed_slides(cohort / "out", tmp_path / "nothing", tmp_path / "out", Means())
    with pytest.raises(ValueError, match="batch_size=0, workers=-1: at least 1 patch, and 0 workers or more"):
        embed_slides(cohort / "out", cohort / "slides", tmp_path / "out", Means(), batch_size=0, workers=-1)
    write_coords(cohort / "out" / "coords" / "a_patches.h5", np.zeros((1, 2)), {})
    with pytest.raises(EmbedError, match=r"a.h5 and .*a_patches.h5 are of one slide, a: remove one of them"):
        embed_slides(cohort / "out", cohort / "slides", tmp_path / "out", Means())
