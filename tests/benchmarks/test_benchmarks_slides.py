"""The benchmarks of slides: the oracle, and a cohort of links."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ncmi.data.bags.readers import open_bags
from ncmi.data.bags.simulated import is_simulated
from ncmi.slides.simulation import SimulationOptions, read_table
from ncmi.slides.simulation.lesions import plan_slide
from ncmi.slides.simulation.options import make_table


def test_oracle_is_a_distribution_that_knows_what_a_count_tells(bench: Any) -> None:
    oracle_probabilities = bench("slides_simulation").oracle_probabilities
    options, rows = SimulationOptions(), make_table("camelyon17")[::3]
    probabilities = oracle_probabilities(options, rows)
    assert probabilities.shape == (len(rows), 4)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    counts = [plan_slide(options, row).lesion_patches for row in rows]
    for row, count, found in zip(rows, counts, probabilities, strict=True):
        assert (count == 0) == (row.label == "negative")
        if count == 0:
            assert found[0] > 0.999
        if count == 1:
            # single patches are ITC's, or the smallest micro's: a Bayes rule, so both are possible
            assert found[1] > 0.5
            assert 0 < found[2] < 0.5
        if count > 400:
            assert found[3] > 0.99
    # priors count: the same slide among many micro slides is thought micro more readily
    one = rows[counts.index(1)]
    few = oracle_probabilities(options, [one, *(row for row in rows if row.label != "micro")])[0, 2]
    many = oracle_probabilities(options, [one, *(row for row in rows if row.label == "micro")])[0, 2]
    assert few < many


def test_oracle_is_good_but_not_perfect_and_worse_at_a_small_scale(bench: Any) -> None:
    oracle_scores = bench("slides_simulation").oracle_scores
    rows = make_table("camelyon17")[::2]
    full = oracle_scores(SimulationOptions(), rows)
    small = oracle_scores(SimulationOptions(scale=0.02), rows)
    assert 0.9 < full.macro_f1.value < 1
    assert full.macro_auc.value > 0.98
    assert small.macro_f1.value < full.macro_f1.value
    assert full.samples == 250


def test_bracs_oracle_is_right_by_construction(bench: Any) -> None:
    module = bench("slides_simulation")
    rows = make_table("bracs")
    found = module.oracle_scores(SimulationOptions("bracs", scale=0.1), rows)
    assert found.accuracy.value == 1
    assert Counter(np.argmax(module.oracle_probabilities(SimulationOptions("bracs"), rows), 1))[0] == 44


def test_links_are_many_slides_in_few_files(bench: Any, tmp_path: Path) -> None:
    out, link_cohort = tmp_path / "linked", bench("slides_memory").link_cohort
    linked = link_cohort(out, slides=40, distinct=6, instances=50, feature_dim=24)
    assert linked == {"slides": 40, "distinct": 6, "instances": 50, "bytes_if_loaded": 40 * 50 * 24 * 2}
    assert json.loads((out / "SIMULATION.json").read_text())["linked"] == linked
    assert is_simulated(out / "features")
    files = sorted((out / "features").iterdir())
    assert len(files) == 40
    assert all(file.is_symlink() and not file.readlink().is_absolute() for file in files)
    assert len({file.resolve() for file in files}) == 6 == len(list((out / "distinct").iterdir()))
    moved = out.rename(tmp_path / "moved")
    bags, rows = open_bags(moved), read_table(moved / "labels.csv", "camelyon17")
    assert bags.names == tuple(row.name for row in rows)
    assert {bags.shape(name) for name in bags.names} == {(50, 24)}
    # a linked slide has the label and center of what it is a link to
    originals = {row.name: row for row in make_table("camelyon17")}
    for row in rows:
        original = originals[(moved / "features" / f"{row.name}.h5").resolve().stem]
        assert (row.label, row.center) == (original.label, original.center)
    centers = {row.patient: set() for row in rows}  # type: dict[str, set[str]]
    for row in rows:
        centers[row.patient].add(row.center)
    assert all(len(found) == 1 for found in centers.values())
    link_cohort(moved, slides=40, distinct=6, instances=50, feature_dim=24)
