"""Simulated cohorts as tables and files."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ncmi.data.bags.bag import BagError
from ncmi.data.bags.readers import open_bags
from ncmi.data.bags.simulated import is_simulated, simulation_of
from ncmi.slides.simulation import SimulationOptions, SlideRow, read_table, write_simulation
from ncmi.slides.simulation.options import make_table
from ncmi.slides.simulation.slide import simulate_slide

LABELS = ("negative", "itc", "micro", "macro")
ROWS = tuple(SlideRow(f"s{i}", f"p{i // 2}", LABELS[i % 4], center=str(i % 3)) for i in range(8))
SMALL = {"feature_dim": 32, "scale": 0.02}
OPTIONS = SimulationOptions(feature_dim=32, scale=0.02)


def test_made_table_has_the_counts_of_camelyon17() -> None:
    rows = make_table("camelyon17")
    assert Counter(row.label for row in rows) == {"negative": 318, "itc": 36, "micro": 59, "macro": 87}
    assert Counter(Counter(row.patient for row in rows).values()) == {5: 100}
    assert Counter(row.center for row in rows) == dict.fromkeys("01234", 100)
    assert all(
        len({row.center for row in rows if row.patient == patient}) == 1 for patient in {r.patient for r in rows}
    )
    assert all("simulated" in row.name for row in rows)
    assert len({row.name for row in rows}) == 500
    assert make_table("camelyon17") == rows != make_table("camelyon17", 1)


def test_made_table_has_the_counts_of_bracs() -> None:
    rows = make_table("bracs")
    assert Counter(row.part for row in rows) == {"train": 395, "val": 65, "test": 87}
    assert Counter(row.label for row in rows)["IC"] == 132
    parts = {patient: {row.part for row in rows if row.patient == patient} for patient in {row.patient for row in rows}}
    assert all(len(found) == 1 for found in parts.values())


@pytest.mark.parametrize("cohort", ["camelyon17", "bracs"])
def test_made_tables_count_as_the_real_ones(data_dir: Path, cohort: str) -> None:
    real = read_table(data_dir / "labels" / f"{cohort}.csv", cohort)  # type: ignore[arg-type]
    made = make_table(cohort)  # type: ignore[arg-type]
    assert Counter((r.label, r.center, r.part) for r in made) == Counter((r.label, r.center, r.part) for r in real)


def test_files_are_what_the_options_say(tmp_path: Path) -> None:
    named: list[str] = []
    out = write_simulation(tmp_path / "out", ROWS, SimulationOptions(**SMALL), on_slide=named.append)  # type: ignore[arg-type]
    assert out == tmp_path / "out"
    assert sorted(named) == sorted(row.name for row in ROWS)
    assert {path.name for path in out.iterdir()} == {"SIMULATION.json", "labels.csv", "features"}
    with (out / "labels.csv").open(newline="") as file:
        assert [(r["slide_id"], r["patient_id"], r["center"], r["label"]) for r in csv.DictReader(file)] == [
            (row.name, row.patient, row.center, row.label) for row in ROWS
        ]
    content = json.loads((out / "SIMULATION.json").read_text())
    assert content["simulation"] is True
    assert content["slides"] == 8
    assert content["options"]["feature_dim"] == 32
    assert {"what", "value", "kind", "source"} == set(content["numbers"][0])
    for row in ROWS:
        truth = simulate_slide(OPTIONS, row)
        with h5py.File(out / "features" / f"{row.name}.h5") as file:
            assert file["features"].dtype == np.float16
            for name in ("features", "coords", "lesion", "mimic", "component"):
                np.testing.assert_array_equal(file[name][:], getattr(truth, name))
            assert tuple(file["component"].attrs["names"]) == truth.components
            assert file.attrs["encoder"] == "simulation"
            assert json.loads(file.attrs["simulation"])["seed"] == 0
            assert file["coords"].attrs["patch_size"] == 256
            assert file["coords"].attrs["patch_size_level0"] == 512
            assert file["coords"].attrs["name"] == row.name


def test_files_are_read_as_any_others(tmp_path: Path) -> None:
    out = write_simulation(tmp_path / "out", ROWS, SimulationOptions(**SMALL), workers=2)  # type: ignore[arg-type]
    for folder in (out, out / "features"):
        bags = open_bags(folder)
        assert bags.names == tuple(sorted(row.name for row in ROWS))
    for row in ROWS:
        read, made = bags.load(row.name), simulate_slide(OPTIONS, row)
        assert torch.equal(read.features, torch.from_numpy(made.features))
        assert read.coords is not None
        assert torch.equal(read.coords, torch.from_numpy(made.coords))
        assert read.patch_size == 512
        assert bags.shape(row.name) == made.features.shape


def test_a_stopped_write_goes_on(tmp_path: Path) -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_simulation(out, ROWS, SimulationOptions(**SMALL), on_slide=stop)  # type: ignore[arg-type]
    assert is_simulated(out)
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "features").iterdir()}
    assert kept
    (out / "features" / "s7.h5").unlink(missing_ok=True)
    write_simulation(out, ROWS, SimulationOptions(**SMALL))  # type: ignore[arg-type]
    files = {path.name: path.stat().st_mtime_ns for path in (out / "features").iterdir()}
    assert sorted(files) == sorted(f"{row.name}.h5" for row in ROWS)
    assert all(files[name] == kept[name] for name in kept if name != "s7.h5")


def test_other_simulations_are_not_mixed(tmp_path: Path) -> None:
    out = write_simulation(tmp_path / "out", ROWS, SimulationOptions(**SMALL))  # type: ignore[arg-type]
    with pytest.raises(BagError, match="other options: choose another folder"):
        write_simulation(out, ROWS, SimulationOptions(feature_dim=32, scale=0.03))
    with pytest.raises(BagError, match="other slides: choose another folder"):
        write_simulation(out, ROWS[:4], SimulationOptions(**SMALL))  # type: ignore[arg-type]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(BagError, match="no simulation: choose a new folder"):
        write_simulation(tmp_path / "mine", ROWS, SimulationOptions(**SMALL))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers=-1"):
        write_simulation(tmp_path / "new", ROWS, SimulationOptions(**SMALL), workers=-1)  # type: ignore[arg-type]


def test_a_full_disk_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    with pytest.raises(BagError, match=r"GB to write, 0\.0 GB free: give a smaller scale"):
        write_simulation(tmp_path / "out", ROWS, SimulationOptions(**SMALL))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide_id,patient_id,label\na,p,macro\n", "no column 'center'"),
        ("slide_id,patient_id,center,label\na,p,0,huge\n", "label 'huge'; known are negative, itc, micro, macro"),
        ("slide_id,patient_id,center,label\na,p,0,itc\na,p,0,itc\n", "slide a occurs twice"),
        ("slide_id,patient_id,center,label\n", "no rows"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(BagError, match=message):
        read_table(path, "camelyon17")
    with pytest.raises(BagError, match="no such table"):
        read_table(tmp_path / "none.csv", "camelyon17")


def test_a_simulation_is_recognized(tmp_path: Path) -> None:
    out = write_simulation(tmp_path / "out", ROWS[:2], SimulationOptions(**SMALL))  # type: ignore[arg-type]
    for path in (out, out / "features", out / "SIMULATION.json", out / "labels.csv"):
        assert is_simulated(path)
    content = simulation_of(out / "features")
    assert content is not None
    assert "no patient" in content["note"]
    # files that were copied without their mark still say what they are
    shutil.copytree(out / "features", tmp_path / "elsewhere" / "copied")
    assert simulation_of(tmp_path / "elsewhere" / "copied") is None
    assert is_simulated(tmp_path / "elsewhere" / "copied")
    assert is_simulated(tmp_path / "elsewhere" / "copied" / "s0.h5")
    with h5py.File(tmp_path / "real.h5", "w") as file:
        file["features"] = np.zeros((2, 3))
    (tmp_path / "broken.h5").write_text("no")
    assert not any(is_simulated(tmp_path / name) for name in ("real.h5", "broken.h5", "none"))
