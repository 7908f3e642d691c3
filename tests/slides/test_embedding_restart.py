"""Embedding that is stopped, repeated or repeated with something else."""

from __future__ import annotations

import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from embedding_cohort import contents, copy_cohort, make_cohort, summary
from embedding_helpers import Means
from filelock import FileLock
from torch import Tensor

from ncmi.slides.embedding import EmbedError, embed_slides
from ncmi.slides.work import SlideResult


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("restart") / "cohort")


@pytest.fixture
def cohort(made: Path, tmp_path: Path) -> Path:
    return copy_cohort(made, tmp_path / "cohort")


def embed(cohort: Path, encoder: Means | None = None, **options: object) -> list[SlideResult]:
    """Into OUT, in batches that are smaller than a slide."""
    return embed_slides(
        cohort / "out",
        cohort / "slides",
        cohort / "out",
        encoder or Means(),
        **{"batch_size": 8, "workers": 2, **options},  # type: ignore[arg-type]
    )


def files(cohort: Path) -> list[str]:
    return sorted(path.name for path in (cohort / "out" / "features").iterdir() if path.name != ".lock")


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("patches")]


def test_finished_slides_are_kept(cohort: Path) -> None:
    embed(cohort)
    before = {name: (cohort / "out" / "features" / name).stat().st_mtime_ns for name in files(cohort)}
    (cohort / "out" / "features" / "b.h5").unlink()
    encoder = Means()
    results = embed(cohort, encoder)
    assert [(result.slide, result.made) for result in results] == [("a", False), ("b", True), ("c", False)]
    assert sum(encoder.batches) == results[1].patches
    for name in ("a.h5", "c.h5"):
        assert (cohort / "out" / "features" / name).stat().st_mtime_ns == before[name]
    assert [row["status"] for row in summary(cohort / "out").values()] == ["embedded"] * 3
    assert [result.made for result in embed(cohort, overwrite=True)] == [True] * 3


def test_slides_may_go_once_they_are_embedded(cohort: Path) -> None:
    embed(cohort)
    (cohort / "slides" / "a.tif").unlink()
    assert [(result.status, result.made) for result in embed(cohort)] == [("embedded", False)] * 3


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        (Means("medians"), {}, r"a.h5: made by the encoder means \(1\), not by medians \(1\): pass overwrite=True"),
        (Means(version="2"), {}, r"a.h5: made by the encoder means \(1\), not by means \(2\)"),
        (Means(), {"precision": "float32"}, r"a.h5: holds float16, not float32: pass overwrite=True"),
    ],
)
def test_features_of_another_encoder(other: Means, options: dict[str, str], message: str, cohort: Path) -> None:
    embed(cohort)
    (cohort / "out" / "features" / "b.h5").unlink()
    with pytest.raises(EmbedError, match=f"{message}.*or choose another out folder"):
        embed(cohort, other, **options)
    # nothing is begun
    assert files(cohort) == ["a.h5", "c.h5"]
    assert other.batches == []
    embed(cohort, other, overwrite=True, **options)
    found = contents(cohort / "out" / "features" / "a.h5")
    assert found["attributes"]["encoder_version"] == other.version
    assert found["features"].dtype == options.get("precision", "float16")


def test_files_that_are_no_features_of_ours(cohort: Path) -> None:
    features = cohort / "out" / "features"
    features.mkdir()
    (features / "a.h5").write_bytes(b"damaged")
    with pytest.raises(EmbedError, match=r"a.h5: damaged, or no features file of ncmi .*: pass overwrite=True"):
        embed(cohort)
    with h5py.File(features / "a.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((2, 3)), np.zeros((2, 2))
    with pytest.raises(EmbedError, match=r"made by the encoder unknown \(unknown\), not by means"):
        embed(cohort)


@pytest.mark.parametrize("where", ["encoder", "progress", "slide"])
def test_interrupted(where: str, cohort: Path) -> None:
    def interrupt(*said: object) -> None:
        raise KeyboardInterrupt

    class Interrupted(Means):
        def encode(self, patches: Tensor) -> Tensor:
            if len(self.batches) > 7:  # in the midst of b
                interrupt()
            return super().encode(patches)

    def progress(slide: str, done: int, total: int) -> None:
        if (slide, done) == ("b", 16):
            interrupt()

    options: dict[str, dict[str, object]] = {
        "encoder": {"encoder": Interrupted()},
        "progress": {"on_patches": progress},
        "slide": {"on_slide": interrupt},
    }
    with pytest.raises(KeyboardInterrupt):
        embed(cohort, **options[where])  # type: ignore[arg-type]
    assert reading_threads() == []
    assert files(cohort) == ["a.h5"]
    assert {name: row["status"] for name, row in summary(cohort / "out").items()} == {"a": "embedded"}
    results = embed(cohort)
    assert [(result.status, result.made) for result in results] == [
        ("embedded", False),
        ("embedded", True),
        ("embedded", True),
    ]


def test_leftovers_of_a_killed_process(cohort: Path) -> None:
    features = cohort / "out" / "features"
    features.mkdir()
    (features / ".b.h5.xyz.partial").write_bytes(b"half")
    embed(cohort)
    assert files(cohort) == ["a.h5", "b.h5", "c.h5"]


def test_two_processes_in_one_folder(cohort: Path) -> None:
    (cohort / "out" / "features").mkdir()
    with (
        FileLock(cohort / "out" / "features" / ".lock"),
        pytest.raises(EmbedError, match="another process embeds into this folder: wait until it has finished"),
    ):
        embed(cohort)
    assert [result.status for result in embed(cohort)] == ["embedded"] * 3


def test_a_disk_that_is_full_stops_all(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Means()

    def no_space(*said: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.File, "create_dataset", no_space)
    with pytest.raises(OSError, match="No space left on device"):
        embed(cohort, encoder)
    assert files(cohort) == []
