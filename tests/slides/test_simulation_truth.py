"""Attention against the truth, and the oracle."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ncmi.slides.simulation import SimulationOptions, attention_auc, oracle_scores
from ncmi.slides.simulation.lesions import plan_slide
from ncmi.slides.simulation.options import make_table
from ncmi.slides.simulation.truth import oracle_probabilities


@given(
    st.integers(1, 20).flatmap(
        lambda n: st.tuples(arrays(float, n, elements=st.sampled_from([0, 0.25, 0.5, 1])), arrays(bool, n))
    )
)
def test_attention_auc_counts_pairs(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    attention, lesion = drawn
    pairs = [
        1.0 if inside > outside else 0.5 if inside == outside else 0.0
        for inside in attention[lesion]
        for outside in attention[~lesion]
    ]
    found = attention_auc(attention, lesion)
    if pairs:
        assert found == pytest.approx(np.mean(pairs))
    else:
        assert found is None


def test_attention_auc_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\), lesion \(3,\)"):
        attention_auc([0.1, 0.2], [True, False, True])
    with pytest.raises(ValueError, match="not finite"):
        attention_auc([0.1, float("nan")], [True, False])


def test_oracle_is_a_distribution_that_knows_what_a_count_tells() -> None:
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


def test_oracle_is_good_but_not_perfect_and_worse_at_a_small_scale() -> None:
    rows = make_table("camelyon17")[::2]
    full = oracle_scores(SimulationOptions(), rows)
    small = oracle_scores(SimulationOptions(scale=0.02), rows)
    assert 0.9 < full.macro_f1.value < 1
    assert full.macro_auc.value > 0.98
    assert small.macro_f1.value < full.macro_f1.value
    assert full.samples == 250


def test_bracs_oracle_is_right_by_construction() -> None:
    rows = make_table("bracs")
    found = oracle_scores(SimulationOptions("bracs", scale=0.1), rows)
    assert found.accuracy.value == 1
    assert Counter(np.argmax(oracle_probabilities(SimulationOptions("bracs"), rows), 1))[0] == 44
